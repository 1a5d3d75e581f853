"""Recording four cameras of 640x480 at 50 fps from synthetic sources: the real recorder beside a control loop.

What recording costs the loop that moves the arms is measured in that loop: its cycles before the take and during it.
LeRobot records in the loop itself, so there it is the time of `add_frame`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import yaml

from aloha_runtime import config, messages
from aloha_runtime.bus import RECORDER, Bus, Client, Subscriber
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.bench_train import INTEROP
from aloha_runtime.config import RigConfig
from aloha_runtime.data import Dataset, recorded, reports
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import RecorderState, Request
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import RunDirectory

CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
HEIGHT, WIDTH = 480, 640
WORKER = "aloha_runtime.commands.bench_record_worker"
LEROBOT = Path(__file__).with_name("lerobot_record.py")
QUIET_S = 5.0
START_S = 30.0
GOAL_CPU_MS, GOAL_CONTROL_MS, GOAL_WAIT_S = 3.0, 1.0, 0.3


@dataclass(frozen=True)
class Recorded:
    """One take: its report, the recorder's CPU per camera and frame, seconds from the order to end it to its commit,
    and the cycle times (ms) of the control loop without and with recording."""

    report: dict[str, Any]
    cpu_ms: float
    wait_s: float
    before_ms: list[float]
    during_ms: list[float]


def run(seconds: float) -> list[Row]:
    """Record one take of `seconds`, and one with LeRobot where `make interop` has put it."""
    with tempfile.TemporaryDirectory(prefix="aloha-bench-") as folder:
        pictures = Path(folder) / "pictures.npy"
        np.save(pictures, make_pictures())
        ours = _record(Path(folder), pictures, seconds)
        theirs = _lerobot(Path(folder), pictures, min(seconds, 20.0))
    lost = sum(ours.report["repeated"].values()) + ours.report["skipped_ticks"]
    during = float(np.quantile(ours.during_ms, 0.99))
    return [
        Row("frames that did not arrive", lost, "frames", goal=0, met=lost == 0),
        Row("rate", ours.report["rate_hz"], "Hz", peer=theirs.get("rate_hz")),
        _goal("CPU a frame of one camera", ours.cpu_ms, "ms", theirs.get("cpu_ms"), GOAL_CPU_MS),
        Row("control cycle without recording, p99", float(np.quantile(ours.before_ms, 0.99)), "ms"),
        _goal("control cycle while recording, p99", during, "ms", theirs.get("add_p99_ms"), GOAL_CONTROL_MS),
        _goal("wait after the end of a take", ours.wait_s, "s", theirs.get("wait_s"), GOAL_WAIT_S),
    ]


def make_pictures() -> np.ndarray:
    """(cameras, 480, 1280, 3) uint8: smooth shapes with the noise of a sensor; twice as wide as a picture."""
    random = np.random.default_rng(0)
    wide = []
    for _ in CAMERAS:
        small = random.integers(0, 256, (HEIGHT // 40, 2 * WIDTH // 40, 3), np.uint8)
        smooth = cv2.resize(small, (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        wide.append(np.clip(smooth + random.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8))
    return np.stack(wide)


def _goal(name: str, value: float, unit: str, peer: float | None, goal: float) -> Row:
    return Row(name, value, unit, peer=peer, goal=goal, met=value <= goal)


def _rig() -> RigConfig:
    plain = config.load("sim").model_dump(mode="json")
    camera = {"type": "sim", "width": WIDTH, "height": HEIGHT, "fps": 50}
    return RigConfig.model_validate(plain | {"cameras": dict.fromkeys(CAMERAS, camera)})


def _record(folder: Path, pictures: Path, seconds: float) -> Recorded:
    rig, dataset, clock = _rig(), folder / "dataset", WallClock()
    recorded.create(dataset, rig)
    with RunDirectory(folder / "run") as directory, Bus(directory.path, clock) as bus:
        rig_file = directory.path / "rig.yaml"
        rig_file.write_text(yaml.safe_dump(rig.model_dump(mode="json")))
        state: Subscriber = bus.subscribe(messages.RECORDER)
        worker = [sys.executable, "-m", WORKER]
        asked = [str(rig_file), str(directory.path), str(pictures)]
        arguments = ["--rig", str(rig_file), "--run-dir", str(directory.path), "--dataset", str(dataset)]
        recorder = [sys.executable, "-m", "aloha_runtime.processes.recorder", "recorder", *arguments, "--task", "bench"]
        commands = [[*worker, "cameras", *asked], [*worker, "control", *asked], recorder]
        with _children(commands) as (_, control, own):
            _wait(lambda: state.latest() is not None, START_S, "the recorder's start")
            time.sleep(2.0)
            _cycles(control)
            time.sleep(QUIET_S)
            before = _cycles(control)
            client = bus.client(RECORDER)
            _ask(client, "next")
            process = psutil.Process(own.pid)
            cpu_s = sum(process.cpu_times()[:2])
            time.sleep(seconds)
            during, cpu_s = _cycles(control), sum(process.cpu_times()[:2]) - cpu_s
            stopped = time.monotonic()
            _ask(client, "success")
            _wait(lambda: _newest(state).takes > 0, START_S, "the end of the take")
            wait_s = time.monotonic() - stopped
    length = len(Dataset(dataset))
    return Recorded(reports.read(dataset, 0), 1000 * cpu_s / length / len(CAMERAS), wait_s, before, during)


def _newest(state: Subscriber) -> RecorderState:
    found = state.latest()
    assert isinstance(found, RecorderState), "the recorder was heard before"
    return found


def _ask(client: Client, verb: str) -> None:
    reply = client.request(Request(verb=verb, sender="operator"))
    if not reply.ok:
        raise AlohaError(reply.text)


def _wait(until: Any, timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not until():
        if time.monotonic() > deadline:
            raise AlohaError(f"{what} did not happen within {timeout_s:.0f} s; see what the processes printed")
        time.sleep(0.002)


def _cycles(control: "subprocess.Popen[str]") -> list[float]:
    """Cycle times of the control loop since the last call, ms."""
    assert control.stdin is not None
    assert control.stdout is not None
    control.stdin.write("\n")
    control.stdin.flush()
    found: list[float] = json.loads(control.stdout.readline())
    return found


@contextmanager
def _children(commands: list[list[str]]) -> Iterator[list["subprocess.Popen[str]"]]:
    """These processes; whatever happens, none is left."""
    children: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        yield children
    finally:
        for child in reversed(children):
            child.terminate()
            child.communicate()


def _lerobot(folder: Path, pictures: Path, seconds: float) -> dict[str, float]:
    """LeRobot's figures; none without its environment."""
    if not INTEROP.exists():
        return {}
    command = [str(INTEROP), "-P", str(LEROBOT), str(pictures), str(folder / "lerobot"), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return found
