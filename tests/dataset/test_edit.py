"""Edits of a dataset: what they keep, what they refuse, and that nothing else can happen to it."""

import ctypes
import errno
import fcntl
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.data import Dataset, DatasetWriter, edit, exchange, files, reports, split_merge
from aloha_runtime.data.check import check
from aloha_runtime.data.episode_store import pretty_json
from aloha_runtime.data.rows import numbered_files
from aloha_runtime.data.statistics import vector_stats
from aloha_runtime.errors import DatasetError

LENGTHS = (24, 30, 17, 21)
TASKS = ("wipe", "wave", "wipe", "stack")
VECTORS = {"observation.state": ["x", "y"], "action": ["x", "y"]}


def numbers(episode: int, frame: int) -> np.ndarray:
    """Stands still for its first and last five frames."""
    moved = min(max(frame - 5, 0), LENGTHS[episode] - 10)
    return np.array([episode, moved / 10], np.float32)


def write(path: Path, episodes=range(4), **options) -> Path:
    with DatasetWriter.create(path, vectors=VECTORS, cameras={"cam": (16, 16)}, **options) as writer:
        for episode in episodes:
            for frame in range(LENGTHS[episode]):
                row = numbers(episode, frame)
                image = np.full((16, 16, 3), 40 * episode + frame, np.uint8)
                writer.add_frame({"observation.state": row, "action": row, "observation.images.cam": image})
            writer.save_episode(TASKS[episode], report={"outcome": "success", "was": episode})
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "dataset")


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "dataset")


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def expect(path: Path, pieces: list[tuple[int, int, int]]) -> None:
    """The dataset is sound and holds these (episode, first frame, frames) of `write`, pictures included."""
    dataset = Dataset(path)
    assert check(path, decode=True) == []
    state = dataset.vectors("observation.state")
    assert np.array_equal(state, [numbers(e, f) for e, first, count in pieces for f in range(first, first + count)])
    for key in dataset.info.vectors:
        for name, right in vector_stats(dataset.vectors(key)).items():
            if not name.startswith("q"):  # those of a dataset are LeRobot's mean of the episodes'
                assert np.allclose(dataset.stats[key][name], right, atol=1e-6), (key, name)
    for episode, (was, first, count) in zip(dataset.episodes, pieces, strict=True):
        assert reports.read(path, episode.index)["was"] == was
        shown = dataset.images("cam", episode.index).mean(axis=(1, 2, 3))
        assert np.abs(shown - (40 * was + first + np.arange(count))).max() < 5


def whole(*episodes: int) -> list[tuple[int, int, int]]:
    return [(episode, 0, LENGTHS[episode]) for episode in episodes]


@settings(deadline=None, max_examples=6, derandomize=True)
@given(st.sets(st.integers(0, 3), min_size=1, max_size=3), st.booleans())
def test_delete_leaves_the_others_and_undo_brings_all_back(made, tmp_path_factory, gone, compacted):
    path = shutil.copytree(made, tmp_path_factory.mktemp("delete") / "dataset")
    if compacted:
        edit.compact(path)
        expect(path, whole(0, 1, 2, 3))
    before = content(path)
    edit.delete(path, [" ".join(map(str, gone))])
    kept = [episode for episode in range(4) if episode not in gone]
    expect(path, whole(*kept))
    assert Dataset(path).tasks == tuple(dict.fromkeys(TASKS[episode] for episode in kept))
    after = content(path)
    edit.undo(path)
    assert content(path) == before
    edit.redo(path)
    assert content(path) == after


