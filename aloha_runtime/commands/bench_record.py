"""Recording four cameras of 640x480 at 50 fps from synthetic sources: the real recorder beside a control loop.

What recording costs the loop that moves the arms is measured in that loop: its cycles before the take and during it.
LeRobot records in the loop itself, so there it is the time of `add_frame`.
"""

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.bench_record_rig import CAMERAS, Child, end, make_pictures, rig_of, scene, wait
from aloha_runtime.commands.bench_train import INTEROP
from aloha_runtime.data import Dataset, reports

HEIGHT, WIDTH = 480, 640
LEROBOT = Path(__file__).with_name("lerobot_record.py")
SETTLE_S, QUIET_S = 2.0, 5.0
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
        np.save(pictures, make_pictures(WIDTH, HEIGHT))
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


def _goal(name: str, value: float, unit: str, peer: float | None, goal: float) -> Row:
    return Row(name, value, unit, peer=peer, goal=goal, met=value <= goal)


def _record(folder: Path, pictures: Path, seconds: float) -> Recorded:
    with scene(folder, rig_of(WIDTH, HEIGHT), pictures) as rig:
        recorder = rig.start()
        try:
            time.sleep(SETTLE_S)
            _cycles(rig.control)
            time.sleep(QUIET_S)
            before = _cycles(rig.control)
            rig.ask("next")
            process = psutil.Process(recorder.pid)
            cpu_s = sum(process.cpu_times()[:2])
            time.sleep(seconds)
            during, cpu_s = _cycles(rig.control), sum(process.cpu_times()[:2]) - cpu_s
            stopped = time.monotonic()
            rig.ask("success")
            wait(lambda: rig.state.takes > 0, "the end of the take")
            wait_s = time.monotonic() - stopped
        finally:
            end(recorder)
        frames = len(Dataset(rig.dataset)) * len(CAMERAS)
        return Recorded(reports.read(rig.dataset, 0), 1000 * cpu_s / frames, wait_s, before, during)


def _cycles(control: Child) -> list[float]:
    """Cycle times of the control loop since the last call, ms."""
    assert control.stdin is not None
    assert control.stdout is not None
    control.stdin.write("\n")
    control.stdin.flush()
    found: list[float] = json.loads(control.stdout.readline())
    return found


def _lerobot(folder: Path, pictures: Path, seconds: float) -> dict[str, float]:
    """LeRobot's figures; none without its environment."""
    if not INTEROP.exists():
        return {}
    command = [str(INTEROP), "-P", str(LEROBOT), str(pictures), str(folder / "lerobot"), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return found
