"""What a replay is given, and what it is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aloha_runtime.control.limits import default_limits
from aloha_runtime.data import recording
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, NAMES, START_POSE, pose_vector

START = pose_vector(START_POSE, 0.5)


def write(path: Path, actions: NDArray[np.floating], names: Sequence[str] = NAMES, state: bool = True) -> Path:
    vectors = {"action": names} | ({"observation.state": names} if state else {})
    with DatasetWriter.create(path, vectors=vectors) as writer:
        for _ in range(2):
            for action in actions:
                writer.add_frame({"action": action} | ({"observation.state": action + 0.01} if state else {}))
            writer.save_episode("wave")
    return path


def still(length: int = 5) -> NDArray[np.float64]:
    return np.tile(START, (length, 1))


def test_an_episode_is_read_with_its_state_and_task(tmp_path: Path) -> None:
    moving = still() + np.linspace(0, 0.1, 5)[:, None]
    found = recording.load(write(tmp_path / "data", moving), 1, default_limits())
    np.testing.assert_allclose(found.actions, moving, atol=1e-6)
    assert found.state is not None
    np.testing.assert_allclose(found.state, moving + 0.01, atol=1e-6)
    assert (found.fps, found.task) == (50, "wave")


def test_a_dataset_without_state_can_be_replayed(tmp_path: Path) -> None:
    assert recording.load(write(tmp_path / "data", still(), state=False), 0, default_limits()).state is None


def test_an_episode_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has episodes 0 to 1; 2 is outside"):
        recording.load(write(tmp_path / "data", still()), 2, default_limits())


def test_other_joints(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"action has 6 numbers; these arms need 14"):
        recording.load(write(tmp_path / "six", still()[:, :6], NAMES[:6]), 0, default_limits())
    swapped = [*NAMES[7:], *NAMES[:7]]
    with pytest.raises(DatasetError, match=r"right_waist where left_waist belongs"):
        recording.load(write(tmp_path / "swapped", still(), swapped), 0, default_limits())


@pytest.mark.parametrize(
    ("joint", "value", "words"),
    [
        ("left_shoulder", -55.0, "left_shoulder goes from -55.0 .* cannot be radians"),
        ("right_gripper", 57.0, "right_gripper goes from 0.50 to 57.00; openings go from 0"),
        ("left_elbow", 2.4, "left_elbow goes to 2.40 rad in frame 2; this rig allows"),
    ],
)
def test_other_units_and_other_ranges(tmp_path: Path, joint: str, value: float, words: str) -> None:
    actions = still()
    actions[2, NAMES.index(joint)] = value
    with pytest.raises(DatasetError, match=words):
        recording.load(write(tmp_path / "data", actions), 0, default_limits())


def test_names_as_lerobot_nests_them(tmp_path: Path) -> None:
    path = write(tmp_path / "data", still())
    info = path / "meta/info.json"
    listed = ",".join(f'"{name}"' for name in NAMES)
    text = "".join(info.read_text().split())
    assert f'"names":[{listed}]' in text
    info.write_text(text.replace(f'"names":[{listed}]', f'"names":{{"motors":[{listed}]}}'))
    assert recording.load(path, 0, default_limits()).actions.shape == (5, DOF)
