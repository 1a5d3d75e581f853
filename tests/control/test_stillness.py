"""Who is to blame for a silence: the computer, by its witnesses, or who is silent."""

import pytest

from aloha_runtime.stillness import ENDED_NS, Stillness, is_stall, stood_still

MS = 1_000_000
LATE = 12 * MS
ALLOWED = 100 * MS


class Computer:
    """Time passes in turns of 5 ms; every witness has each of them unless it is kept waiting."""

    def __init__(self, *witnesses: str) -> None:
        self.stillness = Stillness()
        self.witnesses = witnesses
        self.now = 1000 * MS
        self.heard = self.now
        self.run(50)

    def run(self, ms: int, waiting: tuple[str, ...] = (), silent: bool = False) -> None:
        for _ in range(ms // 5):
            self.now += 5 * MS
            for witness in self.witnesses:
                if witness not in waiting:
                    self.stillness.turn(witness, self.now, LATE)
            if not silent:
                self.heard = self.now

    def verdict(self) -> str:
        return self.stillness.excuse(self.now - self.heard, self.now, ALLOWED)


@pytest.fixture
def computer() -> Computer:
    return Computer("loop", "echo")


def test_one_that_is_silent_on_a_quiet_computer_is_to_blame(computer: Computer) -> None:
    computer.run(105, silent=True)
    assert computer.verdict() == ""


@pytest.mark.parametrize("waiting", [("loop",), ("echo",), ("loop", "echo")])
def test_a_silence_while_a_witness_waits_is_the_computers(computer: Computer, waiting: tuple[str, ...]) -> None:
    computer.run(140, waiting, silent=True)
    assert computer.verdict() == stood_still(140 * MS)
    assert is_stall(computer.verdict())
    assert computer.verdict() == (
        "this computer stood still for 140 ms; close other programs, see `aloha bench jitter`"
    )
    computer.run(20, silent=True)
    assert is_stall(computer.verdict()), "the stall is over, the answers are still on their way"


def test_one_that_is_dead_besides_is_named_once_the_stall_is_over(computer: Computer) -> None:
    computer.run(140, ("loop", "echo"), silent=True)
    computer.run(95, silent=True)
    assert is_stall(computer.verdict())
    computer.run(15, silent=True)
    assert computer.verdict() == ""


def test_a_short_stall_does_not_excuse_a_long_silence(computer: Computer) -> None:
    computer.run(40, silent=True)
    computer.run(40, ("echo",), silent=True)
    computer.run(25, silent=True)
    assert computer.verdict() == "", "40 of 105 ms"


def test_many_short_stalls_add_up_and_are_counted_once(computer: Computer) -> None:
    for _ in range(4):
        computer.run(15, ("loop", "echo"), silent=True)
        computer.run(10, silent=True)
    lost = computer.stillness.lost_ns(computer.heard, computer.now)
    assert lost == 4 * 20 * MS
    assert is_stall(computer.verdict())


def test_a_gap_before_the_silence_says_nothing_of_it(computer: Computer) -> None:
    computer.run(300, ("loop",))
    computer.run(105, silent=True)
    assert computer.verdict() == ""


def test_a_witness_that_has_ended_is_none(computer: Computer) -> None:
    computer.run(ENDED_NS // MS, ("echo",), silent=True)
    assert is_stall(computer.verdict())
    computer.run(5, ("echo",), silent=True)
    assert computer.verdict() == ""


def test_a_loop_that_stood_still_for_long_remembers_it(computer: Computer) -> None:
    """Its own gap is over as soon as it can ask."""
    computer.now += 3000 * MS
    computer.run(5, silent=True)
    assert computer.verdict() == stood_still(3005 * MS)


def test_turns_are_told_in_any_order() -> None:
    stillness = Stillness()
    for at_ns in (100, 200, 150, 200):
        stillness.turn("loop", at_ns * MS, LATE)
    assert stillness.lost_ns(0, 200 * MS) == 100 * MS
