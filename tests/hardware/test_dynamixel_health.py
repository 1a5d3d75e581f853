"""The health round alone: whose turn it is, and what is not known any more. Pure, time by hand."""

import random
from collections import Counter

import pytest

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.packets import Instruction
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_health import HealthRound

MS = 1_000_000
EVERYBODY = tuple(range(1, 10))
START = 10**15


class Round:
    """A health round; times in ms since it began."""

    def __init__(self) -> None:
        self.health = HealthRound(EVERYBODY)
        self.health.begin(START)

    def asked(self, ms: float) -> int | None:
        question = self.health.due(START + int(ms * MS))
        return Parser().feed(question)[0].id if question else None

    def answer(self, servo: int | None) -> None:
        assert servo is not None
        assert self.health.take(packets.Packet(servo, Instruction.STATUS, bytes(84)))

    def unknown(self, ms: float) -> dict[int, int]:
        return self.health.unknown(START + int(ms * MS))


@pytest.fixture
def heard() -> Round:
    """Everybody has just been heard."""
    turns = Round()
    for _ in EVERYBODY:
        turns.answer(turns.asked(0))
    return turns


def test_at_the_beginning_everybody_is_asked_at_once() -> None:
    turns = Round()
    assert [turns.asked(0) for _ in range(10)] == [*EVERYBODY, None]
    assert turns.unknown(0).keys() == set(EVERYBODY)


def test_everybody_has_a_turn_in_a_second_and_who_is_hurried_is_next(heard: Round) -> None:
    turns = [heard.asked(n * 100) for n in range(1, 10)]
    for servo in turns:
        heard.answer(servo)
    assert sorted(turn or 0 for turn in turns) == list(EVERYBODY)
    heard.health.hurry(5)
    assert heard.asked(905) is None
    assert heard.asked(910) == 5
    assert heard.asked(920) is None


def test_what_was_said_two_seconds_ago_is_not_known(heard: Round) -> None:
    assert heard.unknown(2000) == {}
    assert heard.unknown(2001) == dict.fromkeys(EVERYBODY, 2001 * MS)


def test_a_late_answer_is_as_old_as_its_question(heard: Round) -> None:
    servo = heard.asked(100)
    assert heard.asked(139) is None
    heard.answer(servo)
    assert servo is not None
    assert heard.health.heard[servo].stamp_ns == START + 100 * MS
    heard.answer(servo)  # twice
    assert heard.health.count == 10


def test_an_answer_to_either_of_two_questions_is_as_old_as_the_first(heard: Round) -> None:
    servo = heard.asked(100)
    assert servo is not None
    heard.health.hurry(servo)
    assert heard.asked(120) == servo
    heard.answer(servo)
    assert heard.health.heard[servo].stamp_ns == START + 100 * MS


def test_a_lost_answer_is_asked_for_again_and_keeps_nobody_waiting(heard: Round) -> None:
    """One answer of ten is lost, and one servo never says anything: the age of what the others said stays below 2 s."""
    chance, worst, asked = random.Random(1), Counter[int](), Counter[int]()
    for ms in range(0, 60_000, 5):
        servo = heard.asked(ms)
        if servo is not None:
            asked[servo] += 1
            if servo != 4 and chance.random() > 0.1:
                heard.answer(servo)
        for servo, age_ns in heard.unknown(ms).items():
            worst[servo] = max(worst[servo], age_ns)
    assert worst.keys() == {4}
    assert asked[4] <= 60_000 / 45
    assert sum(asked.values()) - asked[4] <= 60_000 / 100 * 1.5
