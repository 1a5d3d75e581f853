"""Which goals servos hold when they get torque, on the wire of an emulated chain: none that moves a joint."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aloha_runtime.commands.faults.virtual_arms import LEAD_RAD, SingleArm, virtual_time
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware.dynamixel_stance import ADDRESS, LIMIT_SLACK_TICKS, SIZE, State, hold_driven
from aloha_runtime.hardware.steps import finish
from aloha_runtime.robot import JOINTS, RAD_PER_TICK, SERVOS, Role
from aloha_runtime.sim.faults import BehindMissing, Faults, GoalAtTorque

SAG_RAD = 0.08
ROLES: tuple[Role, ...] = ("follower", "leader")
EVERY_JOINT = st.sampled_from(JOINTS)
TICKS = st.integers(-8192, 8192)
OFFSETS = st.integers(-1024, 1024) | st.integers(-1_044_479, 1_044_479)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("at_torque", ["keep", "present"])
@given(joint=EVERY_JOINT, ticks=TICKS, offset=st.just(0) | OFFSETS)
@example(joint="waist", ticks=4135, offset=0)
@example(joint="waist", ticks=-3, offset=0)
@example(joint="forearm_roll", ticks=4096, offset=0)
@example(joint="wrist_rotate", ticks=8192, offset=-512)
@example(joint="waist", ticks=4090, offset=1024)
@example(joint="waist", ticks=2000, offset=1025)
@settings(max_examples=40, deadline=None)
def test_torque_moves_no_joint_wherever_a_hand_has_turned_it(
    role: Role, at_torque: GoalAtTorque, joint: str, ticks: int, offset: int
) -> None:
    bus = SingleArm(role, Faults(goal_at_torque=at_torque))
    index = JOINTS.index(joint)
    servos = [servo for servo in SERVOS[role] if servo.joint == joint]
    with virtual_time(bus.time):
        for servo in servos:
            bus.chain.poke(servo.id, reg.HOMING_OFFSET, offset)
        bus.get(1, reg.PRESENT_POSITION)  # the chain has its power since before the hand came
        bus.turn(index, ticks)
        before = bus.plant.angles[index]
        outcome = finish(bus.switch.switch(True, True))
        held = [bool(bus.get(servo.id, reg.TORQUE_ENABLE)) for servo in servos]
        others = [servo.id for servo in SERVOS[role] if servo.joint != joint]
        assert all(bus.get(servo_id, reg.TORQUE_ENABLE) for servo_id in others)
        if outcome.troubles:
            assert held == [False] * len(servos)
            assert f"servo {servos[0].id} ({joint}) is at tick" in " ".join(outcome.troubles)
            return
        assert held == [True] * len(servos)
        for servo in servos:
            goal, present = bus.get(servo.id, reg.GOAL_POSITION), bus.get(servo.id, reg.PRESENT_POSITION)
            slack = 0 if servo.min_tick <= present <= servo.max_tick else LIMIT_SLACK_TICKS * RAD_PER_TICK
            assert abs(goal - present) * RAD_PER_TICK <= 0.01 + slack
            assert abs(goal - present) * RAD_PER_TICK <= LEAD_RAD + RAD_PER_TICK
        bus.pass_ms(300)
        assert abs(bus.plant.read(bus.time.now).angles[index] - before) <= SAG_RAD + slack
        tick = outcome.ticks[servos[0].id]
        assert tick == bus.get(servos[0].id, reg.GOAL_POSITION)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("behind", ["silent", "wait"])
@pytest.mark.parametrize("dead", range(1, 10))
def test_one_dead_servo_leaves_the_others_their_torque(role: Role, behind: BehindMissing, dead: int) -> None:
    """Whichever it is, known before or found out on the way."""
    for known in ((), (dead,)):
        bus = SingleArm(role, Faults(silent=[dead], behind_missing=behind))
        with virtual_time(bus.time):
            began_ns = bus.time.now
            outcome = finish(bus.switch.switch(True, True, known))
            assert outcome.silent == [dead]
            assert not outcome.troubles
            assert (bus.time.now - began_ns) / 1e6 < (90 if not known else 40)
            torque = {servo.id: bus.get(servo.id, reg.TORQUE_ENABLE) for servo in SERVOS[role]}
            assert torque == {servo.id: int(servo.id != dead) for servo in SERVOS[role]}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("faulty", range(1, 10))
def test_one_servo_in_overload_does_not_stop_the_others(role: Role, faulty: int) -> None:
    bus = SingleArm(role)
    with virtual_time(bus.time):
        bus.chain.raise_error(faulty, 0x20)
        for _ in range(3):
            outcome = finish(bus.switch.switch(True, True))
            assert len(outcome.troubles) == 1
            assert f"servo {faulty} " in outcome.troubles[0]
            assert "overload; support the arm" in outcome.troubles[0]
            torque = {servo.id: bus.get(servo.id, reg.TORQUE_ENABLE) for servo in SERVOS[role]}
            assert torque == {servo.id: int(servo.id != faulty) for servo in SERVOS[role]}


def test_a_servo_that_takes_no_watchdog_gets_no_torque() -> None:
    """Writes have no acknowledgement, so what must be there before torque is read back."""
    bus = SingleArm("follower")
    with virtual_time(bus.time):
        servo = bus.chain.servo(7)
        write = servo.write
        servo.write = lambda address, data: 7 if address == reg.BUS_WATCHDOG.address else write(address, data)  # type: ignore[method-assign]
        outcome = finish(bus.switch.switch(True, True))
        assert "servo 7 (wrist_angle) does not take Bus_Watchdog 5: it stays 0" in outcome.troubles[0]
        assert [bus.get(servo.id, reg.TORQUE_ENABLE) for servo in SERVOS["follower"]] == [1, 1, 1, 1, 1, 1, 0, 1, 1]


def test_a_position_that_torque_makes_another_one_is_held_at_once() -> None:
    """Should a firmware fold otherwise than its manual says, the goal becomes what the servo says then."""
    bus = SingleArm("follower")
    with virtual_time(bus.time):
        servo = bus.chain.servo(1)
        fold = servo.fold

        def otherwise() -> None:
            fold()
            bus.plant.angles[0] += 0.5  # as if a hand had pushed it in that moment

        servo.fold = otherwise  # type: ignore[method-assign]
        finish(bus.switch.switch(True, True))
        gap = bus.get(1, reg.GOAL_POSITION) - bus.get(1, reg.PRESENT_POSITION)
        assert abs(gap) * RAD_PER_TICK <= 0.05


@pytest.mark.parametrize("remembered", [3000, 100_000, -2_147_483_647])
def test_a_remembered_goal_moves_no_gripper(remembered: int) -> None:
    """Whatever a file says: a gripper that has torque keeps the goal of its own register."""
    ram = bytearray(SIZE)
    for register, value in ((reg.TORQUE_ENABLE, 1), (reg.BUS_WATCHDOG, -1), (reg.GOAL_POSITION, 2113)):
        at = register.address - ADDRESS
        ram[at : at + register.size] = register.encode(value)
    hold = hold_driven(SERVOS["follower"][-1], State(bytes(ram)), 800, 65, [remembered], grips=True)
    assert hold.goal == 2113
