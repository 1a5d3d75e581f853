"""`aloha guard view`: which points it marks, and its picture of a pose, of angles and of a running rig."""

import threading
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.commands import guard_view
from aloha_runtime.control.shape import scene_of
from aloha_runtime.errors import ConfigError, TransportError
from aloha_runtime.messages import ArmsState
from aloha_runtime.realtime import WallClock
from aloha_runtime.robot import pose_vector
from aloha_runtime.run_directory import RIG_FILE

RED = np.array([0xDC, 0x26, 0x26]) / 255


def red(path: Path) -> int:
    """Pixels of the marking."""
    picture = matplotlib.image.imread(path)[..., :3]
    return int((np.abs(picture - RED).max(axis=2) < 0.02).sum())


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_the_marked_points_are_as_far_apart_as_the_pair(role) -> None:
    scene = scene_of(config.load("aloha"), role)
    random, marked = np.random.default_rng(0), 0
    for angles in random.uniform(-1.2, 1.2, (60, 14)):
        angles[[6, 13]] = 0.5
        near, between = scene.nearest(angles), guard_view.nearest_points(scene, angles)
        if not near.first:
            assert between is None
        elif near.distance_m > 0:
            assert between is not None
            apart_m = float(np.linalg.norm(between[0] - between[1]))
            assert apart_m == pytest.approx(near.distance_m, abs=0.012 if "base" in near.second else 0.002)
            marked += 1
    assert marked > 10


def test_a_pose_and_angles_are_drawn_without_a_rig(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "view.png"
    guard_view.view(None, "follower", "start", None, out, False, None)
    assert "left forearm and table: 233 mm (the guard keeps 20 mm)" in capsys.readouterr().out
    assert red(out) > 20
    guard_view.view("aloha2", "leader", None, "0 -0.96, 1.16 0 -0.3 0", out, False, None)
    assert "left handle and table" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["view.png"]


@pytest.mark.parametrize("angles", ["", "1 2 3", "0 0 0 0 0 nan", "a b c d e f"])
def test_angles_that_are_none_are_refused(tmp_path: Path, angles: str) -> None:
    with pytest.raises(ConfigError, match="give 6 angles"):
        guard_view.view(None, "follower", None, angles, tmp_path / "view.png", False, None)


def test_a_running_rig_is_drawn_where_it_is_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run_dir = tmp_path / "view.png", tmp_path / "run"
    with pytest.raises(TransportError, match="nothing runs in"):
        guard_view.view(None, "follower", None, None, out, False, run_dir)
    run_dir.mkdir(mode=0o700)
    (run_dir / RIG_FILE).write_text(config.find("sim").read_text())
    with pytest.raises(TransportError, match="followers have not said where they are"):
        guard_view.view(None, "follower", None, None, out, False, run_dir)
    stop = threading.Event()

    def say() -> None:
        position = pose_vector((0.0, -0.96, 1.16, 0.0, 0.9, 0.0), 0.0).tolist()
        with Bus(run_dir, WallClock()) as bus:
            publisher = bus.publisher(messages.FOLLOWERS)
            while not stop.wait(0.01):
                now_ns = time.monotonic_ns()
                publisher.send(ArmsState(stamp_ns=now_ns, position=position, velocity=[0.0] * 14, effort_ma=[0.0] * 14))

    speaker = threading.Thread(target=say)
    speaker.start()
    try:
        guard_view.view(None, "follower", None, None, out, False, run_dir)
    finally:
        stop.set()
        speaker.join()
    expected = scene_of(config.load("sim"), "follower").nearest(pose_vector((0.0, -0.96, 1.16, 0.0, 0.9, 0.0), 0.0))
    assert f"{expected.first} and {expected.second}: {expected.distance_m * 1000:.0f} mm" in capsys.readouterr().out
    assert red(out) > 20
