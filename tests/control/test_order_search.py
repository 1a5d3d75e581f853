"""The search for motion that nobody asked for: it finds none, and it finds each defect that it is there for."""

from collections.abc import Callable

import pytest

from aloha_runtime.commands.order_search.search import BEGINNINGS, search
from aloha_runtime.commands.order_search.state_key import copied, key_of
from aloha_runtime.commands.order_search.system import CONTINUE_DEAF, NOTHING, Happening, System
from aloha_runtime.control.events import ArmsHeard, Decision, Event
from aloha_runtime.control.modes import ModeMachine
from aloha_runtime.control.pilot import Pilot
from aloha_runtime.messages import Mode

PAUSE = Happening("pause or continue", ("supervisor",))
DEPTH = 2
"""Rounds after each beginning; `aloha bench orders` goes deeper."""


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_nothing_moves_unasked(begin: str) -> None:
    found = search(DEPTH, begin=BEGINNINGS[begin])
    assert found.violations == 0, found.ways
    assert found.states > 100


def test_every_beginning_is_what_its_name_says() -> None:
    modes = {}
    for name, begin in BEGINNINGS.items():
        system = System()
        for happening in (NOTHING, NOTHING, *begin):
            assert not system.advance(happening)
        modes[name] = (system.machine.mode, {servos.pilot.mode for servos in system.servos.values()}, system.moving)
    armed, policy, park, hold = Mode.ARMED, Mode.POLICY, Mode.PARK, Mode.HOLD
    assert modes == {
        "at rest": (Mode.IDLE, {Mode.IDLE}, False),
        "on the way to the start pose": (armed, {armed}, True),
        "a policy moves the arms": (policy, {policy}, True),
        "parking": (park, {park}, True),
        "held": (hold, {hold}, False),
    }


def test_a_ramp_that_nothing_disturbs_arrives_and_a_parked_arm_has_no_torque() -> None:
    system = System()
    for happening in (NOTHING, NOTHING, *BEGINNINGS["parking"], *[NOTHING] * 12):
        assert not system.advance(happening)
    assert system.machine.mode is Mode.IDLE
    assert {servos.torque for servos in system.servos.values()} == {"off"}


def forget_the_order_on_silence(self: Pilot, *_: object) -> None:
    if self.mode is Mode.HOLD:
        self.order_ns = self._void_ns = 0


def never_void(self: Pilot, *_: object) -> None:
    self._void_ns = 0


RESTART = Happening("restart", ("arms@followers",))


def hear_only_what_is_newest(self: ModeMachine, events: list[Event], now_ns: int) -> Decision:
    newest = {event.source: event for event in events if isinstance(event, ArmsHeard)}
    return HEAR(self, [*(event for event in events if not isinstance(event, ArmsHeard)), *newest.values()], now_ns)


HEAR = ModeMachine.hear


@pytest.mark.parametrize("begin", ["on the way to the start pose", "parking"])
def test_the_search_finds_a_pilot_that_takes_up_its_order_again_after_silence(
    begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor stands still for 0.4 s, repeats what it said before, and never hears that the arms had held."""
    _break(monkeypatch, Pilot, "_notice_silence", forget_the_order_on_silence)
    monkeypatch.setattr(ModeMachine, "_notice_own_pause", lambda self, now_ns: None)
    monkeypatch.setattr(ModeMachine, "hear", hear_only_what_is_newest)
    found = search(2, begin=(*BEGINNINGS[begin], PAUSE, NOTHING, NOTHING))
    assert [way for way, _ in found.ways if way[0] == Happening(CONTINUE_DEAF, ("supervisor",))]


@pytest.mark.parametrize("begin", ["on the way to the start pose", "parking", "a policy moves the arms"])
def test_the_search_finds_a_silence_that_neither_side_notices(begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModeMachine, "_notice_own_pause", lambda self, now_ns: None)
    monkeypatch.setattr(Pilot, "_notice_silence", lambda self, now_ns, present: None)
    assert search(1, begin=(*BEGINNINGS[begin], PAUSE, NOTHING)).violations > 0


def test_the_search_finds_a_restarted_pilot_that_obeys_an_order_from_before_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _break(monkeypatch, Pilot, "__init__", never_void)
    found = search(2, begin=BEGINNINGS["on the way to the start pose"])
    assert any(RESTART in way for way, _ in found.ways)


def _break(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: Callable[..., None]) -> None:
    """Let a defect follow each call of a method."""
    real = getattr(owner, name)

    def broken(self: object, *arguments: object, **named: object) -> None:
        real(self, *arguments, **named)
        after(self)

    monkeypatch.setattr(owner, name, broken)


def test_the_same_situation_later_is_the_same_state_and_another_order_of_times_is_not() -> None:
    early, late = System(10**12), System(2 * 10**12)
    for system in (early, late):
        for happening in (NOTHING, NOTHING, Happening("arm")):
            system.advance(happening)
    assert key_of(early, early.now_ns) == key_of(late, late.now_ns)
    before = key_of(late, late.now_ns)
    late.servos["arms@followers"].pilot._void_ns = late.servos["arms@followers"].pilot.order_ns + 1
    assert key_of(late, late.now_ns) != before


def test_a_copy_goes_its_own_way() -> None:
    system = System()
    system.advance(NOTHING)
    twin, before = copied(system), key_of(system, system.now_ns)
    assert key_of(twin, twin.now_ns) == before
    for happening in BEGINNINGS["parking"]:
        twin.advance(happening)
    assert key_of(system, system.now_ns) == before
