"""A late reply never answers a later question: no reading is older than its stamp says by more than a cycle."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aloha_runtime.commands.faults.virtual_bus import EVERYBODY, PERIOD_NS, TICK_NS, Arms, Bus, virtual_time
from aloha_runtime.commands.faults.virtual_parts import Time
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import Instruction
from aloha_runtime.hardware.dynamixel_exchange import read_all
from aloha_runtime.messages import MS

READS = (Instruction.SYNC_READ, Instruction.FAST_SYNC_READ)
CYCLES = 120


@pytest.fixture
def time() -> Iterator[Time]:
    with virtual_time() as time:
        yield time


def older_than_its_stamp_ns(arms: Arms, cycles: int) -> list[int]:
    """Of each reading: how much older than its stamp it is, by the servos' own account."""
    return [reading.stamp_ns - reading.sampled_ns for reading in arms.turns(cycles)]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "delay_us", [0, 2_000, 6_000, 9_500, 10_500, 14_000, *range(18_000, 20_001, 250), 27_000, 40_000]
)
def test_a_constant_delay_makes_no_reading_older_than_its_stamp(time: Time, fast: bool, delay_us: int) -> None:
    port = Bus(time)
    arms = Arms(time, [port], fast)
    arms.turns(50)
    port.line.delay_ns = lambda: delay_us * 1000
    assert max(older_than_its_stamp_ns(arms, 400), default=0) <= PERIOD_NS
    port.line.delay_ns = lambda: 0
    arms.turns(100)
    assert max(older_than_its_stamp_ns(arms, 40)) <= PERIOD_NS
    assert [packet.params[2] for packet in port.asked if len(packet.params) > 4][-1] == 10  # the short block again


@settings(max_examples=60, deadline=None)
@example(fast=True, overtaking=False, two=False, least_us=18_000, most_us=20_000, seed=1)
@given(
    fast=st.booleans(),
    overtaking=st.booleans(),
    two=st.booleans(),
    least_us=st.integers(0, 40_000),
    most_us=st.integers(0, 40_000),
    seed=st.integers(0, 1 << 30),
)
def test_no_delay_makes_a_reading_older_than_its_stamp(
    fast: bool, overtaking: bool, two: bool, least_us: int, most_us: int, seed: int
) -> None:
    chance = random.Random(seed)
    with virtual_time() as time:
        ports = [Bus(time, overtaking=overtaking) for _ in range(1 + two)]
        arms = Arms(time, ports, fast)
        for port in ports:
            port.line.delay_ns = lambda: chance.randint(*sorted((least_us, most_us))) * 1000
        assert max(older_than_its_stamp_ns(arms, CYCLES), default=0) <= PERIOD_NS


def goals_of(port: Bus, time: Time) -> list[int]:
    """Present positions as torque switching reads them: how old the answer is by the servos' own account (ns)."""
    asked_ns = time.now
    found = read_all(port, EVERYBODY, reg.PRESENT_PWM.address, 12)  # type: ignore[arg-type]
    ticks = [reg.PRESENT_POSITION.decode(found[servo].data[-4:]) for servo in found if servo == 1]
    return [asked_ns - port.plant.sampled_ns(tick) for tick in ticks]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=40), st.booleans(), st.integers(0, 12))
def test_torque_switching_takes_no_answer_to_an_earlier_question(
    delays_us: list[int], overtaking: bool, cycles: int
) -> None:
    with virtual_time() as time:
        port = Bus(time, overtaking=overtaking)
        arms = Arms(time, [port])
        turns = iter(delays_us * 1000)
        port.line.delay_ns = lambda: next(turns) * 1000
        arms.turns(cycles)
        arms.cycles[0].give_up()
        ages_ns = [age_ns for _ in range(3) for age_ns in goals_of(port, time)]
        assert max(ages_ns) <= TICK_NS  # a tick of rounding


def test_what_torque_switching_reads_is_what_it_asked_for(time: Time) -> None:
    """Also where it must ask for a longer block."""
    port = Bus(time)
    for register in (
        reg.TORQUE_ENABLE,
        reg.OPERATING_MODE,
        reg.GOAL_POSITION,
        reg.BUS_WATCHDOG,
        reg.PRESENT_TEMPERATURE,
    ):
        for _ in range(4):
            found = read_all(port, EVERYBODY, register.address, register.size)  # type: ignore[arg-type]
            values = {servo: register.decode(packet.data) for servo, packet in found.items()}
            assert values == {servo: port.chain.peek(servo, register, time.now) for servo in EVERYBODY}
            port.late.expect(register.size, time.now)
            port.late.expect(register.size + 1, time.now)


def test_no_size_is_used_again_before_its_answer_can_come_no_more(time: Time) -> None:
    """A chain that answers only after 60 ms: of each size there is one question at a time on its way."""
    port = Bus(time)
    arms = Arms(time, [port])
    port.line.delay_ns = lambda: 60 * MS
    asked_ns: dict[int, int] = {}
    for _ in range(400):
        before = len(port.asked)
        arms.turn()
        for size in {packet.params[2] for packet in port.asked[before:] if packet.instruction in READS}:
            assert time.now - asked_ns.get(size, 0) >= 60 * MS
            asked_ns[size] = time.now
    assert len(asked_ns) >= 5
