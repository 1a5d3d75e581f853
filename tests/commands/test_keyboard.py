"""Keys on a pseudo-terminal: the space bar is STOP while a command moves the arms, and the terminal comes back."""

import os
import termios
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from aloha_runtime.commands import operate
from aloha_runtime.commands.keyboard import Keyboard
from aloha_runtime.commands.orders import Orders
from aloha_runtime.config import RecordingConfig
from aloha_runtime.messages import Mode, ModeHeartbeat
from aloha_runtime.run_directory import default_run_dir


class FakeStack:
    """A stack that obeys `stop`, and is interrupted after so many looks."""

    def __init__(self, looks: int, hand: Callable[[], object] = lambda: None) -> None:
        self.hand = hand
        self.asked: list[str] = []
        self.said: list[str] = []
        self.looks = looks
        self.clock = SimpleNamespace(now_ns=lambda: 0)
        self.mode = SimpleNamespace(latest=self.heartbeat)
        self.table: list[object] = []
        self.run_dir = default_run_dir()

    def heartbeat(self) -> ModeHeartbeat:
        mode = Mode.HOLD if self.asked else Mode.TELEOP
        return ModeHeartbeat(stamp_ns=0, mode=mode, cause="stop by operator" if self.asked else "")

    def watch(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise KeyboardInterrupt

    def pause(self) -> None:
        self.hand()

    def ask(self, verb: str) -> None:
        self.asked.append(verb)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_space_bar_is_stop_and_nothing_else_is(hands: int) -> None:
    os.write(hands, b"xq\n")
    quiet = FakeStack(looks=3)
    operate.watch_until_interrupted(quiet, None)  # type: ignore[arg-type]
    assert quiet.asked == []
    stopped = FakeStack(3, lambda: os.write(hands, b" ") if not stopped.asked else None)
    operate.watch_until_interrupted(stopped, None)  # type: ignore[arg-type]
    assert stopped.asked == ["stop"]
    assert stopped.said[0].startswith("HOLD: stop by operator\nto go on: `aloha arm` in another terminal")


def test_the_terminal_comes_back_as_it_was(hands: int) -> None:
    import sys

    before = termios.tcgetattr(sys.stdin)
    with Keyboard() as keyboard:
        assert not termios.tcgetattr(sys.stdin)[3] & termios.ECHO
        os.write(hands, b"ab")
        assert keyboard.pressed() == "ab"
        assert keyboard.pressed() == ""
    assert termios.tcgetattr(sys.stdin) == before
    assert keyboard.pressed() == "", "outside of the context keys are others'"


def test_the_recorder_knows_stop_as_well(hands: int) -> None:
    with Orders(RecordingConfig(), print) as orders:
        os.write(hands, b" s?")
        assert orders.take() == ["stop", "success"]


def test_without_a_terminal_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with Keyboard() as keyboard:
            assert not keyboard.present
            assert keyboard.pressed() == ""
