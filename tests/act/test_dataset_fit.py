"""Datasets that are not sound, or not for this policy, are refused with the reason; sound ones pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import small_policy as small
from numpy.typing import NDArray

from aloha_runtime import robot
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, aloha_inputs
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.fit import refuse_unfit_data, refuse_unsound_data
from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.errors import DatasetError

LEROBOTS = Path(__file__).parents[1] / "data/lerobot_dataset_v3/dataset"
FRAMES = 12
Change = Callable[[NDArray[np.float64]], Any]


def written(
    path: Path, change: Change = lambda _: None, names: Any = robot.NAMES, camera: str = "cam_high", fps: int = 50
) -> Dataset:
    """Six frames each of two episodes of two arms that move; `change` is made to states and actions (12, 14)."""
    values = 0.3 * np.sin(np.arange(FRAMES)[:, None] / 3 + np.arange(14)) + 0.5
    change(values)
    vectors = {STATE: names, ACTION: names, ENVIRONMENT_STATE: ["x", "z"]}
    with DatasetWriter.create(path, vectors=vectors, cameras={camera: (small.HEIGHT, small.WIDTH)}, fps=fps) as writer:
        for step, row in enumerate(values):
            picture = small.scene(step / FRAMES, 0.5)
            place = np.array([step / FRAMES, 0.02])
            writer.add_frame({STATE: row, ACTION: row, ENVIRONMENT_STATE: place, IMAGE_PREFIX + camera: picture})
            if step % 6 == 5:
                writer.save_episode("x")
    return Dataset(path)


def policy(**changes: Any) -> Any:
    return small.config(estimate_dim=0, **changes)


def test_a_sound_dataset_passes(tmp_path: Path) -> None:
    dataset = written(tmp_path / "data")
    stats = {name: dataset.stats[name] for name in (STATE, ACTION)}
    refuse_unfit_data(dataset, policy(), fps=50, policy_stats=stats)


def test_made_up_numbers_of_the_right_shape_are_noticed() -> None:
    """LeRobot's sample holds random numbers, its grippers too; all else about it fits."""
    with pytest.raises(DatasetError, match=r"observation.state: left_gripper goes from -0.89 to 0.62"):
        refuse_unfit_data(Dataset(LEROBOTS), policy(input_shapes=aloha_inputs(Dataset(LEROBOTS).cameras)), fps=50)
    refuse_unsound_data(Dataset(LEROBOTS), list(Dataset(LEROBOTS).cameras), ["observation.velocity"])


def test_a_resting_joint_is_no_fault(tmp_path: Path) -> None:
    def rest(values: NDArray[np.float64]) -> None:
        values[:, 7:] = 0.1

    refuse_unfit_data(written(tmp_path / "data", rest), policy())


@pytest.mark.parametrize(
    ("number", "value", "message"),
    [
        (slice(0, 14), 57.3, r"left_waist goes from .* cannot be radians"),
        (13, 90.0, r"right_gripper goes from .* openings go from 0 \(closed\) to 1"),
        (6, -3.0, r"left_gripper goes from -"),
    ],
)
def test_other_units(tmp_path: Path, number: Any, value: float, message: str) -> None:
    def scale(values: NDArray[np.float64]) -> None:
        values[:, number] *= value

    with pytest.raises(DatasetError, match=message):
        refuse_unfit_data(written(tmp_path / "data", scale), policy())


def test_joints_in_another_order(tmp_path: Path) -> None:
    right_first = (*robot.NAMES[7:], *robot.NAMES[:7])
    with pytest.raises(DatasetError, match="another order: right_waist where left_waist belongs"):
        refuse_unfit_data(written(tmp_path / "data", names=right_first), policy())


def test_an_arm_that_never_moves(tmp_path: Path) -> None:
    def freeze(values: NDArray[np.float64]) -> None:
        values[:] = 0.5

    with pytest.raises(DatasetError, match="action never changes in 12 frames"):
        refuse_unsound_data(written(tmp_path / "data", freeze), ["cam_high"], [ACTION])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": "cam_low"}, r"no camera cam_high, through which the policy looks; it has: cam_low"),
        ({"fps": 30}, r"30 frames/s, the policy's actions are 50 a second.*1.7 times as fast"),
    ],
)
def test_other_rig(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        refuse_unfit_data(written(tmp_path / "data", **changes), policy(), fps=50)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (aloha_inputs({"cam_high": (96, 128)}), r"cam_high is 64x48, the policy was made for 128x96"),
        ({**aloha_inputs({"cam_high": (48, 64)}), STATE: (7,)}, r"observation.state has 14 numbers.* made for 7"),
        (aloha_inputs({"cam_high": (48, 64)}, 7), r"environment_state has 2 numbers.* made for 7"),
        (aloha_inputs({"cam_high": (48, 64)}, 2), r"z is always 0.02: its standard deviation is 0"),
    ],
)
def test_other_shapes(tmp_path: Path, inputs: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        refuse_unfit_data(written(tmp_path / "data"), policy(input_shapes=inputs))


def test_data_far_from_what_the_policy_knows(tmp_path: Path) -> None:
    dataset = written(tmp_path / "data")
    far = {"mean": np.full(14, 40.0), "std": np.full(14, 0.5)}
    with pytest.raises(DatasetError, match=r"action number \d+ is .* on average, the policy expects 40 \+- 0.5"):
        refuse_unfit_data(dataset, policy(), policy_stats={ACTION: far})


@pytest.mark.parametrize(
    ("feature", "statistic", "change", "message"),
    [
        (ACTION, "mean", lambda value: [value[0] + 0.2, *value[1:]], r"action: mean of number 0 is .* and .* in the f"),
        (STATE, "std", lambda value: [*value[:13], value[13] * 2], r"state: std of number 13"),
        (ACTION, "std", lambda value: value[:7], r"std in meta/stats.json is damaged"),
        (small.CAMERA, "mean", lambda _: [[[90.0]], [[90.0]], [[90.0]]], r"mean 90 in meta/stats.json is not in 0..1"),
        (small.CAMERA, "mean", lambda _: [[[0.9]], [[0.4]], [[0.4]]], r"mean colour is \(0.90, .*in the frames"),
        (small.CAMERA, "std", lambda _: [[[0.0]]] * 3, r"every pixel is the same"),
    ],
)
def test_statistics_of_something_else(
    tmp_path: Path, feature: str, statistic: str, change: Callable[[Any], Any], message: str
) -> None:
    path = tmp_path / "data"
    written(path)
    stats = msgspec.json.decode((path / "meta/stats.json").read_bytes())
    stats[feature][statistic] = change(stats[feature][statistic])
    (path / "meta/stats.json").write_bytes(msgspec.json.encode(stats))
    with pytest.raises(DatasetError, match=message):
        TrainingData(path, None, tmp_path / "cache", lambda _: None)
    assert not (tmp_path / "cache").exists()  # refused before anything is decoded
