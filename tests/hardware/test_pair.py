"""Two arms as one: what is known of them when only one answers, and who is named when none does."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aloha_runtime.hardware.base import ArmReading, Unread
from aloha_runtime.hardware.dynamixel_units import ArmUnits
from aloha_runtime.hardware.pair import ArmPair
from aloha_runtime.messages import NOT_NAMED_YET
from aloha_runtime.robot import (
    JOINTS,
    KITS,
    ROLES,
    SERVOS,
    SIDE_SLICE,
    SIDES,
    START_POSE,
    Kit,
    pose_vector,
    rad_to_ticks,
    with_range,
)
from aloha_runtime.stillness import Stillness, stood_still


def arm(readings: list[ArmReading | None]) -> Any:
    """An arm that gives these readings, one a cycle."""
    return SimpleNamespace(request=lambda goal, currents: None, collect=lambda deadline_ns: readings.pop(0))


def reading(stamp_ns: int, angle: float, errors: dict[str, int]) -> ArmReading:
    return ArmReading(stamp_ns, np.full(7, angle), np.zeros(7), np.zeros(7), errors)


def test_the_newest_of_an_arm_that_answers_counts_while_the_other_one_is_silent() -> None:
    left = arm([reading(1, 0.1, {}), reading(2, 0.2, {"elbow": 0xA0})])
    right = arm([reading(1, 0.5, {}), None])
    pair = ArmPair(
        {"left": left, "right": right},
        dict.fromkeys(SIDES, KITS["aloha"].gripper("follower")),
        pose_vector(START_POSE, 0.0),
    )
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


MS = 1_000_000
NOW = 2000 * MS
DEAD = "follower_left: no servo answers for 130 ms; check its power and USB, then `aloha arm`"
ONE_DEAD = "follower_left: elbow silent for 130 ms; check the cable into the first of them, then `aloha arm`"


def pair_of(left: dict[str, int], right: dict[str, int], connected: bool = True) -> ArmPair:
    """Arms of which these joints have been silent for so many ms."""
    arms: Any = {
        side: SimpleNamespace(
            name=f"follower_{side}",
            connected=connected,
            rearm_cause="" if connected else "the adapter is gone; plug it in again",
            joints=JOINTS,
            silent=lambda now_ns, silent=silent: {joint: ms / 1e3 for joint, ms in silent.items()},
            unread=lambda now_ns, silent=silent: Unread(max(silent.values(), default=0) * MS, certain=True),
        )
        for side, silent in (("left", left), ("right", right))
    }
    return ArmPair(arms, dict.fromkeys(SIDES, KITS["aloha"].gripper("follower")), pose_vector(START_POSE, 0.0))


def late(*gaps_ms: tuple[int, int]) -> Stillness:
    """A loop that had no turn in these spans, in ms before now."""
    stillness = Stillness()
    turns = range(-400, 1, 5)
    for ms in turns:
        if not any(-start < ms < -end for start, end in gaps_ms):
            stillness.turn("loop", NOW + ms * MS, 12 * MS)
    return stillness


ALL = dict.fromkeys(JOINTS, 130)


@pytest.mark.parametrize(
    ("left", "right", "gaps", "said"),
    [
        ({}, {}, [(140, 0)], ""),
        (ALL, {}, [], DEAD),
        (ALL, ALL, [], f"{DEAD}; {DEAD.replace('left', 'right')}"),
        ({"elbow": 130}, {}, [], ONE_DEAD),
        (ALL, ALL, [(140, 0)], stood_still(130 * MS)),
        (ALL, {}, [(120, 20)], stood_still(100 * MS)),
        ({"elbow": 130}, {}, [(120, 20)], stood_still(100 * MS)),
        ({"elbow": 130}, {}, [(130, 90)], ONE_DEAD),
        (ALL, ALL, [(300, 150)], f"{DEAD}; {DEAD.replace('left', 'right')}"),
        (dict.fromkeys(JOINTS, 260), dict.fromkeys(JOINTS, 130), [(260, 105)], DEAD.replace("130", "260")),
    ],
    ids=["none", "arm", "both", "joint", "stall", "over", "joint", "short", "before", "dead besides"],
)
def test_who_is_named_for_a_silence(
    left: dict[str, int], right: dict[str, int], gaps: list[tuple[int, int]], said: str
) -> None:
    found = pair_of(left, right).silent(NOW, 100 * MS, late(*gaps))
    assert found.startswith(said) if said == DEAD.replace("130", "260") else found == said


def test_an_adapter_that_is_gone_is_named_whatever_the_computer_does() -> None:
    found = pair_of(ALL, ALL, connected=False).silent(NOW, 100 * MS, late((140, 0)))
    assert found.startswith("follower_left: the adapter is gone; plug it in again")


def test_watchdogs_that_tripped_because_nothing_was_sent_name_no_arm() -> None:
    pair = pair_of({}, {})
    causes = [f"{stood_still(ms * MS)}; nothing was sent" for ms in (140, 141)]
    for arm, cause in zip(pair.arms.values(), causes, strict=True):
        arm.rearm_cause = cause  # type: ignore[misc]
    assert pair.rearm_cause() == causes[0]
    pair.arms["right"].rearm_cause = "torque is off"  # type: ignore[misc]
    assert pair.rearm_cause() == f"{causes[0]}; follower_right: torque is off"


def test_a_silence_says_who_is_silent_once_that_is_known() -> None:
    pair = pair_of({}, {})
    arm: Any = pair.arms["left"]
    arm.unread = lambda now_ns: Unread(130 * MS, certain=False)
    assert pair.silent(NOW, 100 * MS, Stillness()) == f"follower_left: {NOT_NAMED_YET} (130 ms), then `aloha arm`"
    arm.unread = lambda now_ns: Unread(130 * MS, certain=True)
    assert pair.silent(NOW, 100 * MS, Stillness()).startswith(
        "follower_left: every servo answers, but too late or damaged, for 130 ms; check its USB cable"
    )
    arm.silent = lambda now_ns: {"elbow": 0.13, "gripper": 0.12}
    assert pair.silent(NOW, 100 * MS, Stillness()).startswith(
        "follower_left: elbow silent for 130 ms, gripper silent for 120 ms; check the cable into the first of them"
    )


def test_what_is_not_known_of_a_pair_is_named_with_its_age() -> None:
    pair = pair_of({}, {})
    left, right = (pair.arms[side] for side in ("left", "right"))
    left.unknown, right.unknown = (lambda: {"elbow": 2.4}), dict  # type: ignore[method-assign]
    assert pair.unknown() == (
        2.4,
        "follower_left: temperature, voltage and watchdog of elbow have not been heard for 2.4 s; "
        "check the servo cables, then `aloha arm`",
    )
    right.unknown = lambda: dict.fromkeys(JOINTS, 3.0)  # type: ignore[method-assign]
    age_s, why = pair.unknown()
    assert age_s == 3.0
    assert "; follower_right: temperature, voltage and watchdog of every servo have not been heard for 3.0 s" in why


@pytest.mark.parametrize("kit", KITS.values(), ids=KITS)
def test_the_motors_openings_survive_where_the_finger_position_loses_them(kit: Kit) -> None:
    """Of leaders and followers, squeezed past their closed end and opened past their open one, and of a side that is
    not there and is told to go there."""
    for role in ROLES:
        gripper = kit.gripper(role)
        for opening in (-0.2, -0.06, 0.0, 0.03, 0.5, 1.0, 1.2):
            angles = np.array([*START_POSE, gripper.angle_from_action(opening)])
            one = SimpleNamespace(
                request=lambda goal, currents: None,
                collect=lambda deadline_ns, angles=angles: ArmReading(1, angles, np.zeros(7), np.zeros(7), {}),
            )
            arms: Any = {"left": one}
            pair = ArmPair(arms, dict.fromkeys(SIDES, gripper), pose_vector(START_POSE, 0.0))
            found = pair.cycle(pose_vector(START_POSE, opening), 0)
            assert found is not None
            assert found.present[[6, 13]] == pytest.approx(opening)
            assert found.position[6] == pytest.approx(found.position[13])


@pytest.mark.parametrize(("angle_close", "angle_open"), [(-3.0, -1.0), (3.0, 1.0), (1.0, 3.0)])
def test_a_gripper_mounted_at_the_end_of_its_turn_keeps_no_goal_from_the_joints(
    angle_close: float, angle_open: float
) -> None:
    gripper = with_range(KITS["aloha"].follower_gripper, angle_open=angle_open, angle_close=angle_close)
    sent: list[np.ndarray] = []
    one = SimpleNamespace(request=lambda goal, currents: sent.append(goal), collect=lambda deadline_ns: None)
    arms: Any = dict.fromkeys(SIDES, one)
    pair = ArmPair(arms, dict.fromkeys(SIDES, gripper), pose_vector(START_POSE, 0.0))
    units = ArmUnits("follower", [servo for servo in SERVOS["follower"] if servo.shadow_of is None])
    for opening in (-0.2, 0.0, 0.5, 1.0, 1.2):
        pair.cycle(pose_vector(START_POSE, opening), 0)
        ticks = units.ticks(sent[-1])
        assert ticks is not None
        wanted = gripper.angle_from_action(opening)
        assert abs(ticks[-1] - rad_to_ticks(wanted)) <= 1 or (abs(wanted) > 3.14 and ticks[-1] in (0, 4095))
