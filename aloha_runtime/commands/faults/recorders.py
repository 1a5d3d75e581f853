"""Faults of the recorder and of its disk. Beside it a loop says what arms say, 200 times a second."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from aloha_runtime.commands import bench_recorder_kills
from aloha_runtime.commands.bench_record_rig import Child, Scene, end, make_pictures, rig_of, scene, wait
from aloha_runtime.commands.faults.held_disk import HeldDisk, supported
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.data import Dataset, DatasetWriter, reports
from aloha_runtime.errors import AlohaError, DatasetError
from aloha_runtime.robot import TICK_NS

WIDTH, HEIGHT = 320, 240
TAKE_S = 1.0
"""Of a take before and after a fault."""
STALL_S = 2.0
MOST_LOST = 50
TICKS_OF_GRACE = 5
"""A take begins and ends between two looks at its state."""
KILLS_A_TRIAL = 10


@dataclass
class RecorderRig:
    """The recorder on a disk that can be stalled and filled. `run` starts one and ends it."""

    scene: Scene
    disk_folder: Path
    takes: int = 0
    began_ns: int = 0
    """When the take under way was seen to have begun (monotonic)."""

    @contextmanager
    def take(self) -> Iterator[tuple[Child, HeldDisk]]:
        """A recorder in the middle of a take; afterwards it is ended, and the disk is well."""
        with self.recorder() as (recorder, disk):
            self.begin()
            yield recorder, disk

    @contextmanager
    def recorder(self) -> Iterator[tuple[Child, HeldDisk]]:
        """The same before its first take."""
        if not supported():
            raise AlohaError("this kernel cannot hold writes back (seccomp user notification, x86-64): not tried")
        with HeldDisk(self.disk_folder) as disk:
            recorder = self.scene.start(disk.install)
            try:
                yield recorder, disk
            finally:
                disk.mend()
                if recorder.poll() is None:
                    end(recorder)

    def begin(self) -> None:
        """Frames of a take come."""
        self.takes = self.scene.state.takes
        self.scene.ask("next")
        wait(lambda: self.scene.state.phase == "taking", "the start of the take")
        self.began_ns = time.monotonic_ns()
        time.sleep(TAKE_S)

    def success(self) -> None:
        """The take is over and dealt with; after a long pause it may have ended by itself."""
        if self.scene.state.takes == self.takes:
            self.scene.ask("success")
        wait(lambda: self.scene.state.takes > self.takes, "the end of the take")

    def unloadable(self) -> str:
        """Why the dataset cannot be opened and read; empty when it can."""
        try:
            dataset = Dataset(self.scene.dataset)
            return "" if len(dataset.vectors("action")) == len(dataset) else "rows are missing"
        except DatasetError as error:
            return str(error)


@contextmanager
def recorder_rig() -> Iterator[RecorderRig]:
    with tempfile.TemporaryDirectory(prefix="aloha-faults-") as folder:
        pictures = Path(folder) / "pictures.npy"
        np.save(pictures, make_pictures(WIDTH, HEIGHT))
        with scene(Path(folder), rig_of(WIDTH, HEIGHT), pictures) as running:
            yield RecorderRig(running, running.dataset)


def _unaccounted(rig: RecorderRig, ended_ns: int) -> float:
    """Ticks of the last take until an instant that are neither in the dataset nor counted as skipped."""
    dataset = Dataset(rig.scene.dataset)
    index = len(dataset.episodes) - 1
    counted = dataset.episodes[index].length + int(reports.read(rig.scene.dataset, index)["skipped_ticks"])
    return max(0.0, (ended_ns - rig.began_ns) / TICK_NS - counted - TICKS_OF_GRACE)


def stalled(rig: RecorderRig, _chance: Random) -> Trial:
    """The stall ends before the take does: every tick is there, what was too late repeats and is counted."""
    with rig.take() as (_, disk):
        disk.stall()
        time.sleep(STALL_S)
        held = disk.stopped_calls
        disk.mend()
        time.sleep(TAKE_S)
        ended_ns = time.monotonic_ns()
        rig.success()
        broken = ["" if held else "the recorder wrote nothing meanwhile, so nothing was tried", rig.unloadable()]
        return Trial("; ".join(filter(None, broken)), _unaccounted(rig, ended_ns))


def stalled_at_the_start(rig: RecorderRig, _chance: Random) -> Trial:
    """The disk stalls before the first frame and for two seconds after it: every tick is there or counted."""
    with rig.recorder() as (_, disk):
        wait(lambda: rig.scene.state.phase == "idle", "a recorder that is set up")
        disk.stall()
        rig.begin()
        time.sleep(STALL_S - TAKE_S)
        held = disk.stopped_calls
        disk.mend()
        time.sleep(TAKE_S)
        ended_ns = time.monotonic_ns()
        rig.success()
        broken = ["" if held else "the recorder wrote nothing meanwhile, so nothing was tried", rig.unloadable()]
        return Trial("; ".join(filter(None, broken)), _unaccounted(rig, ended_ns))


def stalled_at_the_end(rig: RecorderRig, _chance: Random) -> Trial:
    """The take ends while the disk stalls: it is committed when the disk goes on, and the next one is whole."""
    with rig.take() as (_, disk):
        began = time.monotonic()
        disk.stall()
        rig.scene.ask("success")
        time.sleep(STALL_S)
        disk.mend()
        wait(lambda: rig.scene.state.takes > rig.takes, "the end of the take")
        waited = time.monotonic() - began
        episodes = len(Dataset(rig.scene.dataset).episodes)
        rig.begin()
        rig.success()
        found = len(Dataset(rig.scene.dataset).episodes)
        broken = ["" if found == episodes + 1 else "the next take was not committed", rig.unloadable()]
        return Trial("; ".join(filter(None, broken)), waited - STALL_S)


def full(rig: RecorderRig, _chance: Random) -> Trial:
    """In the middle of a take the disk is full; then there is room again, and what could not be saved comes back."""
    with rig.take() as (recorder, disk):
        before = len(Dataset(rig.scene.dataset).episodes)
        told = rig.scene.state.frames
        disk.fill()
        wait(lambda: rig.scene.state.takes > rig.takes, "the end of the take by itself")
        broken = [rig.unloadable(), "" if rig.scene.state.trouble else "nobody is told why nothing is recorded"]
        disk.mend()
        rig.begin()  # opening the dataset again brings the take back
        rig.success()
        alive = recorder.poll() is None
        dataset = Dataset(rig.scene.dataset)
        broken += [
            rig.unloadable(),
            "" if alive else "the recorder has ended",
            "" if len(dataset.episodes) == before + 2 else f"{len(dataset.episodes) - before} of 2 takes are there",
        ]
        kept = dataset.episodes[before].length if len(dataset.episodes) > before else 0
        return Trial("; ".join(filter(None, broken)), float(max(0, told - kept)))


def stopped(rig: RecorderRig, _chance: Random) -> Trial:
    """SIGSTOP for two seconds: what was missed is counted, the take goes on."""
    with rig.take() as (recorder, _):
        os.kill(recorder.pid, signal.SIGSTOP)
        time.sleep(STALL_S)
        os.kill(recorder.pid, signal.SIGCONT)
        time.sleep(TAKE_S)
        ended_ns = time.monotonic_ns()
        rig.success()
        return Trial(rig.unloadable(), _unaccounted(rig, ended_ns))


def process_killed(rig: RecorderRig, chance: Random) -> Trial:
    """SIGKILL at a random instant of a take; the dataset loads at once, and repairing it twice changes nothing."""
    with rig.take() as (recorder, _):
        time.sleep(chance.uniform(0.0, 1.0))
        before = len(Dataset(rig.scene.dataset).episodes)
        told = rig.scene.state.frames
        recorder.kill()
        recorder.wait()
        broken = [rig.unloadable()]
        with DatasetWriter.open(rig.scene.dataset) as writer:
            lost = max(0, told - (writer.recovered or 0))
        once = bench_recorder_kills.digest(rig.scene.dataset)
        DatasetWriter.open(rig.scene.dataset).close()
        broken += [
            "" if bench_recorder_kills.digest(rig.scene.dataset) == once else "a second repair changed a byte",
            "" if len(Dataset(rig.scene.dataset).episodes) >= before else "a finished episode was lost",
        ]
        return Trial("; ".join(filter(None, broken)), float(lost))


def loop_killed(_rig: RecorderRig, chance: Random) -> Trial:
    """A few kills of the recording loop forked from a loaded process, as `aloha bench recorder-kills` does them."""
    rows = bench_recorder_kills.run(KILLS_A_TRIAL, chance.randrange(1 << 30))
    broken = [row.name for row in rows if row.met is False]
    most = next(row.value for row in rows if row.name.endswith("most"))
    return Trial("; ".join(broken), most)


RECORDER = Family(
    "recorder",
    recorder_rig,
    (
        Scenario(
            "recorder killed",
            "at most 50 frames of the open episode lost, none finished; a second repair changes nothing",
            "frames lost",
            float(MOST_LOST),
            process_killed,
            count=2,
            soak=20,
        ),
        Scenario(
            f"recording loop killed {KILLS_A_TRIAL} times",
            "the same, at random points of an episode and of its commit",
            "frames lost",
            float(MOST_LOST),
            loop_killed,
            count=1,
            soak=50,
        ),
        Scenario(
            "recorder stopped for 2 s",
            "the take goes on, what was missed is counted",
            "ticks not accounted for",
            0.0,
            stopped,
        ),
        Scenario(
            "disk stalls for 2 s in a take",
            "every tick is there or counted; the dataset loads",
            "ticks not accounted for",
            0.0,
            stalled,
            soak=5,
        ),
        Scenario(
            "disk stalls for 2 s at the start of a take",
            "every tick is there or counted; the dataset loads",
            "ticks not accounted for",
            0.0,
            stalled_at_the_start,
            soak=5,
        ),
        Scenario(
            "disk stalls for 2 s at the end of a take",
            "committed when it goes on; the next take is whole",
            "s of waiting after the stall",
            None,
            stalled_at_the_end,
            soak=5,
        ),
        Scenario(
            "disk full in a take",
            "the take ends and comes back with the room; finished ones load; the recorder says why",
            "frames lost",
            float(MOST_LOST),
            full,
            soak=5,
        ),
    ),
)
