"""Two arms as one: what is known of them when only one answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from aloha_runtime.hardware.base import ArmReading
from aloha_runtime.hardware.pair import ArmPair
from aloha_runtime.robot import KITS, SIDE_SLICE, START_POSE, pose_vector


def arm(readings: list[ArmReading | None]) -> Any:
    """An arm that gives these readings, one a cycle."""
    return SimpleNamespace(request=lambda goal, currents: None, collect=lambda deadline_ns: readings.pop(0))


def reading(stamp_ns: int, angle: float, errors: dict[str, int]) -> ArmReading:
    return ArmReading(stamp_ns, np.full(7, angle), np.zeros(7), np.zeros(7), errors)


def test_the_newest_of_an_arm_that_answers_counts_while_the_other_one_is_silent() -> None:
    left = arm([reading(1, 0.1, {}), reading(2, 0.2, {"elbow": 0xA0})])
    right = arm([reading(1, 0.5, {}), None])
    pair = ArmPair({"left": left, "right": right}, KITS["aloha"].gripper("follower"), pose_vector(START_POSE, 0.0))
    assert pair.newest() is None
    whole = pair.cycle(None, 0)
    assert whole is not None
    assert pair.cycle(None, 0) is None  # not whole: nothing is passed on as a state of both
    found = pair.newest()
    assert found is not None
    assert found.stamp_ns == 1
    assert found.position[SIDE_SLICE["left"]][:6].tolist() == [0.2] * 6
    assert found.position[SIDE_SLICE["right"]][:6].tolist() == [0.5] * 6
    assert found.errors == {"left_elbow": 0xA0}
