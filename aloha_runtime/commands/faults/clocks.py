"""The wall clock of the machine is set while everything runs. Only the monotonic clock may count.

Nobody's clock is touched: a library preloaded into the processes tried (`wall_clock.c`) shifts what they are told.
"""

import contextlib
import itertools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from aloha_runtime.commands.bench_record_rig import end
from aloha_runtime.commands.faults.recorders import RecorderRig, recorder_rig
from aloha_runtime.commands.faults.rig import ARMS, FaultRig
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.data import Dataset
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MS, Mode
from aloha_runtime.sim.chain_control import GetReport

SOURCE = Path(__file__).with_name("wall_clock.c")
HOUR_S = 3600
OLDEST_MS = 2000.0
"""A picture on a busy machine; an hour would be 3.6 million."""
JUMPS_S = (HOUR_S, -HOUR_S, 0)
"""An hour ahead, then an hour behind, then right again."""
BETWEEN_S = 0.8
LONGEST_GAP_NS = 100 * MS
"""Between two states of the arms: a stall, and not a stamp of the wrong clock, which would be off by an hour."""


class WallClock:
    """The shifted clock of children that are started with `environment`. A context."""

    def __enter__(self) -> "WallClock":
        compiler = shutil.which("cc")
        if compiler is None:
            raise AlohaError("there is no C compiler (`cc`) to build the shifted clock with: install gcc; not tried")
        self._folder = tempfile.TemporaryDirectory(prefix="aloha-faults-")
        self.library = Path(self._folder.name) / "wall_clock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self.library), str(SOURCE)], check=True)
        shift = Path(self._folder.name) / "shift"
        shift.write_bytes(bytes(8))
        with shift.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(self.library), "FAULTS_WALL_CLOCK": str(shift)}
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()
        self._folder.cleanup()

    def jump(self, seconds: int) -> None:
        """The wall clock is off by so much from now on."""
        self._memory[:] = struct.pack("<q", seconds)

    def missing_in(self, pid: int) -> str:
        """That a process does not have the shifted clock; empty when it has."""
        there = str(self.library) in Path(f"/proc/{pid}/maps").read_text()
        return "" if there else f"process {pid} does not have the shifted clock, so nothing was tried"


@dataclass
class ClockRig:
    """Moving arms and a recorder, all with the shifted clock."""

    clock: WallClock
    arms: FaultRig
    recorder: RecorderRig


@contextmanager
def clock_rig() -> Iterator[ClockRig]:
    with WallClock() as clock, contextlib.ExitStack() as held:
        before = dict(os.environ)
        os.environ.update(clock.environment)
        try:
            arms = held.enter_context(FaultRig(start="spawn"))
            recorder = held.enter_context(recorder_rig())
        finally:
            for name in clock.environment:
                os.environ.pop(name)
            os.environ.update(before)
        yield ClockRig(clock, arms, recorder)


def arms_go_on(rig: ClockRig, chance: Random) -> Trial:
    """Mode, motion and the order of stamps are what they were."""
    os.environ.update(rig.clock.environment)  # of the policy, which starts now
    try:
        rig.arms.move(chance)
    finally:
        for name in rig.clock.environment:
            os.environ.pop(name)
    for jump_s in JUMPS_S:
        rig.clock.jump(jump_s)
        rig.arms.pause(BETWEEN_S)
    word = rig.arms.word()
    stamps = [state.stamp_ns for state in rig.arms.heard]
    gaps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    outside = sum(sum(report.counts.values()) for arm in ARMS if (report := rig.arms.ask(arm, GetReport()).report))
    broken = [
        *(rig.clock.missing_in(rig.arms.pid(name)) for name in ("supervisor", "arms@followers", "policy")),
        "" if word.mode is Mode.POLICY else f"the mode is {word.mode} ({word.cause})",
        f"{outside} goals outside the envelope" if outside else "",
        "" if gaps and min(gaps) >= 0 else "stamps of the arms went back",
    ]
    return Trial("; ".join(filter(None, broken)), max(gaps, default=0) / MS)


def stamps_in_order(rig: ClockRig, _chance: Random) -> Trial:
    """Of a take during which the clock jumps: times and capture times only grow, frames are 20 ms apart."""
    scene = rig.recorder.scene
    recorder = scene.start(lambda: os.environ.update(rig.clock.environment))
    try:
        rig.recorder.begin()
        for jump_s in JUMPS_S:
            rig.clock.jump(jump_s)
            time.sleep(BETWEEN_S)
        missing = rig.clock.missing_in(recorder.pid)
        rig.recorder.success()
    finally:
        end(recorder)
    dataset = Dataset(scene.dataset)
    last = dataset.episodes[-1]
    span = slice(last.from_index, last.to_index)
    captured, ages = dataset.vectors("capture_s")[span], dataset.vectors("frame_age_ms")[span]
    backwards, oldest = -float(np.diff(captured, axis=0).min()), float(np.abs(ages).max())
    broken = [
        missing,
        rig.recorder.unloadable(),
        f"a capture time went back by {backwards:.3f} s" if backwards > 0 else "",
        f"an age of {oldest:.0f} ms was recorded" if oldest > OLDEST_MS else "",
    ]
    return Trial("; ".join(filter(None, broken)), oldest)


CLOCKS = Family(
    "wall clock",
    clock_rig,
    (
        Scenario(
            "wall clock jumps an hour, arms move",
            "nothing changes; stamps stay in order",
            "ms between two states of the arms",
            LONGEST_GAP_NS / MS,
            arms_go_on,
            soak=5,
        ),
        Scenario(
            "wall clock jumps an hour in a take",
            "recorded times stay in order",
            "ms, oldest age recorded",
            OLDEST_MS,
            stamps_in_order,
            soak=5,
        ),
    ),
)
