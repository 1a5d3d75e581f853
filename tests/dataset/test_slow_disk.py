"""A disk that stalls, or fills up, under a recording: writes are held back or refused by the kernel itself."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from aloha_runtime.commands.faults.held_disk import HeldDisk, supported
from aloha_runtime.data import Dataset, DatasetWriter

FRAMES = 25
RECORD = """
import sys
import time
from pathlib import Path
import numpy as np
from aloha_runtime.control.take import Ending
from aloha_runtime.data.session import Session

def tell(word):
    print(word, flush=True)
    sys.stdin.readline()

session = Session(Path(sys.argv[1]), "a task", keep_all=True)
figures = {"seconds": 1.0, "rate_hz": 50.0, "repeated": {}, "age_ms": {}, "camera_skew_ms": {"p99": 0.0}}
tell("ready")
for _ in range(2):
    session.begin()
    for number in range(int(sys.argv[2])):
        image = np.full((48, 64, 3), number, np.uint8)
        session.add({"action": np.full(2, number, np.float32), "observation.images.cam_high": image})
        if number == 12:  # beyond the first key frame, so that the head of the film is written
            while not any(film.stat().st_size > 100 for film in Path(sys.argv[1]).rglob("*.mp4") if film.exists()):
                time.sleep(0.01)
            tell("begun")
    tell("added")
    ended = session.end(Ending(True, "done"), lambda first, frames: {"flags": [], "clipped_share": 0.0, **figures})
    tell(f"kept {ended.kept} {session.trouble}")
    session.ready()
    tell(f"ready again {session.trouble}")
session.writer.close()
"""

BY_NAME = {
    "open": "open(folder + '/a', 'w')",
    "mkdir": "os.mkdir(folder + '/b')",
    "rename": "os.rename(folder + '/there', folder + '/c')",
    "unlink": "os.unlink(folder + '/there')",
    "unlink in a directory": "os.unlink('there', dir_fd=descriptor)",
}
TOUCH = """
import os, sys
folder = sys.argv[1]
descriptor = os.open(folder, os.O_RDONLY)
print("ready", flush=True)
sys.stdin.readline()
open("/dev/null", "w")
{call}
"""

pytestmark = pytest.mark.skipif(not supported(), reason="needs seccomp user notification on x86-64")


class Recording:
    """A child that records two episodes, one step for each `go`."""

    def __init__(self, dataset: Path, disk: HeldDisk) -> None:
        names = {"action": ["a", "b"]}
        DatasetWriter.create(dataset, vectors=names, cameras={"cam_high": (48, 64)}).close()
        self.child = subprocess.Popen(
            [sys.executable, "-c", RECORD, str(dataset), str(FRAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=disk.install,  # noqa: PLW1509 (system calls only)
        )

    def said(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def go(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()


@pytest.mark.parametrize("call", BY_NAME.values(), ids=BY_NAME)
def test_a_stalled_disk_holds_what_goes_by_name(tmp_path: Path, call: str) -> None:
    (tmp_path / "there").touch()
    before = sorted(tmp_path.iterdir())
    with HeldDisk(tmp_path) as disk:
        child = subprocess.Popen(
            [sys.executable, "-c", TOUCH.format(call=call), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=disk.install,  # noqa: PLW1509 (system calls only)
        )
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        disk.stall()
        child.stdin.write(b"\n")
        child.stdin.flush()
        while disk.stopped_calls == 0:
            assert child.poll() is None, "it was not held"
            time.sleep(0.005)
        assert sorted(tmp_path.iterdir()) == before
        disk.mend()
        assert child.wait() == 0
    assert disk.stopped_calls == 1
    assert sorted(tmp_path.iterdir()) != before


def test_a_stalled_disk_holds_no_frame_up_and_the_episode_is_committed_when_it_goes_on(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    with HeldDisk(dataset) as disk:
        recording = Recording(dataset, disk)
        assert recording.said() == "ready"
        recording.go()
        assert recording.said() == "begun"
        disk.stall()
        recording.go()
        assert recording.said() == "added"  # every frame was taken while nothing could be written
        assert disk.stopped_calls > 0
        recording.go()
        assert len(Dataset(dataset).episodes) == 0
        disk.mend()
        assert recording.said() == "kept True"
        for _ in range(6):
            recording.go()
            recording.said()
        assert recording.child.wait() == 0
    assert [episode.length for episode in Dataset(dataset).episodes] == [FRAMES, FRAMES]


def test_a_disk_that_fills_up_ends_the_take_which_comes_back_with_the_room(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    with HeldDisk(dataset) as disk:
        recording = Recording(dataset, disk)
        recording.said()
        recording.go()
        assert recording.said() == "begun"
        disk.fill()
        recording.go()
        assert recording.said() == "added"
        recording.go()
        assert "kept False" in (said := recording.said())
        assert "No space left on device" in said
        assert len(Dataset(dataset).episodes) == 0
        disk.mend()
        recording.go()
        assert recording.said() == "ready again"
        for _ in range(5):
            recording.go()
            recording.said()
        assert recording.child.wait() == 0
    assert Dataset(dataset).episodes[-1].length == FRAMES
