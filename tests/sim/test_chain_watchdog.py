"""Bus Watchdog of the emulated servos: what feeds it, what a trip does, how it is cleared."""

import pytest
from chain_tools import MS, Bench

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import StatusError


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.torque(1, 9)
    for servo in (1, 9):
        assert bench.write(servo, reg.BUS_WATCHDOG, 5) == 0
    return bench


def test_it_trips_after_its_time_and_stops_the_servo_where_it_is(bench: Bench) -> None:
    bench.write(1, reg.GOAL_POSITION, 2700)
    due = bench.chain.advance(bench.now_ns)
    assert due is not None
    bench.pass_ms(99)
    assert bench.chain.servo(1).watchdog == 5
    bench.pass_ms(3)
    assert bench.chain.servo(1).watchdog == -1
    stopped = bench.angle(0)
    assert 0.05 < stopped < 0.32
    bench.pass_ms(500)
    assert bench.angle(0) == pytest.approx(stopped, abs=0.002)
    assert bench.read(1, reg.BUS_WATCHDOG) == -1
    assert bench.read(1, reg.TORQUE_ENABLE) == 1


def test_the_deadline_it_names_is_the_trip(bench: Bench) -> None:
    heard_ns = bench.now_ns
    bench.talk(packets.read(1, 132, 4))
    due = bench.chain.advance(bench.now_ns)
    assert due == heard_ns + 100 * MS + 1
    bench.chain.advance(due - 1)
    assert bench.chain.servo(1).watchdog == 5
    bench.chain.advance(due)
    assert bench.chain.servo(1).watchdog == -1


def test_any_instruction_feeds_it_and_noise_does_not(bench: Bench) -> None:
    for _ in range(10):
        bench.pass_ms(90)
        bench.talk(packets.ping(6))
    assert bench.chain.servo(9).watchdog == 5
    for _ in range(3):
        bench.pass_ms(50)
        bench.talk(b"\xff\xff\xfd\x00 no packet")
    assert bench.chain.servo(9).watchdog == -1


def test_goals_stay_read_only_until_it_is_written_zero(bench: Bench) -> None:
    bench.pass_ms(110)
    goal = bench.read(1, reg.GOAL_POSITION)
    assert bench.write(1, reg.GOAL_POSITION, 2100) == StatusError.DATA_RANGE
    bench.talk(packets.sync_write(116, 4, [(1, (2100).to_bytes(4, "little"))]))
    assert bench.read(1, reg.GOAL_POSITION) == goal
    assert bench.write(1, reg.BUS_WATCHDOG, 5) == StatusError.DATA_RANGE
    assert bench.write(1, reg.BUS_WATCHDOG, 0) == 0
    assert bench.write(1, reg.GOAL_POSITION, 2100) == 0
    assert bench.write(1, reg.BUS_WATCHDOG, 5) == 0
    assert bench.write(9, reg.GOAL_POSITION, 2100) == StatusError.DATA_RANGE


def test_a_tripped_servo_stands_whatever_its_goal_until_it_is_cleared(bench: Bench) -> None:
    bench.pass_ms(110)
    stopped = bench.angle(0)
    bench.chain.poke(1, reg.GOAL_POSITION, 2700)  # firmware that keeps the goal it had before the trip
    bench.pass_ms(500)
    assert bench.angle(0) == pytest.approx(stopped, abs=0.002)
    bench.write(1, reg.BUS_WATCHDOG, 0)
    bench.pass_ms(500)
    assert bench.angle(0) > stopped + 0.5


def test_without_torque_it_rests(bench: Bench) -> None:
    for servo in (1, 9):
        bench.write(servo, reg.TORQUE_ENABLE, 0)
    bench.pass_ms(500)
    assert bench.chain.servo(1).watchdog == 5


def test_a_packet_that_comes_too_late_finds_it_tripped(bench: Bench) -> None:
    bench.now_ns += 150 * MS
    assert bench.write(1, reg.GOAL_POSITION, 2100) == StatusError.DATA_RANGE
