"""What deserves a log, and when it is written."""

from collections.abc import Callable

import pytest

from aloha_runtime.flight_log.due import AGAIN_NS, LONGEST_AFTER_NS, Due
from aloha_runtime.flight_log.triggers import Event, Life, Triggers
from aloha_runtime.messages import Health, Mode, ModeHeartbeat
from aloha_runtime.realtime import NS_PER_S as S


def beat(triggers: Triggers, second: float, mode: Mode, cause: str) -> None:
    triggers.heartbeat(ModeHeartbeat(stamp_ns=int(second * S), mode=mode, cause=cause))


def always(life: Life) -> Callable[[str], Life]:
    return lambda name: life


@pytest.mark.parametrize(
    ("mode", "cause", "kind"),
    [
        (Mode.HOLD, "stop by operator", "stop"),
        (Mode.HOLD, "this computer stood still for 140 ms; close other programs", "stalled"),
        (Mode.FAULT, "arms@followers: this computer stood still for 600 ms; close other programs", "stalled"),
        (Mode.HOLD, "arms@followers: left: no servo answers for 105 ms", "hold"),
        (Mode.FAULT, "arms@followers: left elbow: overload", "fault"),
    ],
)
def test_what_stops_the_arms_is_an_event_with_what_they_did(mode: Mode, cause: str, kind: str) -> None:
    triggers = Triggers(0)
    beat(triggers, 1, Mode.POLICY, "policy by operator")
    assert triggers.events == []
    for second in (2, 3):  # said 50 times a second, it is one event
        beat(triggers, second, mode, cause)
    assert triggers.events == [Event(kind, cause, 2 * S, "policy")]  # type: ignore[arg-type]
    beat(triggers, 4, mode, f"{cause}, joint 3")  # its name is known only later: a line, not another log
    assert len(triggers.events) == 1
    assert [line.text for line in triggers.lines][-1] == f"{mode}: {cause}, joint 3"


@pytest.mark.parametrize(
    "cause",
    ["routine stop by operator", "the policy has moved the arms for its time of 20 s (--max-duration)"],
)
def test_what_a_command_ends_itself_is_a_line_and_no_event(cause: str) -> None:
    triggers = Triggers(0)
    beat(triggers, 1, Mode.TELEOP, "teleop by operator")
    beat(triggers, 2, Mode.HOLD, cause)
    beat(triggers, 3, Mode.PARK, "park by operator")
    beat(triggers, 4, Mode.IDLE, "parked")
    triggers.ending(5 * S)
    assert triggers.events == []
    assert f"hold: {cause}" in [line.text for line in triggers.lines]
    beat(triggers, 6, Mode.FAULT, cause)
    assert [event.kind for event in triggers.events] == ["fault"]


@pytest.mark.parametrize(("held_s", "events"), [(5, 0), (95, 1), (101, 1)])
def test_a_recorder_that_begins_beside_held_arms_tells_of_it_when_it_has_just_happened(
    held_s: int, events: int
) -> None:
    triggers = Triggers(100 * S)
    beat = ModeHeartbeat(stamp_ns=102 * S, mode=Mode.HOLD, cause="stop by operator", order_ns=held_s * S)
    triggers.heartbeat(beat)
    assert len(triggers.events) == events


@pytest.mark.parametrize(("life", "events", "kind"), [("died", 1, "died"), ("lives", 1, "stalled"), ("ended", 0, "")])
def test_a_process_that_falls_silent(life: Life, events: int, kind: str) -> None:
    triggers = Triggers(0)
    beat(triggers, 1, Mode.TELEOP, "teleop by operator")
    triggers.health(Health(stamp_ns=S, process="teleop", pid=1))
    triggers.look(2 * S, always(life))
    assert triggers.events == []
    for _ in range(3):
        triggers.look(int(2.1 * S), always(life))
    assert len(triggers.events) == events
    assert all(event.cause.startswith("teleop ") and event.mode == "teleop" for event in triggers.events)
    assert all(event.kind == kind for event in triggers.events)
    triggers.health(Health(stamp_ns=3 * S, process="teleop", pid=2))
    assert triggers.lines[-1].text == "is back"


