"""A dead servo is named within 200 ms, it and no other, whoever it is and however the others behave."""

import random
from itertools import combinations

import pytest
from wire_bench import DEADLINE_NS, EVERYBODY, MS, Arms, ChainPort, Clock, silence

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware import dynamixel_cycle, dynamixel_exchange
from aloha_runtime.hardware.dynamixel_exchange import read_all

NAMED_MS = 200
BEHAVIOURS = ("silent", "wait")
SEVERAL = [(1, 2), (2, 3), (4, 8), (1, 9), (3, 5), (1, 2, 4), (6, 7, 8, 9), (1, 2, 3, 4, 5, 6, 7, 8), EVERYBODY]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(dynamixel_cycle, "time", clock)
    monkeypatch.setattr(dynamixel_exchange, "time", clock)
    return clock


def named_after_ms(arms: Arms, index: int, dead: set[int]) -> float:
    """Until an arm says who is silent; it says all and only the dead, and goes on saying so."""
    started_ns, first_ns = arms.clock.now_ns, None
    while arms.clock.now_ns < started_ns + 2 * NAMED_MS * MS:
        arms.turn()
        now_ns = arms.clock.now_ns
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
def test_the_dead_are_named_in_time(
    clock: Clock, behind: str, fast: bool, arms_hit: int, dead: tuple[int, ...]
) -> None:
    ports = [ChainPort(clock), ChainPort(clock)]
    arms = Arms(clock, ports, fast)
    arms.turns(200)
    for port in ports[:arms_hit]:
        silence(port, *dead, behind_missing=behind)
    assert named_after_ms(arms, 0, set(dead)) <= NAMED_MS
    assert arms_hit == 2 or arms.cycles[1].unread(clock.now_ns).ns == 0
    silence(ports[0])
    silence(ports[1])
    arms.turns(100)
    assert [cycle.unread(clock.now_ns).ns for cycle in arms.cycles] == [0, 0]


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("late_ms", [8, 20, 40])
@pytest.mark.parametrize("dead", [*((i,) for i in EVERYBODY), (2, 8), ()], ids=str)
def test_those_who_answer_late_are_not_named(clock: Clock, behind: str, late_ms: int, dead: tuple[int, ...]) -> None:
    port = ChainPort(clock)
    arms = Arms(clock, [port, ChainPort(clock)])
    arms.turns(200)
    silence(port, *dead, behind_missing=behind)
    chance = random.Random(late_ms)
    port.delay_ns = lambda: chance.randint(late_ms * MS // 2, late_ms * MS)
    if dead:
        assert named_after_ms(arms, 0, set(dead)) <= NAMED_MS
    else:
        arms.turns(400)
        assert arms.cycles[0].silent(clock.now_ns) == {}


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("dead", EVERYBODY)
def test_on_a_noisy_line_nobody_else_is_named(clock: Clock, behind: str, dead: int) -> None:
    """Two seconds of HOLD beside a dead servo while one answer of twenty is lost."""
    port = ChainPort(clock)
    arms = Arms(clock, [port])
    arms.turns(200)
    silence(port, dead, behind_missing=behind, drop=0.05, seed=dead)
    arms.turns(NAMED_MS)
    wrong = 0
    for _ in range(400):
        arms.turn()
        wrong += set(arms.cycles[0].silent(clock.now_ns)) != {dead}
    assert wrong <= 8


@pytest.mark.parametrize("behind", BEHAVIOURS)
@pytest.mark.parametrize("late_ms", [0, 20, 40])
@pytest.mark.parametrize("dead", [*((i,) for i in EVERYBODY), *combinations((1, 5, 9), 2), EVERYBODY], ids=str)
def test_a_block_read_misses_the_dead_alone(clock: Clock, behind: str, late_ms: int, dead: tuple[int, ...]) -> None:
    """So torque switching names them, within the time that the other arm's watchdog waits."""
    port = ChainPort(clock)
    silence(port, *dead, behind_missing=behind)
    port.delay_ns = lambda: late_ms * MS
    started_ns = clock.now_ns
    found = read_all(port, EVERYBODY, reg.TORQUE_ENABLE.address, 1)  # type: ignore[arg-type]
    assert set(found) == set(EVERYBODY) - set(dead)
    assert clock.now_ns - started_ns <= 101 * MS


def test_a_failing_arm_does_not_keep_the_other_one_waiting(clock: Clock) -> None:
    ports = [ChainPort(clock), ChainPort(clock)]
    arms = Arms(clock, ports)
    for port in ports:
        silence(port, 4, behind_missing="wait")
    for _ in range(200):
        arms.turn()
        assert clock.now_ns - arms.turn_ns <= DEADLINE_NS + MS // 10
