"""The torque of a pair: both arms together, neither late nor lower because of the other, on two emulated chains."""

import numpy as np
import pytest

from aloha_runtime.commands.faults.virtual_arms import Pair
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware.base import ArmSilentError
from aloha_runtime.robot import IS_GRIPPER, SIDE_SLICE, Role, Side
from aloha_runtime.sim.faults import BehindMissing, Faults, GoalAtTorque, GoalAtTrip

MS = 1_000_000
STILL_RAD = 0.01
ROLES: tuple[Role, ...] = ("follower", "leader")
SIDES: tuple[tuple[Side, Side], ...] = (("left", "right"), ("right", "left"))


def raised(table: Pair) -> np.ndarray:
    """Both arms hold, sagged under their goals; returns the goals."""
    switched = table.pair.torque(True)
    assert switched.failure is None
    table.cycle(switched.goals, 100)
    return switched.goals


@pytest.mark.parametrize("role", ROLES)
def test_both_arms_get_torque_in_the_time_of_one(role: Role) -> None:
    took_ns = []
    for sides in (("left",), ("left", "right")):
        with Pair(role) as table:
            table.pair.arms = {side: table.pair.arms[side] for side in sides}
            began_ns = table.time.now
            assert table.pair.torque(True).failure is None
            took_ns.append(table.time.now - began_ns)
    assert took_ns[1] <= 1.1 * took_ns[0]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("dead", "healthy"), SIDES)
@pytest.mark.parametrize("behind", ["silent", "wait"])
@pytest.mark.parametrize("what", ["power", "servo 1", "servo 5", "servo 9"])
@pytest.mark.parametrize("known", [False, True])
def test_an_arm_is_not_kept_waiting_past_its_watchdog_for_a_dead_one(
    role: Role, dead: Side, healthy: Side, behind: BehindMissing, what: str, known: bool
) -> None:
    faults = Faults(behind_missing=behind)
    with Pair(role, faults) as table:
        goals = raised(table)
        chain = table.wires[dead].chain
        if what == "power":
            chain.cut_power(table.time.now)
        else:
            chain.set_faults(Faults(behind_missing=behind, silent=[int(what[-1])]))
        table.cycle(goals, 30 if known else 1)
        heard: list[int] = []
        wire = table.wires[healthy]
        receive = wire.chain.receive
        wire.chain.receive = lambda data, now_ns, baud: heard.append(now_ns) or receive(data, now_ns, baud)  # type: ignore[method-assign,assignment]
        began_ns = table.time.now
        switched = table.pair.torque(True)
        assert isinstance(switched.failure, ArmSilentError)
        assert f"{role}_{dead}" in str(switched.failure)
        gaps = np.diff([began_ns, *heard, table.time.now])
        assert gaps.max() <= 25 * MS
        assert table.time.now - began_ns <= 90 * MS
        assert table.registers(healthy, reg.BUS_WATCHDOG) == [5] * 9
        assert table.registers(healthy, reg.TORQUE_ENABLE) == [1] * 9
        assert switched.goals[SIDE_SLICE[healthy]] == pytest.approx(goals[SIDE_SLICE[healthy]])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at_torque", ["keep", "present"])
def test_repeated_switches_and_reconnects_let_no_arm_creep(role: Role, at_torque: GoalAtTorque) -> None:
    """A hundred times each: torque again, other torque and back, a new driver before the watchdog trips."""
    with Pair(role, Faults(goal_at_torque=at_torque)) as table:
        goals = raised(table)
        begin = {side: table.angles(side) for side in table.wires}
        for _ in range(100):
            switched = table.pair.torque(True)
            assert switched.goals[~IS_GRIPPER] == pytest.approx(goals[~IS_GRIPPER])
            table.cycle(switched.goals, 5)
            switched = table.pair.torque(True, grippers=False)
            table.cycle(switched.goals, 5)
        for side in table.wires:
            assert np.abs(table.angles(side) - begin[side]).max() <= STILL_RAD


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at_trip", ["keep", "present"])
def test_watchdogs_that_tripped_and_are_set_again_let_no_arm_creep(role: Role, at_trip: GoalAtTrip) -> None:
    with Pair(role, Faults(goal_at_trip=at_trip)) as table:
        goals = raised(table)
        begin = {side: table.angles(side) for side in table.wires}
        for _ in range(30):
            table.leave(150)
            table.cycle(goals, 100)
            assert "watchdog" in table.pair.rearm_cause()
            switched = table.pair.torque(True)
            assert switched.failure is None
            table.cycle(switched.goals, 100)
            for side in table.wires:
                assert np.abs(table.angles(side) - begin[side])[:6].max() <= STILL_RAD


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at_trip", ["keep", "present"])
@pytest.mark.parametrize("pause_ms", [0, 600])
def test_programs_that_restart_let_no_arm_creep(role: Role, at_trip: GoalAtTrip, pause_ms: int) -> None:
    with Pair(role, Faults(goal_at_trip=at_trip)) as table:
        raised(table)
        begin = {side: table.angles(side) for side in table.wires}
        for _ in range(20):
            table.pair.disconnect()
            table.leave(pause_ms)
            table.connect()
            switched = table.pair.torque(True)
            assert switched.failure is None
            table.cycle(switched.goals, 100)
            for side in table.wires:
                assert np.abs(table.angles(side) - begin[side])[:6].max() <= STILL_RAD


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at_trip", ["keep", "present"])
@pytest.mark.parametrize("lead_rad", [0.02, 0.09, 1.0])
def test_a_new_program_resumes_no_motion_of_a_dead_one(role: Role, at_trip: GoalAtTrip, lead_rad: float) -> None:
    """The goal that it was given last is far ahead when the watchdog trips; the arm goes no further than one sag."""
    with Pair(role, Faults(goal_at_trip=at_trip)) as table:
        goals = raised(table)
        goals[0] += lead_rad
        table.cycle(goals, 2)
        table.leave(600)  # the trip lets it sag once more
        here = {side: table.angles(side) for side in table.wires}
        table.pair.disconnect()
        table.connect()
        table.cycle(None, 100)
        assert table.pair.holding()
        assert table.registers("left", reg.BUS_WATCHDOG) == [5] * 9
        for side in table.wires:
            assert np.abs(table.angles(side) - here[side]).max() <= 0.08 + STILL_RAD


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("fault", ["overload", "silent"])
@pytest.mark.parametrize("faulty", [1, 3, 4, 9])
def test_arms_beside_a_fault_stay_for_ten_minutes_of_retries(role: Role, fault: str, faulty: int) -> None:
    """1200 retries; the time between them passes without anything on the wire but its feeding."""
    with Pair(role) as table:
        goals = raised(table)
        begin = table.angles("right")
        left = table.wires["left"].chain
        if fault == "overload":
            left.raise_error(faulty, 0x20)
        else:
            left.set_faults(Faults(silent=[faulty]))
        for _ in range(200):
            switched = table.pair.torque(True)
            assert switched.failure is not None
            right = switched.goals[SIDE_SLICE["right"]]
            table.cycle(np.where(np.isfinite(switched.goals), switched.goals, goals), 1)
            table.time.now += 60 * MS
        assert np.abs(table.angles("right") - begin).max() <= STILL_RAD
        assert right == pytest.approx(goals[SIDE_SLICE["right"]])
        torque = table.registers("left", reg.TORQUE_ENABLE)
        assert [on for servo, on in enumerate(torque, 1) if servo != faulty] == [1] * 8