@settings(deadline=None, max_examples=5, derandomize=True)
@given(st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_split_and_merge_lose_nothing(made, tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("split")
    split_merge.split(made, folder / "a", folder / "b", [",".join(map(str, chosen))])
    rest = [episode for episode in range(4) if episode not in chosen]
    expect(folder / "a", whole(*sorted(chosen)))
    expect(folder / "b", whole(*rest))
    split_merge.merge([folder / "a", folder / "b"], folder / "both")
    expect(folder / "both", whole(*sorted(chosen), *rest))
    both, made_stats = Dataset(folder / "both").stats, Dataset(made).stats
    for key in ("observation.state", "observation.images.cam"):
        for name in ("min", "max", "mean", "std", "count"):
            assert np.allclose(both[key][name], made_stats[key][name], atol=1e-6)


@settings(deadline=None, max_examples=4, derandomize=True)
@given(st.integers(0, 29), st.integers(1, 30))
def test_trim_keeps_what_was_asked_for(made, tmp_path_factory, first, last):
    path = shutil.copytree(made, tmp_path_factory.mktemp("trim") / "dataset")
    if first >= last:
        with pytest.raises(DatasetError, match="Nothing was changed"):
            edit.trim(path, 1, first / 50, last / 50, still=False)
        expect(path, whole(0, 1, 2, 3))
        return
    edit.trim(path, 1, first / 50, last / 50, still=False)
    expect(path, [*whole(0), (1, first, last - first), *whole(2, 3)])


def test_still_time_is_cut_off(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "MARGIN_FRAMES", 2)
    edit.trim(dataset, 1, None, None, still=True)
    expect(dataset, [*whole(0), (1, 4, 30 - 4 - 3), *whole(2, 3)])


def test_relabel(dataset: Path) -> None:
    edit.relabel(dataset, ["1", "3"], "fold", "failure")
    expect(dataset, whole(0, 1, 2, 3))
    assert [episode.tasks for episode in Dataset(dataset).episodes] == [("wipe",), ("fold",), ("wipe",), ("fold",)]
    assert [reports.read(dataset, index)["outcome"] for index in range(4)] == ["success", "failure"] * 2


def test_statistics_are_mended_and_videos_encoded_again(dataset: Path) -> None:
    (dataset / "meta/stats.json").write_bytes(pretty_json({}))
    assert {"meta/stats.json"} == {finding.where for finding in check(dataset)}
    edit.restat(dataset)
    expect(dataset, whole(0, 1, 2, 3))
    edit.reencode(dataset, "lossless")
    expect(dataset, whole(0, 1, 2, 3))
    assert Dataset(dataset).features["observation.images.cam"].info["video.pix_fmt"] == "gbrp"


def test_compact_joins_files_and_a_recording_goes_on(dataset: Path) -> None:
    assert len(numbered_files(dataset)) == 12
    edit.compact(dataset)
    assert len(numbered_files(dataset)) == 3
    with DatasetWriter.open(dataset) as writer:
        for frame in range(LENGTHS[1]):
            row, image = numbers(1, frame), np.full((16, 16, 3), 40 + frame, np.uint8)
            writer.add_frame({"observation.state": row, "action": row, "observation.images.cam": image})
        writer.save_episode("wave", report={"was": 1})
        writer.drop_last_episode()
        with pytest.raises(DatasetError, match="aloha dataset delete"):
            writer.drop_last_episode()
    expect(dataset, whole(0, 1, 2, 3))


def test_a_share_and_a_number_name_the_first_episodes(made: Path, tmp_path: Path) -> None:
    assert split_merge.first_episodes(made, 1, None) == split_merge.first_episodes(made, None, 0.25) == ["0-0"]
    for at, share in ((0, None), (4, None), (None, 0.1), (None, 1.0)):
        with pytest.raises(DatasetError, match="split it at 1 to 3"):
            split_merge.first_episodes(made, at, share)
    with pytest.raises(DatasetError, match="Name two folders"):
        split_merge.split(made, tmp_path / "a", tmp_path / "a", ["0"])
    write(tmp_path / "there", [0])
    with pytest.raises(DatasetError, match="already exists"):
        split_merge.split(made, tmp_path / "a", tmp_path / "there", ["0"])
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("words", [["4"], ["0-9"], ["-1"], ["x"], [], ["0-3"]])
def test_a_bad_index_changes_nothing(dataset: Path, words: list[str]) -> None:
    before = content(dataset.parent)
    with pytest.raises(DatasetError):
        edit.delete(dataset, words)
    assert content(dataset.parent) == before


def test_cameras_in_another_order_fit(tmp_path: Path) -> None:
    """Each is a feature by name, whatever comes first."""
    for name, order in (("a", ("left", "right")), ("b", ("right", "left"))):
        cameras = dict.fromkeys(order, (16, 16))
        with DatasetWriter.create(tmp_path / name, vectors={"action": ["x"]}, cameras=cameras) as writer:
            for _ in range(3):
                images = {"left": np.full((16, 16, 3), 20, np.uint8), "right": np.full((16, 16, 3), 200, np.uint8)}
                row = {f"observation.images.{camera}": image for camera, image in images.items()}
                writer.add_frame({"action": np.zeros(1, np.float32), **row})
            writer.save_episode("wave")
    split_merge.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    both = Dataset(tmp_path / "both")
    assert [round(both.images("right", episode).mean() / 100) for episode in (0, 1)] == [2, 2]


def test_what_does_not_fit_together_is_named(dataset: Path, tmp_path: Path) -> None:
    vectors = VECTORS | {"extra": ["a"]}
    with DatasetWriter.create(tmp_path / "other", vectors=vectors, cameras={"cam": (16, 32)}) as writer:
        zeros = {key: np.zeros(len(names)) for key, names in vectors.items()}
        writer.add_frame({**zeros, "observation.images.cam": np.zeros((16, 32, 3), np.uint8)})
        writer.save_episode("wave")
    with pytest.raises(DatasetError) as error:
        split_merge.merge([dataset, tmp_path / "other"], tmp_path / "both")
    assert "extra is new" in str(error.value)
    assert "observation.images.cam.size was (16, 16, 3), is (16, 32, 3)" in str(error.value)
    assert not (tmp_path / "both").exists()


def test_a_dataset_that_is_being_written_is_not_edited(dataset: Path) -> None:
    with DatasetWriter.open(dataset), pytest.raises(DatasetError, match="being written by another process"):
        edit.delete(dataset, ["0"])
    expect(dataset, whole(0, 1, 2, 3))
    with pytest.raises(DatasetError, match="no edit to undo"):
        edit.undo(dataset)


def test_a_full_disk_changes_nothing(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, publish, left = content(dataset.parent), files.publish, iter(range(9))

    def full(aside: Path, final: Path) -> None:
        if next(left, None) is None:
            raise OSError(28, os.strerror(28))
        publish(aside, final)

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(DatasetError, match=r"No space left on device. Nothing was changed"):
        edit.delete(dataset, ["0"])
    assert content(dataset.parent) == before


def test_what_else_lies_in_the_folder_goes_along(dataset: Path) -> None:
    (dataset / "notes").mkdir()
    (dataset / "notes/day.txt").write_text("rain")
    (dataset / "README.md").write_text("cups")
    for change in (lambda: edit.delete(dataset, ["0"]), lambda: edit.compact(dataset)):
        change()
        assert ((dataset / "notes/day.txt").read_text(), (dataset / "README.md").read_text()) == ("rain", "cups")


def test_what_cannot_be_kept_is_said(dataset: Path, tmp_path: Path) -> None:
    info = msgspec.json.decode((dataset / "meta/info.json").read_bytes())
    (dataset / "meta/info.json").write_bytes(pretty_json({**info, "splits": {"train": "0:3", "val": "3:4"}}))
    assert edit.trim(dataset, 1, 0.06, None, still=False) == (
        "episode 1: frames 3 to 29 of 30 are left; 1 video had to be encoded again, because the cut is not at a key"
        " frame; the splits val are not kept"
    )
    edit.compact(dataset)
    assert edit.delete(dataset, ["3"]) == (
        "1 episode deleted, 3 left; every episode has files of its own now, `aloha dataset compact` joins them"
    )


def test_a_writer_that_an_edit_overtakes_is_refused(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has opened the folder that an edit exchanges before it holds the lock, and would write what nobody reads."""
    lock = fcntl.flock

    def overtaken(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        edit.delete(dataset, ["0"])
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with pytest.raises(DatasetError, match="being written by another process"):
        DatasetWriter.open(dataset)
    DatasetWriter.open(dataset).close()


WATCHED = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
"""Events of Python's audit hooks that an edit passes on its way; the instants to be killed at."""


def killed_at(path: Path, instant: int) -> int:
    """Delete episode 0 in a child that kills itself when it passes `instant` events; how many it passed."""
    passed, child = path.with_name("passed"), os.fork()
    if child:
        os.waitpid(child, 0)
        return len(passed.read_bytes())
    log, inside = os.open(passed, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), str(path.parent)

    def watch(event: str, words: tuple) -> None:
        if event in WATCHED and str(words[0]).startswith(inside):
            if os.lseek(log, 0, os.SEEK_CUR) == instant:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(log, b".")

    sys.addaudithook(watch)
    try:
        edit.delete(path, ["0"])
    finally:
        os._exit(0)


def cannot_exchange(*_: object) -> int:
    """What renameat2 says on a file system that renames and does not exchange."""
    ctypes.set_errno(errno.EINVAL)
    return -1


@pytest.mark.parametrize("exchanges", [True, False])
def test_killed_at_any_instant_it_reads_as_before_or_after(made, tmp_path, monkeypatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(exchange, "_LIBC", SimpleNamespace(renameat2=cannot_exchange))
    path = shutil.copytree(made, tmp_path / "first/dataset")
    edit.relabel(path, ["0"], "wipe", None)  # so that there is something to be undone already
    last = killed_at(shutil.copytree(path.parent, tmp_path / "whole") / "dataset", -1)
    few = random.Random(4).sample(range(last - 12), 6 if exchanges else 0)
    seen = []
    for instant in [*sorted(few), *range(last - 12, last)]:
        at = shutil.copytree(path.parent, tmp_path / str(instant), copy_function=os.link) / "dataset"
        assert killed_at(at, instant) == instant
        if exchange.settle(at):
            assert not exchanges
        assert check(at) == []
        kept = [reports.read(at, index)["was"] for index in range(len(Dataset(at).episodes))]
        assert kept in ([0, 1, 2, 3], [1, 2, 3])
        seen.append(len(kept))
        edit.delete(at, ["0"])
        edit.undo(at)
        assert len(Dataset(at).episodes) == len(kept)
    assert seen == sorted(seen, reverse=True), "there is one instant at which the edit has taken place"
    assert set(seen) == {3, 4}
