"""arms, turn by turn, over a pair of arms of the test's: what happens when the servos cannot be told or read."""

import time

import numpy as np
import pytest
from process_fakes import fake_service

from aloha_runtime import messages
from aloha_runtime.config import DeployConfig
from aloha_runtime.control.gate import GateTiming
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.pilot import Pilot, Torque
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmSilentError, Switched
from aloha_runtime.hardware.pair import PairReading
from aloha_runtime.messages import MS, Action, ArmsState, Mode, ModeHeartbeat
from aloha_runtime.processes.arms import TORQUE_RETRY_NS, ArmsLoop
from aloha_runtime.robot import START_POSE, Role, Vector, pose_vector
from aloha_runtime.stillness import Stillness

START = pose_vector(START_POSE, 0.0)
PERIOD_NS = 5 * MS


class FakePair:
    """Arms that are where their goal is. `broken`: what `torque` raises; `lost`: no readings."""

    def __init__(self) -> None:
        self.position = START.copy()
        self.goals: list[Vector | None] = []
        self.switched: list[tuple[bool, bool | None]] = []
        self.broken = self.twist = ""
        self.held: Vector | None = None
        """The goals that the servos hold after a switch; None: where they are."""
        self.lost = False
        self.rearm = "torque is off"
        self.errors: dict[str, int] = {}
        self.silence = ""
        self.asked_ns = 0
        self.celsius: dict[str, float] = {}
        self.blind = 0.0, ""
        self.effort = np.zeros(14)

    def reading(self, now_ns: int) -> PairReading:
        zero = np.zeros(14)
        return PairReading(now_ns, self.position.copy(), self.position.copy(), zero, self.effort, self.errors)

    def cycle(self, goal: Vector | None, deadline_ns: int, currents_ma: Vector | None = None) -> PairReading | None:
        assert deadline_ns > self.asked_ns, "the deadline is on the monotonic clock, and ahead"
        self.goals.append(goal)
        self.currents = currents_ma
        if goal is not None and not self.rearm:
            self.position = goal.copy()
        return None if self.lost else self.reading(self.now_ns)

    def newest(self) -> PairReading:
        return self.reading(self.now_ns)

    def torque(self, on: bool, grippers: bool | None = None, again: bool = False) -> Switched:
        held = self.position if self.held is None else self.held
        if self.broken:
            kind = ArmSilentError if "no servo answers" in self.broken else HardwareError
            return Switched(held.copy(), kind(self.broken))
        self.switched.append((on, grippers))
        self.rearm = "" if on else "torque is off"
        return Switched(held.copy())

    def turned(self) -> str:
        return self.twist

    def names(self) -> list[str]:
        return []

    def rearm_cause(self) -> str:
        return self.rearm

    def holding(self) -> bool:
        return False

    def silent(self, now_ns: int, longer_than_ns: int, stillness: Stillness) -> str:
        self.stillness = stillness
        return self.silence

    def temperatures(self) -> dict[str, float]:
        return self.celsius

    def unknown(self) -> tuple[float, str]:
        return self.blind

    def describe(self, errors: dict[str, int]) -> str:
        return ", ".join(errors)


