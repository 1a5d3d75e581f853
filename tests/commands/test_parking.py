"""Parking when a stack is left: waited for as long as it goes on, and not a moment longer."""

from types import SimpleNamespace
from typing import Any

import pytest

from aloha_runtime.commands.parking import PARK_TIMEOUT_S, TRIES, park
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import ArmsState, Mode, ModeHeartbeat, Reply


class FakeStack:
    """A supervisor whose heartbeats follow a script: (seconds after the request, mode)."""

    def __init__(self, *script: tuple[float, Mode]) -> None:
        self.now_ns = 10**12
        self.script = script
        self.asked_ns = 0
        self.clock = SimpleNamespace(now_ns=lambda: self.now_ns)
        self.mode = SimpleNamespace(latest=self.latest)
        self.said: list[str] = []
        self.armed = True
        self.asked: list[tuple[str, str]] = []
        self.cause = "a servo is silent"
        self.fails: list[BaseException] = []
        """What goes wrong at the next looks."""
        self.arms_mode: Mode | None = Mode.HOLD
        self.arms = {"arms@followers": SimpleNamespace(fresh=self.state)}

    def state(self, now_ns: int) -> ArmsState | None:
        if self.arms_mode is None:
            return None
        goal = None if self.arms_mode is Mode.IDLE else [0.0] * 14
        return ArmsState(stamp_ns=now_ns, position=[], velocity=[], effort_ma=[], mode=self.arms_mode, goal=goal)

    def say(self, text: str) -> None:
        self.said.append(text)

    def ask(self, verb: str, argument: str = "") -> Reply:
        self.now_ns += 5_000_000
        self.asked.append((verb, argument))
        self.asked_ns = self.now_ns
        return Reply(ok=True, text="", mode=Mode.HOLD if verb == "stop" else Mode.PARK)

    def pause(self, seconds: float = 0.02) -> None:
        self.now_ns += int(seconds * 1e9)
        if self.fails:
            raise self.fails.pop()

    def latest(self) -> ModeHeartbeat:
        order_ns, mode = 0, Mode.HOLD
        for seconds, later in self.script:
            if self.now_ns >= self.asked_ns + int(seconds * 1e9):
                order_ns, mode = self.asked_ns + int(seconds * 1e9), later
        return ModeHeartbeat(stamp_ns=self.now_ns, mode=mode, order_ns=order_ns, cause=self.cause)

    @property
    def waited_s(self) -> float:
        return (self.now_ns - self.asked_ns) / 1e9


def run(*script: tuple[float, Mode]) -> tuple[str, float]:
    stack: Any = FakeStack(*script)
    return park(stack), stack.waited_s


def test_arms_that_arrive_are_parked() -> None:
    left, waited_s = run((0.1, Mode.PARK), (1.5, Mode.IDLE))
    assert left == ""
    assert waited_s == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("lasts_s", [0.001, 1.0])
def test_parking_that_ends_in_hold_is_said_at_once_even_when_it_was_too_short_to_be_seen(lasts_s: float) -> None:
    left, waited_s = run((0.1, Mode.PARK), (0.1 + lasts_s, Mode.HOLD))
    assert "not parked" in left
    assert "hold: a servo is silent" in left
    assert waited_s < 0.2 + lasts_s


def test_parking_that_never_ends_is_given_up() -> None:
    left, waited_s = run((0.1, Mode.PARK))
    assert "took longer" in left
    assert waited_s == pytest.approx(PARK_TIMEOUT_S, abs=0.1)


def test_what_fails_in_the_command_itself_does_not_keep_the_arms_up() -> None:
    stack: Any = FakeStack((0.1, Mode.PARK), (1.5, Mode.IDLE))
    stack.fails = [MemoryError(), OSError(24, "Too many open files")]
    assert park(stack) == ""
    assert [verb for verb, _ in stack.asked] == ["stop", "park"] * 3


def test_what_always_fails_is_said_and_the_arms_were_told_to_stop() -> None:
    stack: Any = FakeStack((0.1, Mode.PARK))
    stack.fails = [MemoryError() for _ in range(10)]
    assert "not parked, they stay where they are, torque on: MemoryError" in park(stack)


def test_arms_that_nobody_has_armed_stay_as_they_were_found() -> None:
    stack: Any = FakeStack()
    stack.armed = False
    stack.ask = lambda verb, argument="": (
        stack.asked.append((verb, argument)) or Reply(ok=True, text="", mode=Mode.IDLE)
    )
    assert park(stack) == ""
    assert [verb for verb, _ in stack.asked] == ["stop"]


def test_ctrl_c_while_parking_stops_the_arms_where_they_are() -> None:
    stack: Any = FakeStack((0.1, Mode.PARK))
    stack.fails = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        park(stack)
    assert [verb for verb, _ in stack.asked] == ["stop", "park", "stop"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (Mode.IDLE, "not parked, they have no torque: no supervisor runs"),
        (Mode.HOLD, "not parked, they stay where they are, torque on: no supervisor runs"),
        (None, "not parked, they are not heard, so hold them before you cut their power: no supervisor runs"),
    ],
)
def test_without_a_supervisor_it_says_what_the_arms_do(mode: Mode | None, said: str) -> None:
    stack: Any = FakeStack()
    stack.arms_mode = mode

    def ask(verb: str, argument: str = "") -> Reply:
        raise TransportError("no supervisor runs")

    stack.ask = ask
    assert said in park(stack)


@pytest.mark.parametrize(("alarmed", "argument"), [(False, "routine"), (True, "")])
def test_the_stop_before_parking_is_a_routine_unless_something_went_wrong(alarmed: bool, argument: str) -> None:
    stack: Any = FakeStack((0.1, Mode.PARK), (1.5, Mode.IDLE))
    assert park(stack, alarmed) == ""
    assert stack.asked == [("stop", argument), ("park", "")]


@pytest.mark.parametrize("recovers", [True, False])
def test_a_computer_that_stands_still_while_the_arms_are_parked_gets_another_try(recovers: bool) -> None:
    stack: Any = FakeStack((0.1, Mode.PARK), (0.5, Mode.HOLD))
    stack.cause = "this computer stood still for 140 ms; close other programs"

    def pause(seconds: float = 0.02) -> None:
        stack.now_ns += int(seconds * 1e9)
        if seconds > 1 and recovers:
            stack.script = ((0.1, Mode.PARK), (1.5, Mode.IDLE))

    stack.pause = pause
    left = park(stack)
    assert (left == "") == recovers
    assert stack.asked.count(("park", "")) == (2 if recovers else TRIES)
    assert recovers or "this computer stood still for 140 ms" in left
