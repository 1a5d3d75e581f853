from pathlib import Path

import pytest

from aloha_runtime.data import DatasetWriter


@pytest.fixture
def dataset_path(tmp_path):
    return tmp_path / "dataset"


@pytest.fixture
def writer(dataset_path):
    """An empty dataset with one small camera, a state of three numbers and an action of one."""
    vectors = {"observation.state": ["x", "y", "z"], "action": ["a"]}
    with DatasetWriter.create(dataset_path, vectors=vectors, cameras={"cam_high": (32, 48)}) as opened:
        yield opened


@pytest.fixture
def shared_sample():
    """The dataset that LeRobot 0.6.1 wrote, with what went into it in `raw.npz`."""
    return Path(__file__).parents[1] / "data" / "lerobot_dataset_v3"
