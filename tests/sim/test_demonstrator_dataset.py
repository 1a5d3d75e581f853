"""Demonstrations recorded as a dataset."""

from pathlib import Path

import numpy as np
import pytest

from aloha_runtime.commands.demonstrate import PUSH_RAD, demonstrate, pushes, record_one
from aloha_runtime.data.reader import Dataset
from aloha_runtime.robot import IS_GRIPPER, NAMES


def test_a_dataset_of_demonstrations_holds_what_happened(tmp_path: Path) -> None:
    said: list[str] = []
    path = demonstrate(
        "transfer_cube", 1, 100_000, tmp_path / "demos", workers=1, with_object_poses=True, report=said.append
    )
    dataset = Dataset(path)
    assert len(dataset.episodes) == 1
    assert dataset.info.fps == 50
    assert dataset.info.cameras == {"cam_high": (120, 160)}
    assert dataset.info.features["action"].names == list(NAMES)
    expected = record_one("transfer_cube", (), 100_000)
    assert expected.solved_at_end
    np.testing.assert_array_equal(dataset.vectors("action"), expected.action.astype(np.float32))
    np.testing.assert_array_equal(dataset.vectors("observation.state"), expected.state.astype(np.float32))
    np.testing.assert_array_equal(
        dataset.vectors("observation.environment_state"), expected.environment_state.astype(np.float32)
    )
    assert dataset.images("cam_high", 0).shape == (len(expected.action), 120, 160, 3)
    start_offset = np.abs(expected.state[0] - expected.action[0])[~IS_GRIPPER]
    assert 0.005 < start_offset.max() < 0.07


def test_object_poses_are_stored_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = record_one("transfer_cube", (), 100_000)
    monkeypatch.setattr("aloha_runtime.commands.demonstrate._episodes", lambda *_: iter([made]))
    for asked in (False, True):
        path = demonstrate(
            "transfer_cube", 1, 100_000, tmp_path / str(asked), cameras={}, with_object_poses=asked, report=str
        )
        assert ("observation.environment_state" in Dataset(path).info.vectors) == asked


def test_pushes_are_smooth_small_and_leave_grippers_alone() -> None:
    push = pushes(np.random.default_rng(3), 300)
    assert push.shape == (300, 14)
    assert (push[:, IS_GRIPPER] == 0).all()
    arms = push[:, ~IS_GRIPPER]
    assert 0.1 * PUSH_RAD < arms.std() < 1.2 * PUSH_RAD
    assert np.abs(np.diff(arms, axis=0)).max() < 0.4 * np.abs(arms).max()
