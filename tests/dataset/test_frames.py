"""The cache of decoded frames: made once, whole or not there, shared, and done without when disk is short."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aloha_runtime.data import Dataset, DatasetWriter, frames
from aloha_runtime.data.frames import DecodedFrames, open_frames
from aloha_runtime.errors import DatasetError

CAMERAS = ("cam_high", "cam_low")
HEIGHT, WIDTH, EPISODES, LENGTH = 32, 48, 3, 20
COUNT = EPISODES * LENGTH

MAKE = """
import os, signal, sys
from pathlib import Path
from aloha_runtime.data import Dataset, frames

class Dying(Dataset):
    def frame(self, camera, index):
        if index == int(sys.argv[3]) and camera == "cam_low":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().frame(camera, index)

frames.open_frames(Dying(sys.argv[1]), ["cam_high", "cam_low"], Path(sys.argv[2]), print)
"""
"""A process that makes the cache, or kills itself at a given frame of the second camera."""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "moving"
    write(path)
    return path


def write(path, episodes=EPISODES):
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    with DatasetWriter.create(path, vectors={"action": ["a"]}, cameras=dict.fromkeys(CAMERAS, (HEIGHT, WIDTH))) as made:
        for episode in range(episodes):
            for step in range(LENGTH):
                image = np.stack([4 * rows + 5 * step, 5 * columns, 0 * rows + 60 * episode], -1).astype(np.uint8)
                images = {"observation.images.cam_high": image, "observation.images.cam_low": image[::-1].copy()}
                made.add_frame({"action": np.array([float(step)]), **images})
            made.save_episode("x")


def expected(path, camera):
    dataset = Dataset(path)
    return np.concatenate([dataset.images(camera, episode) for episode in range(len(dataset.episodes))])


def home(cache):
    (found,) = cache.iterdir()
    return found


def test_cached_frames_are_those_of_the_video(path, tmp_path):
    lines = []
    found = open_frames(Dataset(path), CAMERAS, tmp_path, lines.append)
    assert len(lines) == 2
    for camera in CAMERAS:
        assert found[camera].shape == (COUNT, HEIGHT, WIDTH, 3)
        assert np.array_equal(found[camera], expected(path, camera))
    assert sorted(file.name for file in home(tmp_path).iterdir()) == ["cam_high.uint8", "cam_low.uint8", "dataset.txt"]
    again = open_frames(Dataset(path), CAMERAS[:1], tmp_path, lines.append)
    assert list(again) == ["cam_high"]
    assert len(lines) == 2


def test_a_killed_build_looks_like_none_and_is_continued(path, tmp_path):
    killed = subprocess.run([sys.executable, "-c", MAKE, path, tmp_path, "30"], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    names = {file.name for file in home(tmp_path).iterdir()}
    assert "cam_high.uint8" in names
    assert "cam_low.uint8" not in names
    part = home(tmp_path) / "cam_low.uint8.part"
    os.truncate(part, 7 * HEIGHT * WIDTH * 3 + 100)  # as if a frame had been written in half
    lines = []
    found = open_frames(Dataset(path), CAMERAS, tmp_path, lines.append)
    assert len(lines) == 1
    assert "of which 7 are there" in lines[0]
    assert np.array_equal(found["cam_low"], expected(path, "cam_low"))
    assert not part.exists()


def test_processes_make_it_once(path, tmp_path):
    arguments = [sys.executable, "-c", MAKE, path, tmp_path, "-1"]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert "".join(said).count("decoding") == len(CAMERAS)
    assert np.array_equal(open_frames(Dataset(path), CAMERAS, tmp_path, print)["cam_low"], expected(path, "cam_low"))


def test_another_process_that_makes_it_is_waited_for(path, tmp_path):
    open_frames(Dataset(path), CAMERAS[:1], tmp_path, print)
    lines = []
    with ThreadPoolExecutor() as pool, frames._locked(home(tmp_path), print):
        waiting = pool.submit(open_frames, Dataset(path), CAMERAS, tmp_path, lines.append)
        while not lines:
            assert not waiting.done()
        assert "another process is making" in lines[0]
        ready = open_frames(Dataset(path), CAMERAS[:1], tmp_path, print)  # what is whole needs no lock
        assert len(ready["cam_high"]) == COUNT
    assert np.array_equal(waiting.result()["cam_low"], expected(path, "cam_low"))


@pytest.mark.parametrize("why", ["limit", "disk"])
def test_short_of_disk_the_video_is_decoded_each_time(path, tmp_path, monkeypatch, why):
    """The same pixels, in any order, from several threads; and what is missing is said in GB."""
    if why == "disk":
        monkeypatch.setattr(frames, "KEEP_FREE_BYTES", 10**18)
    lines = []
    limit = {"limit": 1e-4, "disk": None}[why]
    found = open_frames(Dataset(path), CAMERAS, tmp_path, lines.append, limit)
    assert all(isinstance(camera, DecodedFrames) for camera in found.values())
    assert len(lines) == 1
    assert {"limit": "take 0.000553 GB, allowed are 0.0001 GB", "disk": "GB to spare, its disk has"}[why] in lines[0]
    assert not list(tmp_path.rglob("*.uint8*"))
    truth = {camera: expected(path, camera) for camera in CAMERAS}
    random = np.random.default_rng(0)
    picks = [(camera, random.integers(0, COUNT, 5)) for camera in CAMERAS for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pick: found[pick[0]][pick[1]], picks))
    for (camera, indices), images in zip(picks, results, strict=True):
        assert np.array_equal(images, truth[camera][indices])
    assert np.array_equal(found["cam_high"][7], truth["cam_high"][7])


def test_an_older_version_of_a_dataset_is_removed_and_other_datasets_are_left(tmp_path):
    cache, growing, other = tmp_path / "cache", tmp_path / "a/growing", tmp_path / "b/growing"
    for path, episodes in ((growing, 1), (other, 2)):
        write(path, episodes)
        open_frames(Dataset(path), CAMERAS, cache, print)
    assert len(list(cache.iterdir())) == 2
    with DatasetWriter.open(growing) as made:
        images = {f"observation.images.{camera}": np.zeros((HEIGHT, WIDTH, 3), np.uint8) for camera in CAMERAS}
        made.add_frame({"action": np.zeros(1), **images})
        made.save_episode("x")
    found = open_frames(Dataset(growing), CAMERAS, cache, print)
    assert len(found["cam_high"]) == LENGTH + 1
    assert len(list(cache.iterdir())) == 2
    lines = []
    open_frames(Dataset(other), CAMERAS, cache, lines.append)
    assert not lines


def test_a_folder_that_cannot_be_written(path, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"frame cache .*file.*name another directory"):
        open_frames(Dataset(path), CAMERAS, tmp_path / "file", print)
