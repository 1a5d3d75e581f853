"""Ways that are clear of the table and of the other arm, what is said where there is none, and the pilot that waits."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from aloha_runtime import config
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.control import ramp
from aloha_runtime.control.gate import RAMP_SPEED_RAD_S, GateTiming, Motion
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.pilot import Pilot, Torque
from aloha_runtime.control.ramp import Planner, Way, finished, planner_for
from aloha_runtime.control.shape import Scene
from aloha_runtime.messages import MS, Mode, ModeHeartbeat
from aloha_runtime.robot import KITS, NAMES, SIDES, START_POSE, Role, Vector, pose_vector

CYCLE_NS = 5 * MS
SLEEP_POSE = KITS["aloha"].follower_sleep
HOME = pose_vector(START_POSE, 0.0)
LOW_AND_ASIDE = pose_vector(START_POSE, 0.0)
LOW_AND_ASIDE[:6] = (-0.9, -0.5, 1.58, 0.2, 2.1, 0.1)
"""The left arm beside the rig, its wrist bent down and back under the forearm: 10 cm above the table, which the fingers
would scrape if the wrist straightened while the forearm is still low."""
SIDE_BY_SIDE: dict = {"left_base": (0.0, 0.22, 0.0), "right_base": (0.0, -0.22, 0.0)}
TANGLED = np.array([-1.6, -0.1, -0.2, -0.5, 1.6, -0.7, 0.8, 0.6, 1.1, 1.6, 0.6, 1.7, -2.4, 0.9])
"""On arms that stand side by side: the left hand in front of the right arm, whose forearm is beside it."""


def planner(rig: str = "aloha", role: Role = "follower", **geometry: object) -> Planner:
    known = config.load(rig)
    return planner_for(known.model_copy(update={"guard": GuardConfig(**geometry)}) if geometry else known, role)


def way(start: Vector, end: Vector = HOME, **geometry: object) -> Way:
    return finished(planner(**geometry).plan(start, end, "start"))


def least_m(start: Vector, stages: Sequence[Vector]) -> float:
    """Smallest distance along a way, looked at every 5 mrad."""
    scene = Scene("follower", GuardConfig().bases(), dict.fromkeys(SIDES, KITS["aloha"].follower_gripper), hands=True)
    poses = [start]
    for stage in stages:
        count = int(np.abs(stage - poses[-1]).max() / 0.005) + 1
        poses += list(np.linspace(poses[-1], stage, count + 1)[1:])
    return float(scene.distances(np.array(poses)).min())


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
@pytest.mark.parametrize("role", ["follower", "leader"])
def test_between_the_published_poses_the_way_is_straight(kit, role: Role) -> None:
    asleep = pose_vector(kit.sleep_pose(role), 0.0)
    for start, end in ((asleep, HOME), (HOME, asleep)):
        found = finished(planner(kit.name, role).plan(start, end, "start"))
        assert len(found.stages) == 1
        assert (found.stages[0] == end).all()


def test_an_arm_that_lies_low_is_raised_before_it_turns() -> None:
    assert least_m(LOW_AND_ASIDE, [HOME]) < 0.0, "straight it would sweep through the table"
    found = way(LOW_AND_ASIDE)
    assert len(found.stages) > 1
    assert (found.stages[-1] == HOME).all()
    assert least_m(LOW_AND_ASIDE, found.stages) > 0.04
    assert found.stages[0][0] == LOW_AND_ASIDE[0], "the waist waits"


def test_ways_are_the_same_every_time() -> None:
    once, again = way(LOW_AND_ASIDE), way(LOW_AND_ASIDE)
    assert len(once.stages) == len(again.stages)
    assert all((one == two).all() for one, two in zip(once.stages, again.stages, strict=True))


def test_a_part_that_is_nearer_than_the_margin_may_leave_and_may_arrive() -> None:
    low = HOME.copy()
    low[[1, 8]] = -0.14
    scene = Scene("follower", GuardConfig().bases(), dict.fromkeys(SIDES, KITS["aloha"].follower_gripper), hands=True)
    assert 0.0 < scene.nearest(low).distance_m < 0.02
    assert way(low).stages == (HOME,) == way(low).stages
    assert way(HOME, low).stages == (low,)


@pytest.mark.parametrize(
    ("distances_m", "clear"),
    [
        ([0.30, 0.06, 0.30], True),
        ([0.30, 0.04, 0.30], False),
        ([0.01, 0.02, 0.30], True),  # leaves
        ([-0.02, -0.01, 0.30], True),
        ([0.01, 0.005, 0.30], False),  # ... and comes nearer first
        ([0.01, 0.30, 0.02, 0.30], False),  # ... and comes back
        ([0.30, 0.02, 0.01], True),  # arrives
        ([0.30, 0.005, 0.01], False),  # ... from nearer still
        ([0.01, 0.30, 0.01], True),
    ],
)
def test_what_counts_as_clear(distances_m: list[float], clear: bool) -> None:
    found = ramp._first_too_near(np.array(distances_m)[:, None], 0.05)
    assert (found is None) is clear


class Dip:
    """One pair of parts that meet for a moment, where the waist passes 0.5, at a metre for each radian."""

    sides: tuple = ()
    pairs = (("left wrist", "right wrist"),)
    reach = np.eye(1, 14)

    def distances(self, poses: np.ndarray) -> np.ndarray:
        return np.abs(poses[:, :1] - 0.5)


def test_a_moment_between_the_first_looks_is_seen() -> None:
    corners = np.zeros((2, 14))
    corners[1, 0] = 1.0
    first = np.arange(10) / 9
    assert np.abs(first - 0.5).min() > 0.05, "nine looks on a metre see nothing"
    search = Planner(Dip(), 0.02, START_POSE, corners[0], corners[1])  # type: ignore[arg-type]
    blocked = finished(search._blocked(Dip(), corners))  # type: ignore[arg-type]
    assert blocked is not None
    assert blocked.distance_m < 0.05


def test_a_refusal_names_the_parts_and_the_joint_to_move_and_moving_it_helps() -> None:
    refusal = way(TANGLED, **SIDE_BY_SIDE).refusal
    said = re.fullmatch(
        r"no way to the start pose is clear: left fingers would come within \d+ mm of right fingers; first move "
        r"(?P<joint>\w+)( forwards| backwards| up| down| to its left| to its right)? by about \d\.\d\d rad, from "
        r"(?P<at>-?\d\.\d\d) to (?P<to>-?\d\.\d\d) rad, then ask again",
        refusal,
    )
    assert said is not None, refusal
    index = NAMES.index(said["joint"])
    assert float(said["at"]) == pytest.approx(TANGLED[index], abs=0.006)
    moved = TANGLED.copy()
    moved[index] = float(said["to"])
    assert way(moved, **SIDE_BY_SIDE).stages


def test_angles_beyond_half_a_turn_are_taken_as_the_servo_will_say_them() -> None:
    turned = HOME.copy()
    turned[[0, 3]] = (np.pi + 0.06, -np.pi - 0.01)
    seen = ramp.within_a_turn(turned)
    assert seen[[0, 3]] == pytest.approx((-np.pi + 0.06, np.pi - 0.01))
    assert np.delete(seen, [0, 3]) == pytest.approx(np.delete(HOME, [0, 3]))


def test_a_joint_that_was_moved_meanwhile_is_named() -> None:
    now = HOME.copy()
    assert ramp.moved_meanwhile(HOME, now) == ""
    now[9] += 0.06
    assert ramp.moved_meanwhile(HOME, now).startswith("right_elbow was moved from 1.16 to 1.22 rad")


@pytest.mark.parametrize(("height_m", "clear"), [(-0.1, True), (0.0, False), (None, True)])
def test_the_table_is_where_the_rig_file_says_and_a_pose_inside_it_is_refused(
    height_m: float | None, clear: bool
) -> None:
    low = HOME.copy()
    low[[1, 8]] = 0.1
    found = way(HOME, low, table_m=height_m)
    assert bool(found.stages) is clear
    assert clear or "the start pose itself takes left fingers 62 mm into table" in found.refusal


def test_leaders_are_planned_together_once_both_their_places_are_known() -> None:
    reached_out = pose_vector((0.0, 0.3, 0.2, 0.0, 0.0, 0.0), 0.5)
    near: dict = {"leader_left_base": (-0.3, 0.0, 0.0), "leader_right_base": (0.3, 0.0, np.pi)}
    start = pose_vector(START_POSE, 0.5)
    assert finished(planner(role="leader").plan(start, reached_out, "start")).stages
    refused = finished(planner(role="leader", **near).plan(start, reached_out, "start")).refusal
    assert re.fullmatch(r"the start pose itself takes left \w+ \d+ mm into right \w+: correct the pose, .*", refused)


# --- the pilot -------------------------------------------------------------------------------------------------------


class Arms:
    """A pilot with a planner, and arms that go where the goal is."""

    def __init__(self, present: Vector, role: Role = "follower", planner: Planner | None = None) -> None:
        self.now_ns, self.present, self.order_ns = 1_000_000_000_000, present.copy(), 0
        self.pilot = Pilot(
            role,
            default_limits(role),
            START_POSE,
            SLEEP_POSE,
            present,
            self.now_ns,
            Torque.OFF,
            GateTiming(period_ns=CYCLE_NS),
            planner=planner or planner_for(config.load("aloha"), role),
        )
        self.mode, self.pose, self.torque = Mode.IDLE, "", Torque.OFF
        self.went = [present.copy()]

    def turn(self, mode: Mode, pose: str = "", again: bool = False):
        if again or (mode, pose) != (self.mode, self.pose):
            self.mode, self.pose, self.order_ns = mode, pose, self.now_ns
        self.now_ns += CYCLE_NS
        order = {"order_ns": self.order_ns, "asked_ns": self.order_ns}
        heartbeat = ModeHeartbeat(stamp_ns=self.now_ns, mode=mode, pose=pose, **order)
        command = self.pilot.step(self.now_ns, [heartbeat], self.present, None)
        if command.rearm or command.torque is not self.torque:  # no goal is sent in a cycle that switches torque
            self.torque = command.torque
            self.pilot.switched(self.now_ns, self.present, done=True)
        elif command.goal is not None:
            self.present = command.goal.copy()
            self.went.append(self.present)
        return command

    def until_settled(self, mode: Mode, pose: str):
        for _ in range(8000):
            command = self.turn(mode, pose)
            if command.settled or command.hold_cause:
                return command
        pytest.fail("never settled")


def test_arming_goes_through_every_stage_at_ramp_speed_and_settles_at_the_end_only() -> None:
    arms = Arms(LOW_AND_ASIDE)
    stages = way(LOW_AND_ASIDE).stages
    assert arms.turn(Mode.ARMED, "start").torque is Torque.OFF, "no torque before a way is known"
    command = arms.until_settled(Mode.ARMED, "start")
    assert command.settled
    went = np.array(arms.went)
    for stage in stages:
        assert np.abs(went - stage).max(axis=1).min() < 2e-3, "each stage was reached"
    assert np.abs(np.diff(went, axis=0)).max() <= RAMP_SPEED_RAD_S * CYCLE_NS * 1e-9 + 1e-9
    assert least_m(LOW_AND_ASIDE, arms.went) > 0.03


@pytest.mark.parametrize("stop", [Mode.HOLD, Mode.FAULT, Mode.IDLE])
def test_a_stop_in_one_stage_voids_the_rest(stop: Mode) -> None:
    arms = Arms(LOW_AND_ASIDE)
    for _ in range(100):
        command = arms.turn(Mode.ARMED, "start")
    assert command.gate.motion is Motion.RAMP
    assert command.goal is not None
    held = arms.turn(stop).goal
    for _ in range(2000):
        command = arms.turn(stop)
    assert (command.goal == held).all()
    for _ in range(200):
        command = arms.turn(Mode.ARMED)
    assert (command.goal == held).all(), "armed where it is: nothing of the ramp is left"


@pytest.mark.parametrize("stop", [Mode.HOLD, Mode.FAULT, Mode.IDLE])
def test_a_stop_while_a_way_is_sought_ends_the_search(stop: Mode) -> None:
    arms = Arms(LOW_AND_ASIDE)
    arms.turn(Mode.ARMED, "start")
    for _ in range(500):
        command = arms.turn(stop)
    assert command.goal is None
    assert command.torque is Torque.OFF


def test_arms_without_a_clear_way_get_no_torque_and_say_why() -> None:
    arms = Arms(TANGLED, planner=planner(**SIDE_BY_SIDE))
    command = arms.until_settled(Mode.ARMED, "start")
    assert "first move" in command.hold_cause
    assert command.mode is Mode.HOLD
    assert command.torque is Torque.OFF
    assert command.goal is None


def test_arms_that_a_hand_moves_while_a_way_is_sought_are_held() -> None:
    arms = Arms(LOW_AND_ASIDE)
    arms.turn(Mode.ARMED, "start")
    arms.present[2] -= 0.1
    command = arms.until_settled(Mode.ARMED, "start")
    assert command.hold_cause.startswith("left_elbow was moved")
    assert command.torque is Torque.OFF


def test_parking_in_the_middle_of_a_ramp_is_planned_from_where_the_goal_stands() -> None:
    arms = Arms(LOW_AND_ASIDE)
    for _ in range(100):
        arms.turn(Mode.ARMED, "start")
    command = arms.until_settled(Mode.PARK, "sleep")
    assert command.settled
    assert command.torque is Torque.OFF
    assert least_m(LOW_AND_ASIDE, arms.went) > 0.03


def test_leaders_in_a_persons_hands_hold_themselves_while_a_way_is_sought() -> None:
    arms = Arms(HOME, "leader")
    arms.until_settled(Mode.ARMED, "start")
    assert arms.turn(Mode.TELEOP).torque is Torque.OFF
    arms.present[:6] = (0.8, -0.2, 0.6, 0.1, -0.2, 0.3)
    command = arms.turn(Mode.PARK, "sleep")
    assert command.torque is Torque.ON
    assert not command.settled
    assert arms.until_settled(Mode.PARK, "sleep").torque is Torque.OFF
    assert np.abs(arms.present - pose_vector(SLEEP_POSE, arms.present[6]))[:6].max() < 0.01
