"""`aloha guard view`: which points it marks, and its picture of a pose, of angles and of a running rig."""

import os
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


def test_only_a_new_png_or_a_regular_file_is_replaced(tmp_path: Path) -> None:
    def draw(name: str) -> None:
        guard_view.view(None, "follower", "start", None, tmp_path / name, False, None)

    (tmp_path / "target.png").write_text("kept")
    (tmp_path / "link.png").symlink_to("target.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / ".aside.new.png").symlink_to("target.png")
    (tmp_path / "page.html").symlink_to("target.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name in ("link", "dangling", "folder", "pipe", "aside"):
        with pytest.raises(
            ConfigError, match=rf"--out .*/{name}\.png: .* is not replaced: give the path of a new \.png"
        ):
            draw(f"{name}.png")
    with pytest.raises(ConfigError, match=r"page\.html is a link"):
        guard_view.view(None, "follower", None, None, tmp_path / "page.png", True, tmp_path)
    for name in ("rig.yaml", "view", ".png", "new/full"):
        with pytest.raises(ConfigError, match=rf"--out .*/{name}: give the path of a picture, which ends in \.png"):
            draw(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "pipe.png").is_fifo()
    assert (tmp_path / "target.png").read_text() == "kept"
    draw("target.png")
    assert red(tmp_path / "target.png") > 20


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="disk full"):
        guard_view.view(None, "follower", "start", None, tmp_path / "view.png", False, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pose", "angles", "follow", "said"),
    [
        ("start", "0 0 0 0 0 0", False, "give one of them"),
        ("start", None, True, "--follow draws the running rig"),
        (None, "0 0 0 0 0 0", True, "--follow draws the running rig"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    tmp_path: Path, pose: str | None, angles: str | None, follow: bool, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        guard_view.view(None, "follower", pose, angles, tmp_path / "view.png", follow, None)
    assert list(tmp_path.iterdir()) == []


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
