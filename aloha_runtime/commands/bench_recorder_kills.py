"""The recorder's dataset killed at random instants, hundreds of times: what was lost, and who can open the rest.

A child forked from this loaded process records short episodes as the recorder does (session, encoder threads, journal,
commits) and tells in shared memory how far it is. It is killed somewhere between its first frame and its third commit.
"""

import hashlib
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.bench_record_rig import make_pictures, rig_of, scene, wait
from aloha_runtime.commands.bench_train import INTEROP
from aloha_runtime.control.take import Ending
from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.progress import progress
from aloha_runtime.data.session import Session
from aloha_runtime.errors import DatasetError

FRAMES = 75
"""Of an episode; at `FRAME_S` a frame about one kill in ten falls into the work of a commit."""
FRAME_S = 0.004
LONGEST_S = 1.2
EPISODES_KEPT = 12
"""A dataset that has grown to this is left, and the next kill begins a new one."""
MOST_LOST = 50
TOLD = struct.Struct("<qq")
"""Episodes that were saved, frames of the open one that were handed over."""
CAMERAS = {"cam_high": (48, 64), "cam_low": (48, 64)}
WIDTH, HEIGHT = 320, 240


def run(count: int, seed: int = 0) -> list[Row]:
    """Kill `count` times. Every claim is counted, none is assumed."""
    chance = random.Random(seed)  # noqa: S311 — instants, not secrets
    lost: list[int] = []
    tally = Counter[str]()
    with (
        tempfile.TemporaryDirectory(prefix="aloha-kills-") as folder,
        _Lerobot() as lerobot,
        progress("kills", count, print) as advance,
    ):
        path = Path(folder) / "dataset"
        for _ in range(count):
            if not path.exists():
                _create(path)
            lost.append(_one(path, chance.uniform(0.0, LONGEST_S), tally, lerobot))
            if len(Dataset(path).episodes) >= EPISODES_KEPT:
                shutil.rmtree(path)
            advance(1)
    opened = tally["opened before repair"] == tally["opened after repair"] == count
    rows = [
        Row("kills", count, ""),
        Row("kills while an episode was open", tally["open"], ""),
        Row("kills within a commit", tally["within a commit"], ""),
        Row("finished episodes lost", tally["episodes lost"], "", goal=0, met=not tally["episodes lost"]),
        Row("frames of the open episode lost, p50", float(np.quantile(lost, 0.5)), "frames"),
        Row("frames of the open episode lost, most", max(lost), "frames", goal=MOST_LOST, met=max(lost) <= MOST_LOST),
        Row("opened at once, and after repair", float(opened), "", goal=1, met=opened),
        Row("repairing twice gave other bytes", tally["changed"], "", goal=0, met=not tally["changed"]),
    ]
    if lerobot.available:
        asked = tally["asked LeRobot"]
        rows.append(
            Row("opened by LeRobot", tally["LeRobot ok"], f"of {asked}", goal=asked, met=tally["LeRobot ok"] == asked)
        )
    return rows


def run_process(count: int, seed: int = 1) -> list[Row]:
    """The real recorder process killed `count` times in a take of four cameras, and started again each time."""
    chance = random.Random(seed)  # noqa: S311 — instants, not secrets
    lost: list[int] = []
    with tempfile.TemporaryDirectory(prefix="aloha-kills-") as folder:
        pictures = Path(folder) / "pictures.npy"
        np.save(pictures, make_pictures(WIDTH, HEIGHT))
        with scene(Path(folder), rig_of(WIDTH, HEIGHT), pictures) as rig:
            for _ in range(count):
                recorder = rig.start()
                rig.ask("next")
                wait(lambda: rig.state.phase == "taking", "the start of the take")
                time.sleep(chance.uniform(0.0, 2.0))
                told = rig.state.frames
                recorder.kill()
                recorder.wait()
                with DatasetWriter.open(rig.dataset) as writer:
                    lost.append(max(0, told - (writer.recovered or 0)))
    most = max(lost)
    return [
        Row("kills of the whole process", count, ""),
        Row("frames told but lost, most", most, "frames", goal=MOST_LOST, met=most <= MOST_LOST),
    ]


def _create(path: Path) -> None:
    names = ["a", "b", "c"]
    with DatasetWriter.create(path, vectors={"action": names, "observation.state": names}, cameras=CAMERAS):
        pass


def _one(path: Path, after_s: float, tally: Counter[str], lerobot: "_Lerobot") -> int:
    """Record, kill, judge; returns how many frames that had been handed over are gone."""
    before = len(Dataset(path).episodes)
    told = mmap.mmap(-1, TOLD.size)
    child = os.fork()
    if child == 0:
        _record(path, told)
    while TOLD.unpack(told[:]) == (0, 0):
        time.sleep(0.001)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    saved, handed = map(int, TOLD.unpack(told[:]))
    there = len(Dataset(path).episodes)
    tally["opened before repair"] += 1
    tally["episodes lost"] += max(0, before + saved - there)
    tally["open"] += handed > 0
    tally["within a commit"] += handed == FRAMES
    if there:
        lerobot.ask(path, tally)
    DatasetWriter.open(path).close()
    once = digest(path)
    DatasetWriter.open(path).close()
    tally["changed"] += digest(path) != once
    dataset = Dataset(path)
    dataset.vectors("action")
    tally["opened after repair"] += 1
    if len(dataset.episodes):
        lerobot.ask(path, tally)
    if there > before + saved:  # the commit was through, only its word was not
        return 0
    found = dataset.episodes[-1].length if len(dataset.episodes) > there else 0
    return max(0, handed - found)


def _record(path: Path, told: mmap.mmap) -> None:
    """The child: one episode after the other, until it is killed."""
    session = Session(path, "kills", keep_all=True)
    random_images = np.random.default_rng(os.getpid()).integers(0, 256, (8, 48, 64, 3), np.uint8)
    saved = 0
    while True:
        session.begin()
        for frame in range(FRAMES):
            numbers = np.full(3, frame, np.float32)
            images = {f"observation.images.{name}": random_images[frame % 8] for name in CAMERAS}
            if not session.add({"action": numbers, "observation.state": numbers, **images}):
                raise DatasetError(session.trouble)
            told[:] = TOLD.pack(saved, frame + 1)
            time.sleep(FRAME_S)
        session.end(Ending(True, "done"), lambda first, frames: {"flags": [], **_FIGURES})
        saved += 1
        told[:] = TOLD.pack(saved, 0)


_FIGURES = {
    "seconds": 1.5, "rate_hz": 50.0, "repeated": {}, "age_ms": {}, "camera_skew_ms": {"p99": 0.0}, "clipped_share": 0.0,
}  # fmt: skip


def digest(path: Path) -> str:
    """Of every file: name and content."""
    content = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            content.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return content.hexdigest()


class _Lerobot:
    """LeRobot in a process of its own, asked about one dataset after the other."""

    def __init__(self) -> None:
        self.available = INTEROP.exists()

    def __enter__(self) -> "_Lerobot":
        if self.available:
            script = Path(__file__).with_name("lerobot_open.py")
            self._child = subprocess.Popen(
                [str(INTEROP), "-P", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.available:
            self._child.kill()
            self._child.communicate()

    def ask(self, path: Path, tally: Counter[str]) -> None:
        if not self.available:
            return
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        said = self._child.stdout.readline().strip()
        tally["asked LeRobot"] += 1
        tally["LeRobot ok"] += said == "ok"
        if said != "ok":
            print(f"LeRobot: {said}")  # noqa: T201
