"""Edits of a dataset: what they keep, what they refuse, and that nothing else can happen to it."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.data import Dataset, DatasetWriter, edit, files, reports
from aloha_runtime.data.check import check
from aloha_runtime.data.episode_store import pretty_json
from aloha_runtime.data.rows import numbered_files
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
    edit.undo(path)
    assert content(path) == after, "undo again brings the edit back"


@settings(deadline=None, max_examples=5, derandomize=True)
@given(st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_split_and_merge_lose_nothing(made, tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("split")
    edit.split(made, folder / "a", folder / "b", [",".join(map(str, chosen))])
    rest = [episode for episode in range(4) if episode not in chosen]
    expect(folder / "a", whole(*sorted(chosen)))
    expect(folder / "b", whole(*rest))
    edit.merge([folder / "a", folder / "b"], folder / "both")
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


def test_statistics_are_mended_and_videos_encoded_anew(dataset: Path) -> None:
    (dataset / "meta/stats.json").write_bytes(pretty_json({}))
    assert len(check(dataset)) == 2
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


@pytest.mark.parametrize("words", [["4"], ["0-9"], ["-1"], ["x"], [], ["0-3"]])
def test_a_bad_index_changes_nothing(dataset: Path, words: list[str]) -> None:
    before = content(dataset.parent)
    with pytest.raises(DatasetError):
        edit.delete(dataset, words)
    assert content(dataset.parent) == before


def test_what_does_not_fit_together_is_named(dataset: Path, tmp_path: Path) -> None:
    vectors = VECTORS | {"extra": ["a"]}
    with DatasetWriter.create(tmp_path / "other", vectors=vectors, cameras={"cam": (16, 32)}) as writer:
        zeros = {key: np.zeros(len(names)) for key, names in vectors.items()}
        writer.add_frame({**zeros, "observation.images.cam": np.zeros((16, 32, 3), np.uint8)})
        writer.save_episode("wave")
    with pytest.raises(DatasetError) as error:
        edit.merge([dataset, tmp_path / "other"], tmp_path / "both")
    assert "extra is new" in str(error.value)
    assert "observation.images.cam.shape was [16, 16, 3], is [16, 32, 3]" in str(error.value)
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
    with pytest.raises(OSError, match="No space left"):
        edit.delete(dataset, ["0"])
    assert content(dataset.parent) == before


def test_killed_at_any_instant_it_reads_as_before_or_after(made: Path, tmp_path: Path) -> None:
    chance = random.Random(4)
    for attempt in range(10):
        path = shutil.copytree(made, tmp_path / str(attempt))
        child = os.fork()
        if child == 0:
            edit.delete(path, ["0"])
            os._exit(0)
        time.sleep(chance.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert check(path) == []
        kept = [reports.read(path, index)["was"] for index in range(len(Dataset(path).episodes))]
        assert kept in ([0, 1, 2, 3], [1, 2, 3])
        edit.delete(path, ["0"])
        assert len(Dataset(path).episodes) == len(kept) - 1
