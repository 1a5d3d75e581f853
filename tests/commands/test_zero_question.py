"""The question about a doubtful zero: asked once, answered by a key, only said where nobody can answer."""

import os
from types import SimpleNamespace

import pytest

from aloha_runtime.commands.zero_question import QUESTION, UNASKED, ask_about_zeros
from aloha_runtime.control.zeros import DOUBT
from aloha_runtime.errors import AlohaError

SAID = f"follower_left: the currents do not {DOUBT}"


class FakeStack:
    """A stack whose followers report `message`; `hand` presses keys while it waits."""

    def __init__(self, message: str, press: bytes = b"", terminal: int | None = None) -> None:
        self.arms = {"arms@followers": object()}
        self.health = {"arms@followers": SimpleNamespace(latest=lambda: SimpleNamespace(message=message))}
        self.zeros_confirmed = False
        self.said: list[str] = []
        self.asked: list[str] = []
        self._press, self._terminal, self.looks = press, terminal, 0

    def pause(self, _: float = 0.0) -> None:
        self.looks += 1
        if self._terminal is not None and self.looks == 3:
            os.write(self._terminal, self._press)

    def watch(self) -> None:
        assert self.looks < 100

    def ask(self, verb: str) -> None:
        self.asked.append(verb)

    def say(self, text: str) -> None:
        self.said.append(text)


def ask(stack: FakeStack, waits: bool = True) -> None:
    ask_about_zeros(stack, lambda: waits)  # type: ignore[arg-type]


def test_who_agrees_is_asked_once(hands: int) -> None:
    stack = FakeStack(SAID, b"y", hands)
    ask(stack)
    ask(stack)
    assert stack.said == [f"{SAID}\n{QUESTION}"]
    assert stack.asked == []


@pytest.mark.parametrize("key", [b"n", b" ", b"\n"])
def test_any_other_key_stops_the_arms_and_names_the_remedy(hands: int, key: bytes) -> None:
    stack = FakeStack(SAID, key, hands)
    with pytest.raises(AlohaError, match="`aloha doctor`, and put it right with `aloha setup`"):
        ask(stack)
    assert stack.asked == ["stop"]
    assert not stack.zeros_confirmed


def test_arms_that_no_longer_wait_end_the_question(hands: int) -> None:
    stack = FakeStack(SAID)
    ask(stack, waits=False)
    assert stack.zeros_confirmed


def test_without_a_terminal_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    stack = FakeStack(SAID)
    ask(stack)
    assert stack.said == [f"{SAID}\n{UNASKED}"]


def test_nothing_is_said_where_all_fits(hands: int) -> None:
    stack = FakeStack("no real-time priority")
    ask(stack)
    assert stack.said == []