class Scene:
    """One arms process; `turn` runs cycles under a mode."""

    def __init__(self, role: Role, shadow: bool = False) -> None:
        self.service = fake_service(f"arms@{role}s")
        care = DeployConfig(shadow=shadow)
        self.service.rig = self.service.rig.model_copy(update={"deploy": care})
        self.clock = self.service.clock
        self.loop = ArmsLoop(self.service)
        self.pair = FakePair()
        self.pair.now_ns = self.clock.now  # type: ignore[attr-defined]
        self.loop.pair = self.pair  # type: ignore[assignment]
        self.loop.reading = self.pair.reading(self.clock.now)
        timing = GateTiming(period_ns=PERIOD_NS)
        rig = self.service.rig
        self.loop.pilot = Pilot(
            role, default_limits(role), START_POSE, rig.sleep_pose(role), START, self.clock.now, Torque.OFF, timing
        )
        self.loop.torque = Torque.OFF
        self.loop.torque_trouble, self.loop.retry_ns, self.loop.tried = "", 0, Torque.OFF
        self.loop.fault = self.loop.trouble = ""
        self._mode, self._order_ns = Mode.IDLE, 0

    def turn(self, mode: Mode, count: int = 1, pose: str = "", action: Vector | None = None) -> ArmsState:
        if mode is not self._mode:
            self._mode, self._order_ns = mode, self.clock.now
        for _ in range(count):
            self.clock.now += PERIOD_NS
            self.pair.now_ns = self.clock.now  # type: ignore[attr-defined]
            order = {"order_ns": self._order_ns, "asked_ns": self._order_ns}
            heartbeat = ModeHeartbeat(stamp_ns=self.clock.now, mode=mode, pose=pose, **order)
            self.service.bus.put(messages.MODE, heartbeat)
            if action is not None:
                sent = Action(stamp_ns=self.clock.now, tick=self.clock.now // 20_000_000, position=action.tolist())
                self.service.bus.put(messages.ACTION_TOPIC[mode], sent)
            self.pair.asked_ns = time.monotonic_ns()
            self.loop.cycle(self.clock.now)
        return self.sent[-1]

    @property
    def sent(self) -> list[ArmsState]:
        return self.service.bus.publishers[self.loop.state.topic.name].sent


@pytest.fixture
def followers() -> Scene:
    return Scene("follower")


@pytest.fixture
def leaders() -> Scene:
    return Scene("leader")


def test_no_goal_without_torque_and_torque_with_arming(followers: Scene) -> None:
    followers.turn(Mode.IDLE, 20)
    assert followers.pair.goals == [None] * 20
    state = followers.turn(Mode.ARMED, 1, "start")
    assert followers.pair.switched == [(True, True)]
    assert state.goal is None, "where the arms are to be is what the servos say once they have torque"
    assert not state.settled
    assert followers.turn(Mode.ARMED, 1, "start").goal == pytest.approx(START.tolist(), abs=0.01)


@pytest.mark.parametrize("pose", ["start", ""])
def test_goals_after_a_switch_are_those_that_the_servos_hold(followers: Scene, pose: str) -> None:
    """A waist that a hand has turned beyond half a turn says another angle with torque than without."""
    followers.pair.position[0] = 3.15
    followers.turn(Mode.IDLE, 5)
    followers.pair.held = followers.pair.position.copy()
    followers.pair.held[0] = -3.1
    followers.turn(Mode.ARMED, 1, pose)
    followers.pair.position[0] = -3.13  # it sags
    followers.turn(Mode.ARMED, 10, pose)
    goals = [goal for goal in followers.pair.goals if goal is not None]
    assert goals[0][0] == pytest.approx(-3.1, abs=0.01)
    assert max(goal[0] for goal in goals) < -3.0


def test_healthy_arms_do_not_creep_while_the_torque_of_another_one_is_tried_again(leaders: Scene) -> None:
    leaders.turn(Mode.ARMED, 400, "start")
    leaders.turn(Mode.TELEOP, 10)
    leaders.pair.held = leaders.pair.position.copy()
    leaders.pair.broken = "leader_left: servo 4 (elbow) does not take Torque_Enable 1"
    held = leaders.pair.held.copy()
    for _ in range(20):
        leaders.pair.position = held - 0.03  # they sag, whatever is sent
        goal = leaders.turn(Mode.HOLD, TORQUE_RETRY_NS // PERIOD_NS // 4).goal
        assert goal is None or goal == pytest.approx(held.tolist(), abs=1e-9)
    assert leaders.loop.torque is None


def test_a_joint_that_was_turned_is_held_and_not_led(followers: Scene) -> None:
    followers.pair.twist = "follower_left: waist was turned"
    followers.turn(Mode.ARMED, 1, "start")
    state = followers.turn(Mode.ARMED, 50, "start")
    assert (state.mode, state.hold_cause) == (Mode.HOLD, followers.pair.twist)
    assert followers.pair.switched == [(True, True)]
    assert all(goal == pytest.approx(START) for goal in followers.pair.goals if goal is not None)


def test_followers_follow_the_topic_of_the_mode_only(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    goal = START.copy()
    goal[0] = 0.05
    other = Action(stamp_ns=followers.clock.now, tick=0, position=(START + 1).tolist())
    followers.service.bus.put(messages.ACTION_POLICY, other)
    state = followers.turn(Mode.TELEOP, 60, action=goal)
    assert state.goal == pytest.approx(goal.tolist(), abs=1e-3)
    assert state.target == pytest.approx(goal.tolist())
    assert state.action_stamp_ns == followers.clock.now


def test_a_leader_adapter_gone_in_teleop_ends_nothing_and_is_asked_again(leaders: Scene) -> None:
    leaders.turn(Mode.ARMED, 400, "start")
    leaders.turn(Mode.TELEOP, 10)
    assert leaders.pair.switched[-1] == (False, False)
    leaders.pair.broken = "leader_left: /dev/ttyDXL_leader_left is not connected"
    state = leaders.turn(Mode.HOLD)
    assert state.hold_cause == leaders.pair.broken
    count = len(leaders.pair.switched)
    leaders.turn(Mode.HOLD, TORQUE_RETRY_NS // PERIOD_NS - 2)
    leaders.pair.broken = ""
    leaders.turn(Mode.HOLD, 3)
    assert leaders.pair.switched[count:] == [(True, True)]  # a person may let go of them now
    assert leaders.turn(Mode.HOLD).hold_cause == ""


def test_torque_that_an_arm_without_power_could_not_get_comes_by_the_next_order_only(leaders: Scene) -> None:
    leaders.turn(Mode.ARMED, 400, "start")
    leaders.turn(Mode.TELEOP, 10)
    leaders.pair.broken = "leader_left: no servo answers, so torque cannot be switched"
    assert leaders.turn(Mode.HOLD).hold_cause == leaders.pair.broken
    count = len(leaders.pair.switched)
    leaders.pair.broken = ""
    state = leaders.turn(Mode.HOLD, 3 * TORQUE_RETRY_NS // PERIOD_NS)
    assert leaders.pair.switched[count:] == []
    assert "no servo answers" in state.hold_cause
    leaders.turn(Mode.ARMED, 5)
    assert leaders.pair.switched[count:] == [(True, True)]
    assert leaders.turn(Mode.ARMED).hold_cause == ""


def test_arming_after_an_adapter_was_gone_ramps_to_the_start_pose_before_it_is_settled(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    away = START.copy()
    away[0] = 0.5
    followers.turn(Mode.TELEOP, 200, action=away)
    followers.pair.rearm = "the adapter was unplugged and is back"
    followers.pair.broken = "follower_left: /dev/ttyDXL_follower_left was lost while switching torque"
    followers.turn(Mode.HOLD)
    followers.turn(Mode.ARMED, 1, "start")  # in vain
    followers.turn(Mode.HOLD)
    followers.pair.broken = ""
    state = followers.turn(Mode.ARMED, 5, "start")
    assert followers.pair.position[0] > 0.4
    assert not state.settled
    assert followers.turn(Mode.ARMED, 400, "start").settled
    assert followers.pair.position[0] == pytest.approx(START[0], abs=0.01)


def test_arming_with_an_adapter_gone_is_a_hold_with_its_name(followers: Scene) -> None:
    followers.pair.broken = "follower_left: /dev/ttyDXL_follower_left is not connected"
    state = followers.turn(Mode.ARMED, 1, "start")
    assert state.hold_cause == followers.pair.broken
    assert not state.settled


def test_an_incomplete_cycle_is_published_as_invalid_with_the_last_position(followers: Scene) -> None:
    before = followers.turn(Mode.IDLE)
    followers.pair.lost = True
    state = followers.turn(Mode.IDLE)
    assert before.valid
    assert not state.valid
    assert state.position == before.position
    assert followers.loop.counts["incomplete_cycles"] == 1


def test_an_arm_that_answers_is_led_from_where_it_is_while_the_other_one_is_silent(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    target = START.copy()
    target[7] = 1.0
    followers.turn(Mode.TELEOP, 20, action=target)
    followers.pair.lost = True
    goal = followers.turn(Mode.TELEOP, 15, action=target).goal
    assert goal is not None
    assert goal[7] > 0.25  # it goes on, at most the lead beyond where it stands; from a reading of before it would stay
    assert followers.loop.reading.present[7] == pytest.approx(goal[7], abs=0.02)


def test_the_turns_of_the_loop_are_what_a_silence_is_judged_by(
    followers: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = [time.monotonic_ns()]
    monkeypatch.setattr("aloha_runtime.processes.arms.time.monotonic_ns", lambda: now_ns[0])
    for gap_ms in (5, 5, 140, 5):
        now_ns[0] += gap_ms * MS
        followers.turn(Mode.IDLE)
    assert followers.pair.stillness.lost_ns(now_ns[0] - 400 * MS, now_ns[0]) == 140 * MS
    followers.turn(Mode.ARMED, 10)
    silent = "the supervisor is silent; see whether it runs, then arm again"
    followers.loop.pilot._cause = silent
    assert followers.turn(Mode.ARMED).hold_cause.startswith("this computer stood still for 140 ms")


def test_a_servo_error_is_a_fault_and_silence_a_hold(followers: Scene) -> None:
    followers.pair.silence = "follower_right: elbow silent for 130 ms; check the cable into the first of them"
    state = followers.turn(Mode.IDLE)
    assert (state.hold_cause, state.fault) == (followers.pair.silence, False)
    followers.pair.errors = {"right_elbow": 0x20}
    state = followers.turn(Mode.IDLE)
    assert (state.hold_cause, state.fault) == ("right_elbow", True)


AWAY = START + 0.3 * np.array([1.0, *[0.0] * 13])


@pytest.mark.parametrize("mode", [Mode.ARMED, Mode.TELEOP, Mode.POLICY, Mode.REPLAY, Mode.PARK])
@pytest.mark.parametrize("trouble", ["servo error", "silent servo", "torque lost"])
def test_what_is_wrong_with_the_arms_holds_them_before_the_supervisor_has_heard(mode: Mode, trouble: str) -> None:
    """Not the next action and not the next heartbeat of the same order: both have come when the goal is looked at."""
    followers = Scene("follower")
    followers.turn(Mode.ARMED, 400, "start")
    pose = {Mode.PARK: "sleep", Mode.ARMED: "start"}.get(mode, "")
    if mode is Mode.ARMED:
        followers.turn(Mode.HOLD)
        followers.pair.position = AWAY.copy()
        followers.turn(Mode.HOLD)  # it is seen where they are now
        followers.pair.rearm = "a tripped watchdog"
    action = None if mode in (Mode.ARMED, Mode.PARK) else AWAY
    before = followers.turn(mode, 30, pose, action=action)
    assert before.mode is mode
    if trouble == "servo error":
        followers.pair.errors = {"right_elbow": 0x20}
        cause = "right_elbow"
    elif trouble == "silent servo":
        cause = followers.pair.silence = "follower_right: elbow silent for 130 ms; check the cable into the first"
    else:
        cause = followers.pair.rearm = "servo 3 (shoulder_shadow) has lost its torque (a power cut?)"
    state = followers.turn(mode, 2, pose, action=action)
    assert (state.mode, state.hold_cause) == (Mode.HOLD, cause)
    goal = state.goal
    followers.pair.errors, followers.pair.silence, followers.pair.rearm = {}, "", ""
    later = followers.turn(mode, 100, pose, action=action)
    assert (later.mode, later.hold_cause, later.goal) == (Mode.HOLD, cause, goal)
    assert later.order_ns == before.order_ns


def test_every_word_of_the_supervisor_is_heard_however_many_come_in_one_cycle(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    followers.turn(Mode.POLICY, 20, action=AWAY)
    goal = followers.sent[-1].goal
    for mode, order_ns in ((Mode.HOLD, followers.clock.now + 1), (Mode.POLICY, followers.clock.now + 2)):
        order = {"order_ns": order_ns, "asked_ns": order_ns}
        followers.service.bus.put(messages.MODE, ModeHeartbeat(stamp_ns=order_ns, mode=mode, **order))
    followers.clock.now += PERIOD_NS
    followers.pair.now_ns = followers.clock.now  # type: ignore[attr-defined]
    followers.loop.cycle(followers.clock.now)
    state = followers.sent[-1]
    assert (state.mode, state.goal) == (Mode.HOLD, goal)
    assert "not been armed since HOLD" in state.hold_cause


def test_no_actions_end_in_a_frozen_goal(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    target = START.copy()
    target[0] = 1.0
    followers.turn(Mode.TELEOP, 20, action=target)
    followers.turn(Mode.TELEOP, 14)  # 70 ms
    frozen = followers.turn(Mode.TELEOP).goal
    assert followers.turn(Mode.TELEOP, 200).goal == frozen
    assert "no action for" in followers.sent[-1].hold_cause


def test_followers_of_a_shadow_obey_no_policy_even_in_its_mode() -> None:
    scene = Scene("follower", shadow=True)
    scene.turn(Mode.ARMED, 200)
    assert messages.ACTION_POLICY.name not in scene.service.bus.subscribers
    assert messages.SHADOW_POLICY.name not in scene.service.bus.subscribers
    scene.turn(Mode.POLICY, 100)
    assert all(np.array_equal(goal, START) for goal in scene.pair.goals if goal is not None)
    assert scene.pair.goals[-1] is not None


def test_a_servo_that_is_nearly_too_hot_ends_the_motion_and_may_be_parked(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    followers.pair.celsius = {"left_elbow_shadow": 75.0, "right_waist": 60.0}
    assert followers.turn(Mode.TELEOP, 40, action=START).hold_cause == ""
    followers.pair.celsius["left_elbow_shadow"] = 76.0
    state = followers.turn(Mode.TELEOP, 40, action=START)
    assert state.hold_cause.startswith("left_elbow_shadow has 76 degrees C (it switches itself off above 80)")
    assert not state.fault
    assert followers.turn(Mode.PARK, 40, "sleep").hold_cause == ""


BLIND = "follower_left: temperature, voltage and watchdog of elbow have not been heard for 2.4 s"


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_arms_of_which_too_little_is_known_are_not_ready_and_hold_after_ten_seconds(role: Role) -> None:
    scene = Scene(role)
    assert scene.turn(Mode.IDLE, 30).unready == ""
    scene.pair.blind = 2.4, BLIND
    assert scene.turn(Mode.IDLE, 30).unready == BLIND
    scene.pair.blind = 0.0, ""
    scene.turn(Mode.ARMED, 400, "start")
    for mode in (Mode.TELEOP, Mode.ARMED):
        action = START if mode is Mode.TELEOP and role == "follower" else None
        scene.pair.blind = 9.9, BLIND
        assert scene.turn(mode, 40, action=action).hold_cause == ""
        scene.pair.blind = 10.1, BLIND
        held = scene.turn(mode, 40, action=action)
        assert (held.mode, held.hold_cause, held.unready) == (Mode.HOLD, BLIND, BLIND)
        scene.pair.blind = 0.0, ""
        scene.turn(Mode.HOLD, 20)
        scene.turn(Mode.ARMED, 40)
    scene.pair.blind = 10.1, BLIND
    assert scene.turn(Mode.PARK, 40, "sleep").mode is Mode.PARK  # blind arms may lie down


def test_a_joint_that_draws_too_much_for_a_second_ends_the_motion(followers: Scene) -> None:
    followers.turn(Mode.ARMED, 400, "start")
    followers.pair.effort[8] = -3600.0
    assert followers.turn(Mode.TELEOP, 195, action=START).hold_cause == ""
    assert followers.turn(Mode.TELEOP, 10, action=START).hold_cause.startswith("right_shoulder has drawn 3600 mA")
    followers.pair.effort[8] = -3400.0
    held = followers.turn(Mode.TELEOP, 5, action=START)
    assert held.mode is Mode.HOLD
    assert held.hold_cause.startswith("right_shoulder has drawn 3600 mA")  # until the next order, however short it was
    followers.turn(Mode.HOLD)
    assert followers.turn(Mode.ARMED, 5).hold_cause == ""
