"""What goes into a dataset comes out of it."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime import robot
from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.errors import DatasetError

STEP = 7
"""Difference in brightness from one test image to the next; encoding errors of flat images stay below 3."""


def flat_image(height, width, index):
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (40 + STEP * index % 160, 200 - STEP * index % 160, 90)
    return image


@st.composite
def contents(draw):
    cameras = {
        f"cam_{number}": (2 * draw(st.integers(8, 30)), 2 * draw(st.integers(8, 30)))
        for number in range(draw(st.integers(0, 2)))
    }
    sizes = {key: draw(st.integers(1, 15)) for key in ("observation.state", "observation.velocity", "action")}
    episodes = draw(
        st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["lift", "insert"])), min_size=1, max_size=3)
    )
    return cameras, sizes, episodes, draw(st.sampled_from([15, 30, 50, 60])), draw(st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=25)
@given(contents())
def test_round_trip(content):
    cameras, sizes, episodes, fps, seed = content
    rng = np.random.default_rng(seed)
    written = {key: [] for key in sizes}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "dataset")
        vectors = {key: [f"n{number}" for number in range(size)] for key, size in sizes.items()}
        with DatasetWriter.create(path, fps=fps, cameras=cameras, vectors=vectors) as writer:
            for length, task in episodes:
                for index in range(length):
                    frame = {key: rng.normal(size=size).astype(np.float32) for key, size in sizes.items()}
                    images = {f"observation.images.{c}": flat_image(*size, index) for c, size in cameras.items()}
                    writer.add_frame(frame | images)
                    for key, vector in frame.items():
                        written[key].append(vector)
                writer.save_episode(task)

        dataset = Dataset(path)
        lengths = [length for length, _ in episodes]
        assert dataset.fps == fps
        assert dataset.cameras == cameras
        assert [episode.length for episode in dataset.episodes] == lengths
        assert [episode.tasks for episode in dataset.episodes] == [(task,) for _, task in episodes]
        assert [episode.to_index for episode in dataset.episodes] == list(np.cumsum(lengths))
        assert len(dataset) == sum(lengths)
        for key, vector_list in written.items():
            assert dataset.vectors(key).dtype == np.float32
            assert np.array_equal(dataset.vectors(key), np.stack(vector_list))
        task_texts = [dataset.tasks[index] for index in dataset.column("task_index")]
        assert task_texts == [task for length, task in episodes for _ in range(length)]
        for camera, size in cameras.items():
            for episode in dataset.episodes:
                expected = np.stack([flat_image(*size, index) for index in range(episode.length)])
                images = dataset.images(camera, episode.index)
                assert np.abs(images.astype(int) - expected).max() <= 3


def test_lerobot_sample(shared_sample):
    """The sample that LeRobot 0.6.1 wrote: vectors exactly, images to the accuracy of its AV1 (crf 30)."""
    dataset, raw = Dataset(shared_sample / "dataset"), np.load(shared_sample / "raw.npz")
    assert dataset.fps == 50
    assert dataset.tasks == ("transfer the cube",)
    assert [episode.length for episode in dataset.episodes] == [40, 25, 33]
    for key in ("observation.state", "observation.velocity", "observation.effort", "action"):
        assert dataset.features[key].names == list(robot.NAMES)
        expected = np.concatenate([raw[f"{episode}/{key}"] for episode in range(3)])
        assert np.array_equal(dataset.vectors(key), expected)
        assert np.allclose(dataset.stats[key]["mean"], expected.mean(axis=0), atol=1e-6)
    for camera in ("cam_high", "cam_left_wrist"):
        for episode in range(3):
            colours = raw[f"{episode}/observation.images.{camera}/mean"]
            found = dataset.images(camera, episode).mean(axis=(1, 2))
            assert np.abs(found - colours).max() < 2


def test_frames_in_any_order_equal_frames_in_order(shared_sample):
    dataset = Dataset(shared_sample / "dataset")
    in_order = np.concatenate([dataset.images("cam_high", episode) for episode in range(3)])
    for index in np.random.default_rng(0).permutation(len(dataset)):
        assert np.array_equal(dataset.frame("cam_high", int(index)), in_order[index])


def test_append(writer, dataset_path):
    def add(length, first):
        for index in range(length):
            state = np.full(3, first + index, np.float64)
            image = flat_image(32, 48, index)
            writer.add_frame({"observation.state": state, "action": state[:1], "observation.images.cam_high": image})

    add(4, 0)
    assert writer.save_episode("one") == 0
    writer.close()
    writer = DatasetWriter.open(dataset_path)
    add(3, 100)
    writer.discard_episode()
    add(2, 4)
    assert writer.save_episode("two") == 1
    add(2, 6)
    assert writer.save_episode("one") == 2
    writer.close()

    dataset = Dataset(dataset_path)
    assert np.array_equal(dataset.vectors("action")[:, 0], np.arange(8))
    assert dataset.tasks == ("one", "two")
    assert list(dataset.column("task_index")) == [0] * 4 + [1] * 2 + [0] * 2
    assert dataset.info.splits == {"train": "0:3"}
    assert np.abs(dataset.images("cam_high", 2)[1].astype(int) - flat_image(32, 48, 1)).max() <= 3
    assert not (dataset_path / ".writing").exists()


def test_append_to_what_lerobot_wrote(shared_sample, dataset_path):
    shutil.copytree(shared_sample / "dataset", dataset_path)
    before = Dataset(dataset_path).vectors("action")
    frame = {key: np.ones(14) for key in Dataset(dataset_path).info.vectors}
    images = {f"observation.images.{c}": flat_image(96, 128, 0) for c in ("cam_high", "cam_left_wrist")}
    with DatasetWriter.open(dataset_path) as writer:
        writer.add_frame(frame | images)
        writer.save_episode("transfer the cube")
    dataset = Dataset(dataset_path)
    assert [episode.length for episode in dataset.episodes] == [40, 25, 33, 1]
    assert np.array_equal(dataset.vectors("action"), np.concatenate([before, np.ones((1, 14), np.float32)]))
    assert np.abs(dataset.frame("cam_high", 98).astype(int) - flat_image(96, 128, 0)).max() <= 12  # AV1 at crf 30
    assert dataset.stats["action"]["count"] == 99


def test_frames_must_fit(writer):
    good = {
        "observation.state": np.zeros(3),
        "action": np.zeros(1),
        "observation.images.cam_high": np.zeros((32, 48, 3), np.uint8),
    }
    wrong = {
        "lacks action": {key: value for key, value in good.items() if key != "action"},
        "no feature reward": good | {"reward": np.zeros(1)},
        "shape (4,)": good | {"observation.state": np.zeros(4)},
        "int64": good | {"observation.state": np.zeros(3, int)},
        "y is nan": good | {"observation.state": np.array([0, np.nan, 0])},
        "a is 1e+300": good | {"action": np.array([1e300])},
        "shape (48, 32, 3)": good | {"observation.images.cam_high": np.zeros((48, 32, 3), np.uint8)},
        "float32 of shape": good | {"observation.images.cam_high": np.zeros((32, 48, 3), np.float32)},
    }
    for message, frame in wrong.items():
        with pytest.raises(DatasetError, match=message.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")):
            writer.add_frame(frame)
    assert writer.episode_frames == 0
    with pytest.raises(DatasetError, match="no frame to save"):
        writer.save_episode("x")
    writer.add_frame(good)
    with pytest.raises(DatasetError, match="task is empty"):
        writer.save_episode("  ")
    assert writer.save_episode("x") == 0


def test_caller_may_reuse_its_arrays(writer, dataset_path):
    state, image = np.zeros(3), np.zeros((32, 48, 3), np.uint8)
    for index in range(20):
        state[:], image[:] = index, 10 * index
        writer.add_frame({"observation.state": state, "action": state[:1], "observation.images.cam_high": image})
    writer.save_episode("x")
    dataset = Dataset(dataset_path)
    assert np.array_equal(dataset.vectors("action")[:, 0], np.arange(20))
    assert np.abs(dataset.images("cam_high", 0).mean(axis=(1, 2, 3)) - 10 * np.arange(20)).max() < 2


def test_colours_survive(writer, dataset_path):
    """Saturated colours come back in the right channel."""
    colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220)]
    for colour in colours:
        image = np.empty((32, 48, 3), np.uint8)
        image[:] = colour
        frame = {"observation.state": np.zeros(3), "action": np.zeros(1), "observation.images.cam_high": image}
        writer.add_frame(frame)
    writer.save_episode("x")
    found = Dataset(dataset_path).images("cam_high", 0).mean(axis=(1, 2))
    assert np.abs(found - colours).max() < 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cameras": {"cam": (31, 48)}}, "even"),
        ({"codec": "mjpeg"}, "h264, av1"),
        ({"vectors": {}}, "at least one vector"),
        ({"vectors": {"index": ["a"]}}, "index"),
    ],
)
def test_create_refuses(dataset_path, arguments, message):
    with pytest.raises(DatasetError, match=message):
        DatasetWriter.create(dataset_path, **({"vectors": {"action": ["a"]}} | arguments))
    assert not dataset_path.exists()
