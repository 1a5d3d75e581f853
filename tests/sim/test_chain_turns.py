"""Present_Position over many turns: where it counts on, when it falls back into one turn, what that does to goals."""

import math

import pytest
from chain_tools import MS, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import RAD_PER_TICK
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.firmware import BOOT_NS

WAIST = 1
TURN = 4096


def turned(ticks: int) -> Bench:
    """An arm whose waist, without torque, a hand has turned until its encoder counted this far."""
    bench = Bench()
    bench.read(WAIST, reg.PRESENT_POSITION)  # it has its power since before the hand came
    bench.plant.angles[0] = (ticks - 2048) * RAD_PER_TICK
    return bench


def present(bench: Bench) -> int:
    return bench.read(WAIST, reg.PRESENT_POSITION)


@pytest.mark.parametrize("mode", [0, 1, 3, 4, 5, 16])
def test_without_torque_the_position_counts_on_in_every_mode(mode: int) -> None:
    bench = Bench()
    bench.write(WAIST, reg.OPERATING_MODE, mode)
    for ticks in (4135, 8192 + 17, -9000):
        bench.plant.angles[0] = (ticks - 2048) * RAD_PER_TICK
        assert present(bench) == ticks


def test_torque_puts_it_into_one_turn_and_an_old_reading_is_a_leap() -> None:
    bench = turned(4135)
    assert present(bench) == 4135
    assert bench.write(WAIST, reg.GOAL_POSITION, 4095) == 0  # a driver's clamp of what it read
    before = bench.angle(0)
    bench.torque(WAIST)
    assert present(bench) == pytest.approx(39, abs=2)
    assert bench.read(WAIST, reg.GOAL_POSITION) == 4095
    bench.pass_ms(4000)
    assert bench.angle(0) - before == pytest.approx((4095 - 39) * RAD_PER_TICK, abs=0.01)


@pytest.mark.parametrize("mode", [4, 5])
def test_torque_does_not_fold_in_modes_of_many_turns(mode: int) -> None:
    bench = turned(4135)
    bench.write(WAIST, reg.OPERATING_MODE, mode)
    bench.plant.angles[0] = (9000 - 2048) * RAD_PER_TICK
    before = present(bench)
    assert before > TURN
    bench.torque(WAIST)
    assert present(bench) == before


def test_a_change_to_a_position_mode_a_reboot_and_a_power_cut_fold() -> None:
    bench = turned(4135)
    bench.write(WAIST, reg.OPERATING_MODE, 0)
    assert present(bench) == 4135
    bench.write(WAIST, reg.OPERATING_MODE, 3)
    assert present(bench) == 39
    bench = turned(-3)
    bench.chain.brown_out(bench.now_ns)
    bench.pass_ms(BOOT_NS / MS + 1)
    assert present(bench) == TURN - 3
    bench = turned(4135)
    bench.chain.cut_power(bench.now_ns)
    bench.plant.angles[0] = (12_300 - 2048) * RAD_PER_TICK  # turned on while it had none
    bench.chain.return_power(bench.now_ns)
    bench.pass_ms(BOOT_NS / MS + 1)
    assert present(bench) == 12_300 - 3 * TURN


def test_the_arm_of_a_public_report_goes_round() -> None:
    """forum.robotis.com, topic 7814: offset -512, at 3700; after torque off and on it reads -396."""
    bench = Bench()
    assert bench.write(WAIST, reg.HOMING_OFFSET, -512) == 0
    bench.plant.angles[0] = (3700 + 512 - 2048) * RAD_PER_TICK
    assert present(bench) == 3700
    bench.torque(WAIST)
    assert present(bench) == -396
    before = bench.angle(0)
    bench.write(WAIST, reg.GOAL_POSITION, 3700)
    bench.pass_ms(4000)
    assert bench.angle(0) - before == pytest.approx(2 * math.pi, abs=0.01)


@pytest.mark.parametrize(("offset", "in_force"), [(1024, 1024), (-1024, -1024), (1025, 0), (-5000, 0)])
def test_position_control_ignores_an_offset_beyond_a_quarter_turn(offset: int, in_force: int) -> None:
    bench = turned(2000)
    assert bench.write(WAIST, reg.HOMING_OFFSET, offset) == 0
    assert present(bench) == 2000 + in_force
    bench.write(WAIST, reg.OPERATING_MODE, 4)
    assert present(bench) == 2000 + offset
    bench.write(WAIST, reg.OPERATING_MODE, 3)
    assert present(bench) == 2000 + in_force


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    start=st.integers(-8192, 8192),
    offset=st.integers(-1024, 1024),
    servo=st.sampled_from([1, 6, 8]),
    by_goal=st.booleans(),
)
def test_after_torque_it_is_the_encoder_within_one_turn_plus_the_offset(
    start: int, offset: int, servo: int, by_goal: bool
) -> None:
    bench = Bench()
    bench.write(servo, reg.HOMING_OFFSET, offset)
    bench.plant.angles[{1: 0, 6: 3, 8: 5}[servo]] = (start - 2048) * RAD_PER_TICK
    assert bench.read(servo, reg.PRESENT_POSITION) == start + offset
    goal = min(4095, max(0, start % TURN + offset))
    if by_goal:
        bench.write(servo, reg.DRIVE_MODE, reg.DRIVE_MODE_TORQUE_BY_GOAL)
        bench.chain.receive(sync_goal(servo, goal), bench.now_ns)
    else:
        bench.write(servo, reg.GOAL_POSITION, goal)
        bench.torque(servo)
    assert bench.read(servo, reg.TORQUE_ENABLE) == 1
    held = bench.read(servo, reg.PRESENT_POSITION)
    assert abs(held - (start % TURN + offset)) <= abs(goal - (start % TURN + offset))
    bench.pass_ms(3000)
    assert bench.read(servo, reg.PRESENT_POSITION) == pytest.approx(goal, abs=20)


def sync_goal(servo: int, tick: int) -> bytes:
    return packets.sync_write(reg.GOAL_POSITION.address, 4, [(servo, reg.GOAL_POSITION.encode(tick))])


@pytest.mark.parametrize("manner", ["keep", "present"])
def test_what_torque_does_to_the_goal_can_be_selected(manner: str) -> None:
    bench = Bench()
    bench.chain.set_faults(Faults(goal_at_torque=manner))  # type: ignore[arg-type]
    assert bench.write(WAIST, reg.GOAL_POSITION, 3000) == 0
    bench.torque(WAIST)
    assert bench.read(WAIST, reg.GOAL_POSITION) == (3000 if manner == "keep" else 2048)


def test_a_servo_that_wakes_has_its_goal_where_it_stands() -> None:
    bench = turned(4135)
    bench.chain.brown_out(bench.now_ns)
    bench.pass_ms(BOOT_NS / MS + 1)
    assert bench.read(WAIST, reg.GOAL_POSITION) == 39
