"""The pilot's rules of torque and motion, held against any sequence of modes, silences, refusals and pushes."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.control.gate import GateTiming, Target
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.pilot import GRIPPER_IN_POSE, LIMP, Command, Pilot, Torque
from aloha_runtime.messages import MS, Mode, ModeHeartbeat
from aloha_runtime.robot import IS_GRIPPER, START_POSE, Role, Vector, pose_vector

SLEEP_POSE = (0.0, -1.7, 1.55, 0.0, -0.6, 0.0)
ASLEEP = pose_vector(SLEEP_POSE, 0.5)
CYCLE_NS = 5 * MS
TRIPPED = "a tripped watchdog"
STANDING = (Mode.IDLE, Mode.HOLD, Mode.FAULT)


class Arms:
    """A pilot and arms that are where the goal is while they have torque and obey."""

    def __init__(
        self, role: Role, torque: Torque = Torque.OFF, present: Vector = ASLEEP, carries: bool = False
    ) -> None:
        self.role = role
        self.now_ns = 1_000_000_000_000
        self.present = present.copy()
        self.commands: list[Command] = []
        self.mode, self.pose, self.order_ns = Mode.IDLE, "", 0
        self.torque = torque
        self.held: Vector | None = None
        """The goals that the servos hold after a switch; None: where they are."""
        timing = GateTiming(period_ns=CYCLE_NS)
        poses = START_POSE, SLEEP_POSE
        self.pilot = Pilot(
            role, default_limits(role), *poses, self.present, self.now_ns, torque, timing, carries=carries
        )

    @property
    def last(self) -> Command:
        return self.commands[-1]

    def turn(
        self,
        mode: Mode,
        count: int = 1,
        pose: str = "",
        heard: bool = True,
        rearm: str = "",
        action: Vector | None = None,
        error: str = "",
        stuck: bool = False,
    ) -> Command:
        """Cycles in a mode; `heard` False: the supervisor is silent; `stuck`: the arms do not go where the goal is."""
        if (mode, pose) != (self.mode, self.pose):
            self.mode, self.pose, self.order_ns = mode, pose, self.now_ns
        for _ in range(count):
            self.now_ns += CYCLE_NS
            order = {"order_ns": self.order_ns, "asked_ns": self.order_ns}
            heartbeats = [ModeHeartbeat(stamp_ns=self.now_ns, mode=mode, pose=pose, **order)] if heard else []
            target = None if action is None else Target(action, self.now_ns, self.now_ns // (20 * MS), CYCLE_NS)
            command = self.pilot.step(self.now_ns, heartbeats, self.present, target, rearm, error)
            self.commands.append(command)
            if command.rearm or command.torque is not self.torque:
                self.torque = command.torque
                self.pilot.switched(self.now_ns, self.present if self.held is None else self.held, done=True)
            elif command.goal is not None and not stuck and (not rearm or command.rearm):
                self.present = command.goal.copy()
            rearm = "" if command.rearm else rearm
        return self.last


def heard_together(now_ns: int, *modes: Mode) -> list[ModeHeartbeat]:
    """Orders that come between two cycles, in this order."""
    stamps = range(now_ns + 1, now_ns + 1 + len(modes))
    return [
        ModeHeartbeat(stamp_ns=at, mode=mode, order_ns=at, asked_ns=at) for at, mode in zip(stamps, modes, strict=True)
    ]


@pytest.fixture(params=["follower", "leader"])
def arms(request: pytest.FixtureRequest) -> Arms:
    return Arms(request.param)


def armed(arms: Arms) -> Arms:
    arms.turn(Mode.ARMED, 500, "start")
    assert arms.last.settled
    return arms


def test_arming_takes_torque_where_the_arm_is_and_ramps_to_the_start_pose(arms: Arms) -> None:
    first = arms.turn(Mode.ARMED, 1, "start")
    assert first.torque is Torque.ON
    assert first.rearm
    assert np.abs(first.goal - ASLEEP).max() < 0.01
    armed(arms)
    joints = ~IS_GRIPPER
    assert arms.present[joints] == pytest.approx(
        pose_vector(START_POSE, 0.0)[joints], abs=5e-3
    )  # a joint comes 0.07 s after its goal


def test_leaders_in_the_start_pose_have_free_grippers_followers_closed_ones() -> None:
    assert armed(Arms("leader")).last.torque is Torque.GRIPPERS_FREE
    follower = armed(Arms("follower"))
    assert follower.last.torque is Torque.ON
    assert follower.present[IS_GRIPPER] == pytest.approx(GRIPPER_IN_POSE["follower"], abs=2e-3)


def test_arming_where_the_arms_are_moves_nothing(arms: Arms) -> None:
    arms.turn(Mode.ARMED, 50)
    assert arms.last.settled
    assert (arms.present == ASLEEP).all()
    assert arms.last.torque is Torque.ON


@pytest.mark.parametrize(("carries", "free"), [(False, Torque.OFF), (True, Torque.CARRYING)])
def test_leaders_are_free_in_teleop_and_hold_themselves_after_it(carries: bool, free: Torque) -> None:
    leaders = armed(Arms("leader", carries=carries))
    led = leaders.turn(Mode.TELEOP)
    assert led.torque is free
    assert led.goal is None
    leaders.present = leaders.present + 0.2  # a person moves them
    held = leaders.turn(Mode.HOLD)
    assert held.torque is Torque.ON
    assert held.goal == pytest.approx(leaders.present)


def test_leaders_keep_still_with_torque_while_a_policy_drives() -> None:
    leaders = armed(Arms("leader"))
    before = leaders.present.copy()
    leaders.turn(Mode.POLICY, 50)
    assert leaders.last.torque is not Torque.OFF
    assert (leaders.present == before).all()


def test_parking_ends_without_torque_in_the_sleep_pose(arms: Arms) -> None:
    armed(arms)
    arms.turn(Mode.PARK, 600, "sleep")
    assert arms.last.torque is Torque.OFF
    assert arms.last.settled
    joints = ~IS_GRIPPER
    assert arms.present[joints] == pytest.approx(ASLEEP[joints], abs=5e-3)  # the ramp's last step is 0.003 rad


@pytest.mark.parametrize("mode", STANDING)
@pytest.mark.parametrize("heard", [True, False])
def test_parked_arms_stay_without_torque(arms: Arms, mode: Mode, heard: bool) -> None:
    armed(arms)
    arms.turn(Mode.PARK, 600, "sleep")
    arms.turn(mode, 50, heard=heard)
    assert arms.last.torque is Torque.OFF


def test_parking_keeps_what_a_gripper_holds() -> None:
    followers = armed(Arms("follower"))
    before = followers.present[IS_GRIPPER].copy()
    followers.turn(Mode.PARK, 100, "sleep")
    assert (followers.last.goal[IS_GRIPPER] == before).all()


def test_parking_without_torque_moves_nothing(arms: Arms) -> None:
    arms.turn(Mode.PARK, 5, "sleep")
    assert arms.last.torque is Torque.OFF
    assert arms.last.settled
    assert all(command.goal is None for command in arms.commands)


@pytest.mark.parametrize("mode", [Mode.TELEOP, Mode.POLICY, Mode.REPLAY])
def test_a_restarted_pilot_joins_no_motion_and_says_why(mode: Mode) -> None:
    followers = Arms("follower", Torque.ON)
    followers.now_ns += CYCLE_NS
    followers.turn(mode, 50, action=ASLEEP + 0.05)
    assert (followers.present == ASLEEP).all()
    assert followers.last.torque is Torque.ON
    assert followers.last.hold_cause == "these arms have not been armed since these arms were started; arm again"
    followers.turn(Mode.HOLD)
    followers.turn(Mode.ARMED, 5)
    followers.turn(mode, 50, action=ASLEEP + 0.05 * ~IS_GRIPPER)
    assert not (followers.present == ASLEEP).all()


POWERED = [Mode.ARMED, Mode.TELEOP, Mode.POLICY, Mode.REPLAY, Mode.PARK]


def on_the_way(mode: Mode) -> tuple[Arms, str]:
    """Followers in the middle of a ramp or a motion, and the pose of its order."""
    followers = armed(Arms("follower"))
    if mode is Mode.ARMED:
        followers.turn(Mode.HOLD)
        followers.present = ASLEEP.copy()
        followers.turn(mode, 40, "start", rearm=TRIPPED)
        return followers, "start"
    pose = "sleep" if mode is Mode.PARK else ""
    followers.turn(mode, 40, pose, action=followers.present + 0.1)
    return followers, pose


@pytest.mark.parametrize("mode", POWERED)
def test_a_silent_supervisor_ends_every_motion_with_torque_on(mode: Mode) -> None:
    followers, pose = on_the_way(mode)
    followers.turn(mode, 41, pose, heard=False, action=followers.present + 0.1)
    goal = followers.last.goal
    followers.turn(mode, 100, pose, heard=False, action=followers.present + 0.1)
    assert followers.last.mode is Mode.HOLD
    assert (followers.last.goal == goal).all()
    assert followers.last.torque is Torque.ON
    assert "supervisor is silent" in followers.last.hold_cause


@pytest.mark.parametrize("mode", POWERED)
def test_an_order_from_before_the_silence_is_not_taken_up_again(mode: Mode) -> None:
    followers, pose = on_the_way(mode)
    followers.turn(mode, 41, pose, heard=False)
    goal = followers.last.goal
    followers.turn(mode, 400, pose, action=followers.present + 0.1)
    assert (followers.last.goal == goal).all()
    assert followers.last.mode is Mode.HOLD
    assert followers.last.torque is Torque.ON
    assert "arm again" in followers.last.hold_cause


@pytest.mark.parametrize("mode", POWERED)
@pytest.mark.parametrize("cause", ["trouble", "rearm", "gate"])
def test_an_order_that_these_arms_held_under_is_not_taken_up_again(mode: Mode, cause: str) -> None:
    followers, pose = on_the_way(mode)
    if cause == "trouble":
        followers.turn(mode, 1, pose, error="left_elbow: overload")
    elif cause == "rearm":
        followers.turn(mode, 1, pose, rearm=TRIPPED)
    else:
        seen, followers.present = followers.present, np.full(14, np.nan)
        followers.turn(mode, 25, pose, stuck=True)
        followers.present = seen
    held = followers.last
    assert held.mode is Mode.HOLD
    assert held.hold_cause
    goal = held.goal
    followers.turn(mode, 400, pose, action=followers.present + 0.1)
    assert (followers.last.goal == goal).all()
    assert followers.last.hold_cause == held.hold_cause


@pytest.mark.parametrize("mode", POWERED)
def test_an_order_from_before_the_start_is_void_and_so_is_one_that_was_asked_for_before(mode: Mode) -> None:
    for order_ns, asked_ns in ((-MS, -MS), (MS, -MS)):  # given before the start; given after it, asked for before
        followers = Arms("follower", Torque.ON)
        began_ns = followers.now_ns
        followers.now_ns += 10 * MS
        for _ in range(100):
            followers.now_ns += CYCLE_NS
            orders = {"order_ns": began_ns + order_ns, "asked_ns": began_ns + asked_ns}
            beat = ModeHeartbeat(stamp_ns=followers.now_ns, mode=mode, pose="start", **orders)
            target = Target(ASLEEP + 0.3, followers.now_ns, 1, CYCLE_NS)
            command = followers.pilot.step(followers.now_ns, [beat], followers.present, target)
            assert (command.goal == ASLEEP).all()
            assert (command.mode, command.torque) == (Mode.HOLD, Torque.ON)
            assert command.hold_cause == f"{mode.upper()} was asked for before these arms were started; arm again"


@pytest.mark.parametrize(
    ("before", "stop", "voided_by"),
    [
        (Mode.HOLD, "silence", "the supervisor was silent"),
        (Mode.ARMED, "silence", "these arms held"),
        (Mode.ARMED, "trouble", "these arms held"),
    ],
)
def test_an_order_that_was_asked_for_before_these_arms_stopped_and_comes_later_is_void(
    before: Mode, stop: str, voided_by: str
) -> None:
    followers = armed(Arms("follower"))
    followers.turn(before, 5, "start" if before is Mode.ARMED else "")
    asked_ns = followers.now_ns + 1
    if stop == "silence":
        followers.turn(before, 50, followers.pose, heard=False)
    else:
        followers.turn(before, 1, followers.pose, error="left_elbow: overload")
    goal, given_ns = followers.last.goal, followers.now_ns
    for _ in range(100):
        followers.now_ns += CYCLE_NS
        order = ModeHeartbeat(
            stamp_ns=followers.now_ns, mode=Mode.PARK, pose="sleep", order_ns=given_ns, asked_ns=asked_ns
        )
        command = followers.pilot.step(followers.now_ns, [order], followers.present, None)
        assert (command.mode, command.torque) == (Mode.HOLD, Torque.ON)
        assert (command.goal == goal).all()
    assert command.hold_cause == f"PARK was asked for before {voided_by}; arm again"


@pytest.mark.parametrize("gap_ms", [200, 201])
@pytest.mark.parametrize("mode", POWERED)
def test_a_gap_between_words_that_are_heard_together_is_a_silence(mode: Mode, gap_ms: int) -> None:
    """The supervisor stood still, and this process with it: its new word lies behind the old one."""
    followers, pose = on_the_way(mode)
    orders = {"order_ns": followers.order_ns, "asked_ns": followers.order_ns}
    stamps_ns = followers.now_ns + CYCLE_NS, followers.now_ns + CYCLE_NS + gap_ms * MS
    beats = [ModeHeartbeat(stamp_ns=stamp_ns, mode=mode, pose=pose, **orders) for stamp_ns in stamps_ns]
    command = followers.pilot.step(stamps_ns[-1], beats, followers.present, None)
    assert command.mode is (mode if gap_ms == 200 else Mode.HOLD)
    assert ("the supervisor is silent" in command.hold_cause) == (gap_ms == 201)


def test_late_heartbeats_of_an_earlier_order_change_nothing() -> None:
    followers, _ = on_the_way(Mode.TELEOP)
    late = ModeHeartbeat(stamp_ns=followers.now_ns, mode=Mode.TELEOP, order_ns=followers.order_ns)
    followers.turn(Mode.HOLD, 5)
    goal = followers.last.goal
    order_ns = followers.pilot.order_ns
    for _ in range(100):
        followers.now_ns += CYCLE_NS
        target = Target(followers.present + 0.1, followers.now_ns, 1, CYCLE_NS)
        late.stamp_ns = followers.now_ns
        command = followers.pilot.step(followers.now_ns, [late], followers.present, target)
    assert (command.goal == goal).all()
    assert (command.mode, followers.pilot.order_ns) == (Mode.HOLD, order_ns)


def test_a_hold_that_arrives_together_with_a_newer_order_is_not_lost() -> None:
    followers, _ = on_the_way(Mode.POLICY)
    now_ns = followers.now_ns
    orders = [(Mode.HOLD, 1), (Mode.POLICY, 2)]
    beats = [
        ModeHeartbeat(stamp_ns=now_ns + n, mode=mode, order_ns=now_ns + n, asked_ns=now_ns + n) for mode, n in orders
    ]
    command = followers.pilot.step(now_ns + CYCLE_NS, beats, followers.present, None)
    assert command.mode is Mode.HOLD
    assert command.hold_cause == "these arms have not been armed since HOLD; arm again"


@pytest.mark.parametrize("mode", [Mode.TELEOP, Mode.REPLAY, Mode.POLICY])
def test_an_action_that_was_read_before_an_order_of_the_same_cycle_is_not_followed(mode: Mode) -> None:
    """The arms read it when they still obeyed the order before; it may have been sent after their cycle began."""
    arms = armed(Arms("follower"))
    arms.turn(Mode.POLICY, 3, action=arms.present)
    arms.now_ns += CYCLE_NS
    stray = Target(arms.present + 0.2, arms.now_ns + MS // 2, 1, CYCLE_NS)
    command = arms.pilot.step(arms.now_ns, heard_together(arms.now_ns - MS, mode), arms.present, stray)
    assert command.mode is mode
    assert command.gate.target is None
    assert (command.goal == arms.last.goal).all()


def test_arming_is_refused_while_something_is_wrong_and_no_torque_is_switched() -> None:
    followers = armed(Arms("follower"))
    followers.turn(Mode.HOLD, 5, rearm=TRIPPED, error="follower_left: no servo answers")
    command = followers.turn(Mode.ARMED, 1, rearm=TRIPPED, error="follower_left: no servo answers")
    assert (command.rearm, command.mode, command.hold_cause) == (False, Mode.HOLD, "follower_left: no servo answers")


@pytest.mark.parametrize("mode", [Mode.PARK, Mode.IDLE, Mode.HOLD, Mode.FAULT])
def test_leaders_in_the_hands_of_a_person_get_torque_before_they_can_be_let_go(mode: Mode) -> None:
    leaders = armed(Arms("leader"))
    leaders.turn(Mode.TELEOP, 5)
    leaders.present = leaders.present + 0.2
    command = leaders.turn(mode, 1, "sleep" if mode is Mode.PARK else "")
    assert command.torque is Torque.ON
    assert np.abs(command.goal - leaders.present).max() < 0.01


def test_an_arm_outside_its_limits_gets_no_torque_and_is_named(arms: Arms) -> None:
    arms.present = ASLEEP.copy()
    arms.present[2] = 2.5
    command = arms.turn(Mode.ARMED, 1, "start")
    assert command.torque is Torque.OFF
    assert command.goal is None
    assert "left_elbow" in command.hold_cause


@pytest.mark.parametrize("mode", [Mode.TELEOP, Mode.POLICY, Mode.ARMED, Mode.PARK])
def test_a_servo_in_error_stops_both_arms_in_the_cycle_that_hears_of_it(mode: Mode) -> None:
    """No word of the supervisor is waited for, and none of before takes the motion up again."""
    arms = armed(Arms("follower"))
    pose = {Mode.ARMED: "start", Mode.PARK: "sleep"}.get(mode, "")
    away = arms.present + 0.3
    before = arms.turn(mode, 30, pose, action=away).goal
    stopped = arms.turn(mode, 1, pose, action=away, error="left_elbow: overload")
    assert (stopped.mode, stopped.hold_cause) == (Mode.HOLD, "left_elbow: overload")
    assert stopped.goal == pytest.approx(before)
    assert arms.turn(mode, 50, pose, action=away, error="left_elbow: overload").goal == pytest.approx(before)
    assert arms.turn(mode, 50, pose, action=away).goal == pytest.approx(before)
    assert arms.turn(Mode.FAULT, 5).torque is Torque.ON


def test_servos_that_no_longer_obey_are_a_hold_and_arming_switches_them_on_again() -> None:
    followers = armed(Arms("follower"))
    assert followers.turn(Mode.TELEOP, 1, rearm=TRIPPED).hold_cause == TRIPPED
    followers.turn(Mode.HOLD, 5, rearm=TRIPPED)
    followers.held = followers.present.copy()
    followers.present = followers.present - 0.03  # they sag under what they hold
    assert followers.turn(Mode.ARMED, 1, rearm=TRIPPED).rearm
    command = followers.turn(Mode.ARMED, 1)
    assert command.goal == pytest.approx(followers.held, abs=1e-9)
    assert command.hold_cause == ""


@pytest.mark.parametrize("pose", ["start", ""])
def test_motion_begins_at_the_goals_that_the_servos_hold_and_when_they_have_torque(arms: Arms, pose: str) -> None:
    """Not at a reading of before: torque may have changed what the servos say, here by nearly a whole turn."""
    arms.present[0] = 3.135
    arms.held = arms.present.copy()
    arms.held[0] = -3.115
    first = arms.turn(Mode.ARMED, 1, pose, stuck=True)
    assert not first.settled
    arms.present[0] = -3.12
    goals = [arms.turn(Mode.ARMED, 1, pose, stuck=True).goal for _ in range(20)]
    assert goals[0][0] == pytest.approx(-3.115, abs=0.01)
    assert all(goal[0] < -3.0 for goal in goals)
    assert (goals[-1][0] > -3.115 + 0.02) == bool(pose)


def test_arms_that_hold_because_their_switch_found_them_elsewhere_keep_the_torque_that_they_got() -> None:
    followers = Arms("follower")
    followers.turn(Mode.IDLE)
    followers.held = followers.present.copy()
    followers.held[2] -= 0.3
    assert followers.turn(Mode.ARMED, pose="start").rearm
    command = followers.turn(Mode.ARMED, 3, pose="start")
    assert "was moved" in command.hold_cause
    assert (command.mode, command.torque, command.rearm) == (Mode.HOLD, Torque.ON, False)


def test_what_waits_for_torque_does_not_begin_without_it(arms: Arms) -> None:
    """One arm of the pair could not be switched: the other one stays where it is."""
    pilot, now_ns = arms.pilot, arms.now_ns + CYCLE_NS
    order = ModeHeartbeat(stamp_ns=now_ns, mode=Mode.ARMED, pose="start", order_ns=now_ns, asked_ns=now_ns)
    assert pilot.step(now_ns, [order], arms.present, None).rearm
    held = arms.present.copy()
    held[7:] = np.nan
    pilot.switched(now_ns, held, done=False)
    for _ in range(50):
        now_ns += CYCLE_NS
        command = pilot.step(now_ns, [], arms.present, None, "follower_right: no servo answers")
        assert command.mode is Mode.HOLD
        assert command.goal == pytest.approx(arms.present)


def test_leaders_that_hold_goals_keep_them_when_their_grippers_get_torque() -> None:
    leaders = armed(Arms("leader"))
    before = leaders.last.goal
    assert leaders.last.torque is Torque.GRIPPERS_FREE
    leaders.held = leaders.present.copy()
    leaders.present = leaders.present - 0.03
    held = leaders.turn(Mode.HOLD, 3, stuck=True)
    assert held.torque is Torque.ON
    assert held.goal[~IS_GRIPPER] == pytest.approx(before[~IS_GRIPPER])


def test_an_order_that_comes_with_the_arming_waits_for_torque_too() -> None:
    followers, now_ns = Arms("follower"), 0
    followers.turn(Mode.IDLE)
    pilot, now_ns = followers.pilot, followers.now_ns + CYCLE_NS
    orders = [
        ModeHeartbeat(stamp_ns=now_ns + n, mode=mode, order_ns=now_ns + n, asked_ns=now_ns + n)
        for n, mode in enumerate((Mode.ARMED, Mode.TELEOP))
    ]
    assert pilot.step(now_ns + 1, orders, followers.present, None).rearm
    pilot.switched(now_ns + 1, followers.present, done=True)
    for _ in range(8):
        now_ns += 20 * MS
        target = Target(followers.present + 0.05, now_ns, now_ns // (20 * MS), CYCLE_NS)
        command = pilot.step(now_ns, [], followers.present, target)
    assert command.mode is Mode.TELEOP
    assert command.goal[0] > followers.present[0] + 0.02


@pytest.mark.parametrize("torque", [Torque.OFF, Torque.ON])
@pytest.mark.parametrize("mode", STANDING)
def test_torque_that_a_stop_of_the_same_cycle_overtakes_is_not_switched(arms: Arms, mode: Mode, torque: Torque) -> None:
    arms = Arms(arms.role, torque)
    before = arms.turn(Mode.IDLE)
    command = arms.pilot.step(
        arms.now_ns + CYCLE_NS, heard_together(arms.now_ns, Mode.ARMED, mode), arms.present, None, TRIPPED
    )
    assert (command.mode, command.torque, command.rearm) == (mode, before.torque, False)
    later = arms.pilot.step(arms.now_ns + 2 * CYCLE_NS, [], arms.present, None, TRIPPED)
    assert (later.torque, later.rearm) == (before.torque, False)


def test_leaders_that_a_person_holds_get_torque_when_a_stop_overtakes_their_arming() -> None:
    leaders = armed(Arms("leader"))
    leaders.turn(Mode.TELEOP, 5)
    orders = heard_together(leaders.now_ns, Mode.ARMED, Mode.HOLD)
    assert leaders.pilot.step(leaders.now_ns + CYCLE_NS, orders, leaders.present, None).torque is Torque.ON


def test_an_arming_that_overtakes_the_restart_of_a_gripper_is_carried_out_alone() -> None:
    followers = armed(Arms("follower"))
    now_ns = followers.now_ns
    fault, arm = heard_together(now_ns, Mode.FAULT, Mode.ARMED)
    fault = msgspec.structs.replace(fault, gripper="follower_left")
    command = followers.pilot.step(now_ns + CYCLE_NS, [fault, arm], followers.present, None, TRIPPED)
    assert (command.mode, command.gripper, command.rearm) == (Mode.ARMED, "", True)


def test_servos_are_not_switched_on_again_where_that_would_snap_the_arm_into_its_range() -> None:
    followers = armed(Arms("follower"))
    goal = followers.turn(Mode.HOLD, 5, rearm=TRIPPED).goal
    inside = followers.present.copy()
    followers.present[1] = default_limits().high[1] + 0.15  # somebody has pushed it out, and still does
    command = followers.turn(Mode.ARMED, 5, rearm=TRIPPED)
    assert "left_shoulder stands at" in command.hold_cause
    assert (command.rearm, command.torque, command.settled) == (False, Torque.ON, False)
    assert np.abs(command.goal - goal).max() < 0.05  # it yields to the push, slowly, as under any
    followers.present = inside
    followers.turn(Mode.HOLD, 1, rearm=TRIPPED)
    assert followers.turn(Mode.ARMED, 1, rearm=TRIPPED).rearm


@dataclass(frozen=True)
class Step:
    """Some cycles of one mode."""

    mode: Mode
    count: int
    pose: str
    heard: bool
    rearm: str
    push: float


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(list(Mode)),
        st.sampled_from([1, 2, 10, 60]),
        st.sampled_from(["", "start"]),
        st.booleans() | st.just(True),
        st.sampled_from(["", "", "", TRIPPED]),
        st.sampled_from([0.0, 0.0, 0.3]),
    ),
    max_size=12,
)
roles = st.sampled_from(["follower", "leader"])


def play(role: Role, torque: Torque, plan: list[Step], carries: bool = False) -> Arms:
    """Any plan, with actions that always come; a push moves arms without torque only."""
    arms = Arms(role, torque, carries=carries)
    for step in plan:
        pose = "sleep" if step.mode is Mode.PARK else step.pose if step.mode is Mode.ARMED else ""
        if arms.pilot.torque in LIMP:
            arms.present = arms.present + np.where(IS_GRIPPER, 0.0, step.push * 0.1)
        arms.turn(step.mode, step.count, pose, step.heard, step.rearm, action=ASLEEP + 0.3)
    return arms


@settings(max_examples=150)
@given(role=roles, plan=steps, carries=st.booleans())
def test_torque_goes_only_where_the_rules_allow(role: Role, plan: list[Step], carries: bool) -> None:
    arms = play(role, Torque.OFF, plan, carries)
    before = Torque.OFF
    for command in arms.commands:
        if command.torque is not before:
            if command.torque is Torque.OFF:
                assert command.mode is Mode.PARK or (role == "leader" and command.mode is Mode.TELEOP)
            elif before is Torque.OFF:
                taken_back = role == "leader" and command.mode in STANDING
                assert command.mode is Mode.ARMED or taken_back
            if command.torque is Torque.GRIPPERS_FREE:
                assert role == "leader"
                assert command.mode is Mode.ARMED
            if command.torque is Torque.CARRYING:
                assert carries
                assert role == "leader"
                assert command.mode is Mode.TELEOP
        assert (command.goal is None) == (command.torque in LIMP)
        before = command.torque


@settings(max_examples=150)
@given(role=roles, plan=steps, carries=st.booleans())
def test_no_goal_jumps_from_where_the_arm_is(role: Role, plan: list[Step], carries: bool) -> None:
    limits = default_limits(role)
    arms = play(role, Torque.OFF, plan, carries)
    goal: Vector | None = None
    for command in arms.commands:
        if command.goal is not None and goal is not None and not command.rearm:
            assert (np.abs(command.goal - goal) <= limits.velocity * 2 * CYCLE_NS * 1e-9 + 1e-9).all()
        goal = command.goal


@settings(max_examples=100)
@given(role=roles, plan=steps)
def test_without_arming_nothing_ever_moves_or_loses_torque(role: Role, plan: list[Step]) -> None:
    plan = [step for step in plan if step.mode not in (Mode.ARMED, Mode.PARK)]
    arms = play(role, Torque.ON, plan)
    leaders_let_go = role == "leader"
    for command in arms.commands:
        if command.goal is not None:
            assert (command.goal == ASLEEP).all()
        assert command.torque is Torque.ON or leaders_let_go


@settings(max_examples=100)
@given(plan=steps)
def test_followers_move_only_in_modes_of_motion(plan: list[Step]) -> None:
    arms = play("follower", Torque.OFF, plan)
    goal: Vector | None = None
    for command in arms.commands:
        if goal is not None and command.goal is not None and not command.rearm and command.mode in STANDING:
            assert (command.goal == goal).all()
        goal = command.goal
