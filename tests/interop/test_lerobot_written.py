"""We read what LeRobot 0.6.1 recorded: several files, chunks and tasks, AV1, single images; and edit it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_lerobot_dataset import lerobot_python, psnr, read_with_lerobot  # noqa: F401 — a fixture

from aloha_runtime.data import Dataset, edit
from aloha_runtime.data.check import check

LENGTHS, TASKS = (12, 9, 20, 11, 8, 15, 10), ("lift", "insert", "lift", "wave", "insert", "lift", "wave")
"""As in `lerobot_write.py`."""


@pytest.fixture(scope="module")
def theirs(lerobot_python, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("theirs")
    script = Path(__file__).with_name("lerobot_write.py")
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [lerobot_python, script, folder], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def expect(path: Path, raw, episodes: list[int]) -> None:
    """Numbers to the bit, pictures within what AV1 loses, nothing for `check` to find but units made up here."""
    dataset = Dataset(path)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    taken = np.concatenate([np.arange(starts[index], starts[index + 1]) for index in episodes])
    for key in ("observation.state", "action"):
        assert np.array_equal(dataset.vectors(key), raw[key][taken]), key
    shown = np.concatenate([dataset.images("cam_high", index) for index in range(len(episodes))])
    assert psnr(shown, raw["observation.images.cam_high"][taken]) > 30
    assert [episode.tasks for episode in dataset.episodes] == [(TASKS[index],) for index in episodes]
    assert [str(finding) for finding in check(path, decode=True)] == []


def test_several_files_chunks_and_tasks(theirs: Path) -> None:
    path = theirs / "video"
    chunks = {episode.data_path.parent.name for episode in Dataset(path).episodes}
    assert (len({episode.data_path for episode in Dataset(path).episodes}), len(chunks)) == (7, 4)
    assert Dataset(path).features["observation.images.cam_high"].info["video.codec"] == "av1"
    expect(path, np.load(theirs / "raw.npz"), list(range(7)))


def test_our_edits_of_it_are_lerobots_datasets(theirs: Path, lerobot_python, tmp_path: Path) -> None:  # noqa: F811
    raw = np.load(theirs / "raw.npz")
    path = shutil.copytree(theirs / "video", tmp_path / "dataset")
    edit.delete(path, ["1", "4-5"])
    expect(path, raw, [0, 2, 3, 6])
    edit.compact(path)
    expect(path, raw, [0, 2, 3, 6])
    assert len({episode.videos["cam_high"].path for episode in Dataset(path).episodes}) == 4, "the dataset's own limit"
    seen = read_with_lerobot(lerobot_python, path, tmp_path)
    assert np.array_equal(seen["observation.state"], Dataset(path).vectors("observation.state"))
    assert list(seen["task"]) == ["lift"] * 32 + ["wave"] * 21


def test_single_images_are_read_and_carried_through_an_edit(theirs: Path, tmp_path: Path, lerobot_python: Path) -> None:  # noqa: F811
    path = shutil.copytree(theirs / "image", tmp_path / "image")
    before = Dataset(path)
    pictures = [before.frame("cam_high", index) for index in range(len(before))]
    assert pictures[0].dtype == np.uint8
    edit.trim(path, 0, 2 / before.fps, None, still=False)
    after = Dataset(path)
    assert len(after) == len(before) - 2
    assert all(np.array_equal(after.frame("cam_high", index), pictures[index + 2]) for index in range(len(after)))
    assert len(read_with_lerobot(lerobot_python, path, tmp_path)["action"]) == len(after)
