"""Grippers mounted elsewhere, through the real loops of supervisor, arms and teleoperation."""

from random import Random

import pytest

from aloha_runtime.commands.faults.gripper_ranges import GRIPPER_RANGES


@pytest.mark.parametrize("name", ["aloha: grippers mounted 0.25 rad lower", "aloha2: grippers mounted each"])
def test_wherever_grippers_are_mounted_a_person_starts_and_followers_close(name: str) -> None:
    (scenario,) = (item for item in GRIPPER_RANGES.scenarios if item.name.startswith(name))
    assert scenario.why(scenario.try_once(None, Random(0))) == ""
