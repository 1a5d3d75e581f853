"""A dead servo is named within 200 ms, it and no other, whoever it is and however the others behave."""

import random
from collections.abc import Iterator
from itertools import combinations

import pytest

from aloha_runtime.commands.faults.virtual_bus import DEADLINE_NS, EVERYBODY, PERIOD_NS, Arms, Bus, virtual_time
from aloha_runtime.commands.faults.virtual_parts import Time
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware.dynamixel_exchange import read_all
from aloha_runtime.messages import MS

NAMED_MS = 200
BEHAVIOURS = ("silent", "wait")
SEVERAL = [(1, 2), (2, 3), (4, 8), (1, 9), (3, 5), (1, 2, 4), (6, 7, 8, 9), (1, 2, 3, 4, 5, 6, 7, 8), EVERYBODY]


@pytest.fixture
def time() -> Iterator[Time]:
    with virtual_time() as time:
        yield time


def named_after_ms(arms: Arms, index: int, dead: set[int]) -> float:
    """Until an arm says who is silent; it says all and only the dead, and goes on saying so."""
    started_ns, first_ns = arms.time.now, None
    while arms.time.now < started_ns + 2 * NAMED_MS * MS:
        arms.turn()
        now_ns = arms.time.now
        unread = arms.cycles[index].unread(now_ns)
        if unread.certain and unread.ns > 50 * MS:
            assert set(arms.cycles[index].silent(now_ns)) == dead, f"after {(now_ns - started_ns) / MS:.0f} ms"
            first_ns = first_ns or now_ns
    assert first_ns is not None, "nobody was named"
    return (first_ns - started_ns) / MS


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "old firmware"])
@pytest.mark.parametrize("arms_hit", [1, 2])
@pytest.mark.parametrize("dead", [*((i,) for i in EVERYBODY), *SEVERAL], ids=str)
def test_the_dead_are_named_in_time(time: Time, behind: str, fast: bool, arms_hit: int, dead: tuple[int, ...]) -> None:
    ports = [Bus(time), Bus(time)]
    arms = Arms(time, ports, fast)
    arms.turns(200)
    for port in ports[:arms_hit]:
        port.kill(*dead, behind_missing=behind)
    assert named_after_ms(arms, 0, set(dead)) <= NAMED_MS
    assert arms_hit == 2 or arms.cycles[1].unread(time.now).ns == 0
    ports[0].kill()
    ports[1].kill()
    arms.turns(100)
    assert [cycle.unread(time.now).ns for cycle in arms.cycles] == [0, 0]


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("late_ms", [8, 20, 40])
@pytest.mark.parametrize("dead", [*((i,) for i in EVERYBODY), (2, 8), ()], ids=str)
def test_those_who_answer_late_are_not_named(time: Time, behind: str, late_ms: int, dead: tuple[int, ...]) -> None:
    port = Bus(time)
    arms = Arms(time, [port, Bus(time)])
    arms.turns(200)
    port.kill(*dead, behind_missing=behind)
    chance = random.Random(late_ms)
    port.line.delay_ns = lambda: chance.randint(late_ms * MS // 2, late_ms * MS)
    if dead:
        assert named_after_ms(arms, 0, set(dead)) <= NAMED_MS
    else:
        arms.turns(400)
        assert arms.cycles[0].silent(time.now) == {}


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("dead", EVERYBODY)
def test_on_a_noisy_line_nobody_else_is_named(time: Time, behind: str, dead: int) -> None:
    """Two seconds of HOLD beside a dead servo while one answer of twenty is lost."""
    port = Bus(time)
    arms = Arms(time, [port])
    arms.turns(200)
    port.kill(dead, behind_missing=behind, drop=0.05, seed=dead)
    arms.turns(NAMED_MS * MS // PERIOD_NS)
    wrong = 0
    for _ in range(400):
        arms.turn()
        wrong += set(arms.cycles[0].silent(time.now)) != {dead}
    assert wrong <= 8


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("late_ms", [0, 20, 40])
@pytest.mark.parametrize("dead", [*((i,) for i in EVERYBODY), *combinations((1, 5, 9), 2), EVERYBODY], ids=str)
def test_a_block_read_misses_the_dead_alone(time: Time, behind: str, late_ms: int, dead: tuple[int, ...]) -> None:
    """So torque switching names them, within the time that the other arm's watchdog waits."""
    port = Bus(time)
    port.kill(*dead, behind_missing=behind)
    port.line.delay_ns = lambda: late_ms * MS
    started_ns = time.now
    found = read_all(port, EVERYBODY, reg.TORQUE_ENABLE.address, 1)  # type: ignore[arg-type]
    assert set(found) == set(EVERYBODY) - set(dead)
    assert time.now - started_ns <= 101 * MS


def test_a_failing_arm_does_not_keep_the_other_one_waiting(time: Time) -> None:
    ports = [Bus(time), Bus(time)]
    arms = Arms(time, ports)
    for port in ports:
        port.kill(4, behind_missing="wait")
    for _ in range(200):
        arms.turn()
        assert time.now - arms.turn_ns <= DEADLINE_NS + MS // 10
