"""What becomes of takes: kept, dropped, cut, marked, taken back, and what a full disk does to them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from aloha_runtime import config
from aloha_runtime.control.take import Ending, Outcome
from aloha_runtime.data import Dataset, edit, ending, files, reports, session
from aloha_runtime.data.check import check
from aloha_runtime.data.recorded import create
from aloha_runtime.data.session import Session
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.errors import DatasetError

NO_FLAGS = {"flags": [], "seconds": 1.0, "rate_hz": 50.0, "repeated": {}, "age_ms": {}, "clipped_share": 0.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dataset"
    with DatasetWriter.create(path, vectors={"action": ["x"]}, cameras={"cam": (16, 16)}):
        return path


def record(opened: Session, frames: int) -> None:
    opened.begin()
    for index in range(frames):
        image = np.full((16, 16, 3), index, np.uint8)
        assert opened.add({"action": np.array([float(index)]), "observation.images.cam": image})


def report(first: int, frames: int) -> dict:
    return {"first": first, "frames": frames, "camera_skew_ms": {"p99": 0.0}, **NO_FLAGS}


def test_a_take_is_kept_whole_cut_or_not_at_all(path: Path) -> None:
    opened = Session(path, "wave", keep_all=True)
    record(opened, 40)
    said = opened.end(Ending(True, "two squeezes", Outcome.SUCCESS, drop=15), report)
    assert (said.kept, said.flagged) == (True, False)
    assert said.text.startswith("episode 0 (two squeezes): 1.0 s at 50.0 Hz")
    record(opened, 40)
    assert not opened.end(Ending(False, "three squeezes"), report).kept
    record(opened, 10)
    assert not opened.end(Ending(True, "lost", drop=10), report).kept, "nothing of it is left"
    record(opened, 12)
    opened.end(Ending(True, "asked"), report)
    dataset = Dataset(path)
    assert [episode.length for episode in dataset.episodes] == [25, 12]
    assert reports.read(path, 0)["outcome"] == "success"
    opened.writer.close()


def test_continuous_recording_keeps_the_last_seconds_alone_and_only_when_asked(path: Path) -> None:
    opened = Session(path, "wave", keep_all=False)
    record(opened, 75)
    assert not opened.end(Ending(True, "10 minutes are over"), report).kept
    record(opened, 75)
    assert opened.end(Ending(True, "the last second", last=50), report).kept
    actions = Dataset(path).vectors("action").ravel()
    assert actions[-1] == 74
    assert 50 <= len(actions) < 60, "from the key frame before"
    assert actions[0] % 10 == 0
    opened.writer.close()


def test_the_last_episode_is_marked_and_taken_back(path: Path) -> None:
    opened = Session(path, "wave", keep_all=True)
    with pytest.raises(DatasetError, match="no episode to mark"):
        opened.mark(Outcome.SUCCESS)
    record(opened, 5)
    opened.end(Ending(True, "asked"), report)
    assert opened.mark(Outcome.FAILURE) == "episode 0: failure"
    assert reports.read(path, 0)["outcome"] == "failure"
    assert reports.read(path, 0)["ended"] == "asked"
    assert opened.undo() == "episode 0 is gone"
    assert opened.episodes == 0
    opened.writer.close()


def ends(path: Path) -> list[tuple[bool, float, bool, float]]:
    """First and last frame of each episode: done before the end, reward, success and done at it."""
    dataset = Dataset(path)
    done, success, reward = (dataset.column(key) for key in (ending.DONE, ending.SUCCESS, ending.REWARD))
    found = []
    for episode in dataset.episodes:
        last = episode.to_index - 1
        assert not success[episode.from_index : last].any()
        found.append((done[episode.from_index : last].any(), reward[last], success[last], done[last]))
    return found


def test_the_end_of_an_episode_is_in_the_columns_that_lerobot_reads(tmp_path: Path) -> None:
    path = tmp_path / "dataset"
    DatasetWriter.create(path, vectors={"action": ["x"]}, scalars=ending.COLUMNS).close()
    opened = Session(path, "wave", keep_all=True)
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.UNKNOWN):
        opened.begin()
        for index in range(6):
            assert opened.add({"action": np.array([float(index)]), **ending.UNKNOWN})
        opened.end(Ending(True, "asked", outcome, drop=2), report)
    assert ends(path) == [(False, 1, True, True), (False, 0, False, True), (False, 0, False, True)]
    assert opened.mark(Outcome.SUCCESS) == "episode 2: success"
    assert ends(path)[2] == (False, 1, True, True)
    assert opened.mark(Outcome.FAILURE) == "episode 2: failure"
    assert ends(path)[2] == (False, 0, False, True)
    assert [str(finding) for finding in check(path, decode=False)] == []
    kept = reports.path(path, 2)
    kept.write_bytes(kept.read_bytes().replace(b"failure", b"success"))  # what a kill in the middle of a mark leaves
    opened.writer.close()
    DatasetWriter.open(path).close()
    assert ends(path)[2] == (False, 1, True, True)
    assert [str(finding) for finding in check(path, decode=False)] == []
    edit.compact(path)
    opened = Session(path, "wave", keep_all=True)
    opened.mark(Outcome.FAILURE)
    assert [each[2] for each in ends(path)] == [True, False, False], "episodes that share a file"
    assert [str(finding) for finding in check(path, decode=False)] == []
    opened.begin()
    opened.add({"action": np.array([0.0]), **ending.UNKNOWN})
    opened.writer._failed = "killed"
    opened.writer.close()
    DatasetWriter.open(path).close()
    assert ends(path)[3] == (False, 0, False, True), "an episode that was found open has an end, too"


def test_a_full_disk_is_trouble_until_there_is_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session(path, "wave", keep_all=True)
    record(opened, 30)

    def full(aside: Path, final: Path) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(files, "publish", full)
        said = opened.end(Ending(True, "asked"), report)
        assert not said.kept
        assert said.text.startswith("asked; not saved yet: ")
        assert "No space left" in said.text
        assert "No space left" in opened.ready()
    assert opened.ready() == ""
    assert opened.episodes == 1, "the take that could not be saved has come back"
    with monkeypatch.context() as patched:
        few = session.LEAST_FREE_BYTES - 1
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(few, 0, few))
        assert "has 255 MB left, 256 are needed" in opened.ready()
        assert opened.disk_is_low
    assert opened.ready() == ""
    opened.writer.close()


def test_a_frame_that_cannot_be_written_is_said_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder ends the take by this answer."""
    opened = Session(path, "wave", keep_all=True)
    record(opened, 3)

    def full(_: object) -> None:
        raise DatasetError("writing failed (No space left on device)")

    monkeypatch.setattr(opened.writer, "add_frame", full)
    assert opened.add({}) is False
    assert "No space left" in opened.trouble
    opened.writer.close()


def test_what_the_reserve_has_room_for_is_saved_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while a take ends: its encoder fails, and with the reserve given up the rest is saved."""
    opened = Session(path, "wave", keep_all=True)
    record(opened, 30)
    failing = opened.writer._episode
    assert failing is not None
    monkeypatch.setattr(failing, "finish", lambda *_: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    said = opened.end(Ending(True, "asked"), report)
    assert (said.kept, said.flagged) == (True, True)
    assert "episode 0 (asked), 30 frames of it; FLAGGED" in said.text
    assert Dataset(path).episodes[0].length == 30
    opened.writer.close()


def test_a_dataset_for_a_rig_has_a_feature_for_all_that_is_recorded(tmp_path: Path) -> None:
    create(tmp_path / "rig", config.load("aloha2"))
    info = Dataset(tmp_path / "rig").info
    assert list(info.cameras) == ["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"]
    assert info.vectors["flags"] == 4 + 1 + 1
    assert {key: info.features[key].dtype for key in ("intervention", *ending.COLUMNS)} == {
        "intervention": "bool",
        "next.reward": "float32",
        "next.success": "bool",
        "next.done": "bool",
    }
    assert info.vectors["frame_age_ms"] == 4 + 1
