"""Which actions are fit to follow: every reason to pass one over, each at its bound."""

from typing import Any

import numpy as np
import pytest

from aloha_runtime.control.stream import ActionStream, GateCounters, GateTiming, Target, numbers
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, TICK_NS

BEGAN_NS = 7_000 * MS
GOOD = [0.1] * DOF
TIMING = GateTiming()


class Stream:
    """A stream that began at `BEGAN_NS`, and a clock."""

    def __init__(self) -> None:
        self.counters = GateCounters()
        self.stream = ActionStream(TIMING, self.counters, BEGAN_NS)
        self.now_ns = BEGAN_NS

    def take(self, position: Any = GOOD, age_ns: int = 0, tick: int = 0, after_ns: int = TICK_NS) -> Any:
        self.now_ns += after_ns
        return self.stream.take(self.now_ns, Target(position, self.now_ns - age_ns, tick))

    def counted(self) -> dict[str, int]:
        return {name: count for name, count in vars(self.counters).items() if count}


def test_nothing_is_known_before_the_first_action() -> None:
    stream = Stream()
    assert (stream.stream.newest, stream.stream.position) == (None, None)
    assert not stream.stream.pauses(BEGAN_NS + 10**12)


def test_an_action_is_taken_once() -> None:
    stream = Stream()
    assert stream.take(tick=5) == pytest.approx(np.full(DOF, 0.1))
    newest = stream.stream.newest
    assert newest is not None
    for _ in range(2):
        assert stream.stream.take(stream.now_ns + MS, newest) == ""
    assert stream.counted() == {"accepted": 1, "repeated": 2}
    assert stream.stream.newest is newest


@pytest.mark.parametrize("first", [(-1, -1), (0, 0), (1, -1), (-1, 1)])
def test_no_action_is_a_repetition_before_there_was_one(first: tuple[int, int]) -> None:
    stream = Stream()
    stream.stream.take(stream.now_ns, Target(GOOD, *first))
    assert stream.counted() == {"disordered": 1}


def test_the_same_stamp_with_another_tick_is_out_of_order() -> None:
    stream = Stream()
    stream.take(tick=1)
    for tick in (2, 3):
        assert stream.stream.take(stream.now_ns, Target(GOOD, stream.now_ns, tick)) == ""
    assert stream.counted() == {"accepted": 1, "disordered": 2}


def test_what_was_computed_before_the_stream_began_is_out_of_order() -> None:
    stream = Stream()
    assert stream.take(age_ns=MS + 1, after_ns=MS) == ""
    assert not isinstance(stream.take(age_ns=2 * MS, after_ns=MS, tick=1), str)  # at the very beginning
    assert stream.counted() == {"disordered": 1, "accepted": 1}


def test_stale_is_as_old_as_the_hold() -> None:
    stream = Stream()
    stream.now_ns += 1000 * MS
    for tick in (1, 2):
        assert stream.take(age_ns=TIMING.hold_after_ns, tick=tick) == ""
    assert stream.counted() == {"stale": 2}
    assert not isinstance(stream.take(age_ns=TIMING.hold_after_ns - 1, tick=3), str)


def test_a_tick_ahead_is_the_most_that_two_clocks_differ() -> None:
    stream = Stream()
    for tick in (1, 2):
        assert stream.take(age_ns=-TIMING.future_ns - 1, tick=tick) == ""
    assert stream.counted() == {"from_future": 2}
    for tick in (3, 4):
        assert not isinstance(stream.take(age_ns=-TIMING.future_ns, tick=tick), str)
    assert stream.counters.accepted == 2


def test_the_third_refused_action_in_a_row_ends_the_stream() -> None:
    stream = Stream()
    assert [stream.take("x", tick=1), stream.take("x", tick=2)] == ["", ""]
    stream.take(tick=3)
    assert [stream.take("x", tick=4), stream.take("x", tick=5)] == ["", ""]
    assert stream.take("x", tick=6) == (
        "3 actions in a row were refused, the last because it holds <U1 instead of numbers"
    )
    assert stream.counted() == {"invalid": 5, "accepted": 1}


def test_a_first_action_may_take_long_and_a_next_one_may_not() -> None:
    stream = Stream()
    assert stream.stream.silence(BEGAN_NS + TIMING.first_action_within_ns) == ""
    assert stream.stream.silence(BEGAN_NS + TIMING.first_action_within_ns + MS).startswith("no action for 3001 ms; see")
    stream.take()
    assert stream.stream.silence(stream.now_ns + TIMING.resume_within_ns) == ""
    assert stream.stream.silence(stream.now_ns + TIMING.resume_within_ns + MS).startswith("no action for 501 ms; see")


def test_the_times_are_those_of_the_promise() -> None:
    """docs/safety.md; every other test here goes by whatever they are."""
    assert GateTiming() == GateTiming(
        period_ns=5 * MS,
        hold_after_ns=60 * MS,
        resume_within_ns=500 * MS,
        first_action_within_ns=3000 * MS,
        future_ns=20 * MS,
        present_within_ns=100 * MS,
        invalid_in_row=3,
    )


def test_motion_pauses_when_the_newest_action_is_as_old_as_the_hold() -> None:
    stream = Stream()
    stream.take()
    assert not stream.stream.pauses(stream.now_ns + TIMING.hold_after_ns - 1)
    assert stream.stream.pauses(stream.now_ns + TIMING.hold_after_ns)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8])
def test_numbers_of_every_kind_become_double(kind: type) -> None:
    found = numbers(np.ones(DOF, kind))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    assert found == pytest.approx(np.ones(DOF))


def test_numbers_are_a_copy() -> None:
    given = np.zeros(DOF)
    found = numbers(given)
    given[:] = 1.0
    assert found == pytest.approx(np.zeros(DOF))


@pytest.mark.parametrize(
    ("position", "why"),
    [
        ([[0.0]] * 13 + [0.0], "it is no list of numbers"),
        (["0"] * DOF, "it holds <U1 instead of numbers"),
        ([True] * DOF, "it holds bool instead of numbers"),
        ([0.0] * 13, "its shape is (13,) instead of (14,)"),
        ([[0.0] * 7] * 2, "its shape is (2, 7) instead of (14,)"),
        ([[0.0]] * 14, "its shape is (14, 1) instead of (14,)"),
        (0.0, "its shape is () instead of (14,)"),
        ([0.0] * 8 + [float("nan")] + [0.0] * 5, "right_shoulder is nan"),
        ([float("inf")] + [0.0] * 13, "left_waist is inf"),
    ],
)
def test_what_is_not_fourteen_numbers_is_named(position: Any, why: str) -> None:
    assert numbers(position) == why
