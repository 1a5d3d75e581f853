"""One motion, recorded by our recorder and by LeRobot: every column that LeRobot has is the same in ours.

The arms follow an action of each tick from the cycle after it began, as the arms process does; LeRobot's loop reads the
robot at the beginning of the tick and takes the action of that tick.
"""

import json
import logging
import os
import subprocess
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_lerobot_dataset import lerobot_python, psnr  # noqa: F401 — a fixture

from aloha_runtime import config, robot
from aloha_runtime.config import CameraConfig
from aloha_runtime.data import recorded
from aloha_runtime.data.session import Session
from aloha_runtime.messages import MS, ArmsState, FrameInfo, Mode, ModeHeartbeat, Request
from aloha_runtime.processes.recorder import SETTLED_TICKS, RecorderLoop
from aloha_runtime.realtime import Beat
from aloha_runtime.robot import TICK_NS

FIRST, TICKS, TASK = 1000, 40, "wave"
CORRECTED = range(12, 25)
"""Ticks in which a person had taken over."""
HEIGHT, WIDTH = 48, 64


class Inbox:
    """A topic in this process: what the test puts in is there at once."""

    dropped = restarts = 0

    def __init__(self):
        self.waiting, self.newest = deque(), None

    def put(self, message):
        self.waiting.append(message)
        self.newest = message

    def drain(self):
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def latest(self):
        return self.newest

    def fresh(self, now_ns):
        return self.newest

    wait = age_ns = close = send = reply = lambda *_: None

    def receive(self):
        return self.waiting.popleft() if self.waiting else None


class Bus:
    def __init__(self):
        self.topics = {}

    def subscribe(self, topic, depth=1, max_bytes=0):
        return self.topics.setdefault(topic.name, Inbox())

    def publisher(self, _topic):
        return Inbox()

    def server(self, _service):
        return self.topics.setdefault("orders", Inbox())


def place(time_ns):
    """Where the arms are (14,)."""
    return 0.3 * np.sin(2 * np.pi * (time_ns / 1e9 + np.arange(14) / 14))


def action(tick):
    """What they are told for a tick (14,)."""
    return 0.35 * np.sin(2 * np.pi * ((tick * TICK_NS + 30 * MS) / 1e9 + np.arange(14) / 14))


def picture(tick):
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([2 * rows + tick - FIRST, 3 * columns, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def state(stamp_ns):
    """The arms follow an action from 5 ms after its tick began."""
    tick = (stamp_ns - 5 * MS) // TICK_NS
    mode = Mode.TELEOP if tick - FIRST in CORRECTED else Mode.POLICY
    told = tick >= FIRST
    return ArmsState(
        stamp_ns=stamp_ns,
        position=place(stamp_ns).tolist(),
        velocity=[0.0] * 14,
        effort_ma=[0.0] * 14,
        target=action(tick).tolist() if told else None,
        goal=action(tick).tolist() if told else None,
        action_tick=tick if told else -1,
        mode=mode if told else Mode.ARMED,
    )


def record(path: Path) -> dict:
    """Our recording; returns what LeRobot's loop would read and be told at each of its ticks."""
    camera = CameraConfig(type="sim", width=WIDTH, height=HEIGHT, fps=50)
    rig = config.load("sim").model_copy(update={"cameras": {"cam_high": camera}})
    recorded.create(path, rig)
    bus, clock = Bus(), SimpleNamespace(now=0, virtual=True)
    clock.now_ns = lambda: clock.now
    service = SimpleNamespace(rig=rig, bus=bus, clock=clock, log=logging.getLogger("recorder"))
    loop = RecorderLoop(service, Session(path, TASK, keep_all=True), continuous=False, intervenes=True)
    bus.topics["orders"].put(Request(verb="next"))
    known, shown = [], []
    for tick in range(FIRST - 3, FIRST + TICKS + SETTLED_TICKS + 1):
        now_ns = clock.now = tick * TICK_NS
        for stamp_ns in range(now_ns - TICK_NS, now_ns, 5 * MS):
            newest = state(stamp_ns)
            bus.topics["followers"].put(newest)
        bus.topics["camera.cam_high"].put(
            FrameInfo(
                stamp_ns=now_ns - 12 * MS,
                camera="cam_high",
                height=HEIGHT,
                width=WIDTH,
                encoding="raw",
                pixels=picture(tick).tobytes(),
            )
        )
        mode = Mode.TELEOP if tick - FIRST in CORRECTED else Mode.POLICY if tick >= FIRST else Mode.ARMED
        bus.topics["mode"].put(ModeHeartbeat(stamp_ns=now_ns, mode=mode))
        if tick == FIRST + TICKS + SETTLED_TICKS:
            bus.topics["orders"].put(Request(verb="success"))
        loop.tick(Beat(tick, now_ns, 0, 0))
        if 0 <= tick - FIRST < TICKS:
            known.append(newest.position)
            shown.append(picture(tick))
    loop.finish()
    return {
        "names": np.array(robot.NAMES),
        "task": np.array(TASK),
        "state": np.array(known),
        "action": np.array([action(FIRST + index) for index in range(TICKS)]),
        "pictures": np.array(shown),
        "intervention": np.array([index in CORRECTED for index in range(TICKS)]),
        "success": np.array(True),
    }


@pytest.fixture(scope="module")
def both(lerobot_python, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("motion")
    np.savez(folder / "motion.npz", **record(folder / "ours"))
    script = Path(__file__).with_name("lerobot_motion.py")
    command = [lerobot_python, script, *(folder / name for name in ("motion.npz", "theirs", "ours", "seen.npz"))]
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, np.load(folder / "seen.npz")


def test_every_column_of_lerobots_recording_is_in_ours(both):
    _, seen = both
    theirs, ours = (json.loads(str(seen[f"{name}/described"])) for name in ("theirs", "ours"))
    assert ours == theirs, "dtypes, shapes and names, and the task"
    keys = [key for key in theirs if key not in ("task", "observation.images.cam_high")]
    assert {"action", "observation.state", "intervention", "next.reward", "next.success", "next.done"} < set(keys)
    for key in keys:
        left, right = seen[f"theirs/{key}"], seen[f"ours/{key}"]
        assert (left.dtype, left.shape) == (right.dtype, right.shape), key
        assert np.array_equal(left, right), key
        for statistic in ("min", "max", "mean", "std", "count"):
            known = [seen[f"{name}/stats/{key}/{statistic}"].ravel() for name in ("theirs", "ours")]
            assert np.allclose(*known, atol=1e-6), (key, statistic)
    pictures = [255 * seen[f"{name}/observation.images.cam_high"] for name in ("theirs", "ours")]
    assert psnr(*pictures) > 30, "the same picture in the same row; each is encoded in its own way"


def test_columns_have_the_types_that_lerobot_stores(both):
    folder, _ = both
    schemas = [pq.read_schema(folder / name / "data/chunk-000/file-000.parquet") for name in ("theirs", "ours")]
    for field in schemas[0]:
        assert str(schemas[1].field(field.name).type) == str(field.type), field.name


def test_lerobots_learner_reads_reward_and_end(both):
    _, seen = both
    if seen["learner"].dtype.kind == "U":
        pytest.skip(f"LeRobot's learner cannot be imported there: {seen['learner']}")
    wanted = np.zeros((TICKS, 2))
    wanted[-1] = 1
    assert np.array_equal(seen["learner"], wanted)