@pytest.mark.parametrize(
    ("heard", "causes"),
    [
        ((1000, 1040, 1100), ["this computer stood still for 1150 ms; close other programs, see `aloha bench jitter`"]),
        (
            (1000, 1040, 2200),
            [
                "policy has been silent for 1250 ms, though it lives",
                "teleop has been silent for 1210 ms, though it lives",
            ],
        ),
    ],
)
def test_when_all_fall_silent_at_once_it_is_the_computer(heard: tuple[int, ...], causes: list[str]) -> None:
    triggers = Triggers(0)
    for name, ms in zip(("policy", "teleop", "camera@a"), heard, strict=True):
        triggers.health(Health(stamp_ns=ms * S // 1000, process=name, pid=1))
    triggers.look(2250 * S // 1000, always("lives"))
    assert [event.cause for event in triggers.events] == causes
    assert {event.kind for event in triggers.events} == {"stalled"}


def test_trouble_is_a_line_when_it_begins_and_ends_and_at_most_one_a_second() -> None:
    triggers = Triggers(0)
    for tenth in range(30):
        ok = not 5 <= tenth < 25
        text = "" if ok else f"no frame for {tenth} ms"
        triggers.health(Health(stamp_ns=S + tenth * S // 10, process="camera@a", pid=1, ok=ok, message=text))
    assert [line.text for line in triggers.lines] == ["no frame for 5 ms", "no frame for 15 ms", "well"]


@pytest.mark.parametrize(("mode", "events"), [(Mode.TELEOP, 1), (Mode.ARMED, 1), (Mode.IDLE, 0), (Mode.HOLD, 0)])
def test_arms_that_are_left_in_motion_deserve_a_log(mode: Mode, events: int) -> None:
    triggers = Triggers(0)
    beat(triggers, 1, mode, "")
    triggers.ending(2 * S)
    assert sum(event.kind == "ended" for event in triggers.events) == events


STOP, FAULT = Event("stop", "stop by operator", 10 * S, "teleop"), Event("fault", "overload", 11 * S, "teleop")


def test_events_that_come_close_together_share_a_log_named_after_the_worse() -> None:
    due = Due(5 * S, 300 * S)
    due.add(STOP, 10 * S)
    assert not due.ready(int(14.9 * S))
    due.add(FAULT, 12 * S)
    assert not due.ready(int(16.9 * S))
    assert due.ready(17 * S)
    assert due.main == FAULT
    assert due.begin_ns(17 * S) == (17 - 300) * S
    due.written(list(due.events), 17 * S)
    assert not due.ready(1000 * S)


def test_a_log_is_written_though_events_do_not_end_and_a_person_does_not_wait() -> None:
    due = Due(5 * S, 300 * S)
    for second in range(100):
        due.add(Event("hold", f"hold {second}", second * S, "armed"), second * S)
        if due.ready(second * S):
            break
    assert second * S == LONGEST_AFTER_NS
    due.written(list(due.events), second * S)
    due.add(FAULT, 60 * S)
    assert not due.ready(60 * S)
    due.add(Event("saved", "asked for", 60 * S, ""), 60 * S)
    assert due.ready(60 * S), "a person does not wait"
    assert due.main == FAULT


def test_a_log_that_cannot_be_written_is_tried_again_until_it_has_left_the_ring() -> None:
    due = Due(5 * S, 60 * S)
    due.add(STOP, 10 * S)
    due.add(Event("saved", "asked for", 10 * S, ""), 10 * S)
    due.failed(list(due.events), 15 * S)
    assert due.events == [STOP], "the person has been told"
    assert not due.ready(15 * S + AGAIN_NS - 1)
    assert due.ready(15 * S + AGAIN_NS)
    due.failed([STOP], 71 * S)
    assert due.events == []
