"""Samples against what went into LeRobot's own dataset, without LeRobot: `raw.npz` beside it holds every vector."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from aloha_runtime.act import LeRobotDataset
from aloha_runtime.data import Dataset
from aloha_runtime.errors import DatasetError

SAMPLE = Path(__file__).parents[1] / "data/lerobot_dataset_v3"
CHUNK = [i / 50 for i in range(100)]
DOCUMENTED = {
    "observation.images.cam_high": [0],
    "observation.images.cam_left_wrist": [0],
    "observation.state": [0],
    "action": CHUNK,
}


@pytest.fixture(scope="module")
def raw() -> dict[str, NDArray[Any]]:
    with np.load(SAMPLE / "raw.npz") as file:
        return dict(file)


@pytest.mark.parametrize(("episode", "step"), [(0, 0), (0, 5), (1, 0), (2, -1)])
def test_documented_recipe(raw: dict[str, NDArray[Any]], episode: int, step: int) -> None:
    """The states and actions that went in, the last action repeated and marked past the end of the episode."""
    dataset = LeRobotDataset(SAMPLE / "dataset", DOCUMENTED)
    actions, states = raw[f"{episode}/action"], raw[f"{episode}/observation.state"]
    step %= len(actions)
    start = sum(len(raw[f"{earlier}/action"]) for earlier in range(episode))
    item = dataset[start + step]
    steps = step + np.arange(100)
    np.testing.assert_array_equal(item["action"], actions[np.minimum(steps, len(actions) - 1)])
    np.testing.assert_array_equal(item["action_is_pad"], steps >= len(actions))
    np.testing.assert_array_equal(item["observation.state"], states[None, step])
    np.testing.assert_array_equal(item["observation.velocity"], raw[f"{episode}/observation.velocity"][step])
    counters = [int(item[key]) for key in ("index", "frame_index", "episode_index")]
    assert counters == [start + step, step, episode]
    assert float(item["timestamp"]) == pytest.approx(step / 50)
    assert item["task"] == Dataset(SAMPLE / "dataset").episodes[episode].tasks[0]
    image = item["observation.images.cam_high"]
    assert image.dtype == torch.float32
    assert image.shape == (3, 96, 128)  # one offset adds no time axis to a picture
    assert 0 <= image.min() < image.max() <= 1
    assert item["observation.images.cam_high_is_pad"].tolist() == [False]


def test_pictures_with_a_time_axis_stop_at_the_start_of_the_episode() -> None:
    key = "observation.images.cam_high"
    item = LeRobotDataset(SAMPLE / "dataset", {key: [-0.04, -0.02, 0.0]})[1]
    frames = torch.from_numpy(Dataset(SAMPLE / "dataset").images("cam_high", 0)).movedim(-1, 1) / 255
    torch.testing.assert_close(item[key], frames[[0, 0, 1]])
    assert item[f"{key}_is_pad"].tolist() == [True, False, False]


def test_some_episodes_only() -> None:
    whole = LeRobotDataset(SAMPLE / "dataset")
    part = LeRobotDataset(SAMPLE / "dataset", {"action": [0.0, 0.02]}, episodes=[2])
    assert len(part) == Dataset(SAMPLE / "dataset").episodes[2].length < len(whole) == 98
    assert {int(part[sample]["episode_index"]) for sample in (0, len(part) - 1)} == {2}
    assert part[-1]["action_is_pad"].tolist() == [False, True]
    with pytest.raises(DatasetError, match="episodes 0 to 2; 3 is outside"):
        LeRobotDataset(SAMPLE / "dataset", episodes=[0, 3])
    with pytest.raises(IndexError):
        whole[98]


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_same_samples(context: str, workers: int) -> None:
    """Video files that the parent has open do not disturb the workers, whichever way they start."""
    dataset = LeRobotDataset(SAMPLE / "dataset", DOCUMENTED)
    alone = [dataset[sample] for sample in range(0, 32, 2)]
    loader = DataLoader(
        torch.utils.data.Subset(dataset, range(0, 32, 2)),
        batch_size=4,
        num_workers=workers,
        multiprocessing_context=context,
    )
    for number, batch in enumerate(loader):
        assert batch["action"].shape == (4, 100, 14)
        for row in range(4):
            for key, value in alone[4 * number + row].items():
                same = batch[key][row] == value
                assert same if isinstance(value, str) else bool(same.all()), key


def test_frame_cache_gives_the_same_pictures(tmp_path: Path) -> None:
    direct = LeRobotDataset(SAMPLE / "dataset", DOCUMENTED)
    cached = LeRobotDataset(SAMPLE / "dataset", DOCUMENTED, frame_cache=tmp_path, image_transforms=lambda image: image)
    for sample in (3, 97, 40):
        for key in ("observation.images.cam_high", "observation.images.cam_left_wrist"):
            assert torch.equal(direct[sample][key], cached[sample][key])


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ({"action": list(range(100))}, r'99 s is 4950 frames. Write "action": \[i / 50 for i in range\(100\)\]'),
        ({"action": [-1, 0, 1]}, r"\[i / 50 for i in range\(-1, 2\)\]"),
        ({"action": [0, 10, 20]}, r"\[i / 50 for i in \(0, 10, 20\)\]"),
        ({"action": [0.0, 0.03]}, r"action: 0.03 s is no multiple of 0.02 s.*50 fps"),
        ({"action": [0.0202]}, r"0.0202 s"),
        ({"action": [float("nan")]}, r"nan s is no multiple"),
        ({"actions": [0.0]}, r"no feature 'actions'; it has: .*action"),
        ({"action": []}, r"no offsets"),
    ],
)
def test_refused_offsets(deltas: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset(SAMPLE / "dataset", deltas)


def test_offsets_within_the_tolerance_are_taken() -> None:
    item = LeRobotDataset(SAMPLE / "dataset", {"action": [0.0, 0.02009]})[0]
    assert item["action"].shape == (2, 14)
