"""Laws of pacing on a clock that does what the example says, and the wall clock's promises, which no load breaks."""

import gc
import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime import realtime
from aloha_runtime.realtime import Beat, Histogram, Pacer, WallClock, prepare

PERIOD_NS = 20


class FakeClock:
    """Time passes only in sleeps and in `now`; every sleep ends late by the next number given."""

    virtual = False

    def __init__(self, now_ns: int, oversleeps: list[int]) -> None:
        self.now = now_ns
        self._oversleeps = iter(oversleeps)

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, deadline_ns: int) -> None:
        if deadline_ns > self.now:
            self.now = deadline_ns + next(self._oversleeps, 0)


def beats(start_ns: int, work: list[int], oversleeps: list[int], phase_ns: int = 0) -> list[tuple[Beat, int]]:
    """Every beat with the instant at which it was returned."""
    clock = FakeClock(start_ns, oversleeps)
    pacer = Pacer(clock, PERIOD_NS, phase_ns)
    result = []
    for duration in work:
        beat = pacer.wait()
        result.append((beat, clock.now))
        clock.now += duration
    assert pacer.beats == len(work)
    assert pacer.skipped_total == sum(beat.skipped for beat, _ in result)
    return result


instants = st.integers(1, 10_000)
durations = st.lists(st.integers(0, 5 * PERIOD_NS), min_size=2, max_size=30)
oversleeps = st.lists(st.integers(0, 3 * PERIOD_NS), max_size=30)
phases = st.integers(-PERIOD_NS, PERIOD_NS)


@settings(deadline=None)
@given(instants, durations, oversleeps, phases)
def test_at_most_one_beat_in_each_slot_and_every_lost_slot_is_counted(
    start_ns: int, work: list[int], late: list[int], phase_ns: int
) -> None:
    sequence = beats(start_ns, work, late, phase_ns)
    for beat, now in sequence:
        assert beat.deadline_ns == beat.index * PERIOD_NS + phase_ns
        assert 0 <= beat.lateness_ns == now - beat.deadline_ns < PERIOD_NS
    for (before, _), (after, _) in itertools.pairwise(sequence):
        assert after.index == before.index + 1 + after.skipped


@settings(deadline=None)
@given(instants, durations, oversleeps, phases)
def test_never_a_burst(start_ns: int, work: list[int], late: list[int], phase_ns: int) -> None:
    times = [now for _, now in beats(start_ns, work, late, phase_ns)]
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert times[last] - times[first] > (last - first - 1) * PERIOD_NS


@settings(deadline=None)
@given(instants, st.lists(st.integers(0, PERIOD_NS), min_size=2, max_size=30), phases)
def test_work_within_the_period_loses_nothing(start_ns: int, work: list[int], phase_ns: int) -> None:
    sequence = beats(start_ns, work, [], phase_ns)
    assert sum(beat.skipped for beat, _ in sequence) == 0
    assert all(beat.lateness_ns == 0 for beat, _ in sequence)


def test_an_overrun_of_three_and_a_half_periods_loses_three_slots_and_keeps_the_grid() -> None:
    sequence = beats(95, [70, 0, 0], [])
    assert [(beat.index, beat.lateness_ns, beat.skipped) for beat, _ in sequence] == [(5, 0, 0), (8, 10, 2), (9, 0, 0)]


def test_figures_of_a_loop_are_in_milliseconds() -> None:
    pacer = Pacer(FakeClock(1, [500_000, 1_500_000, 5_000_000]), 2_000_000)
    for _ in range(3):
        pacer.wait()
    found = pacer.figures()
    assert (found["beats"], found["skipped"], found["lateness_worst_ms"]) == (3, 2, 1.5)
    assert 1.0 <= found["lateness_p50_ms"] <= 1.0 * 1.13
    assert found["lateness_p99_ms"] == 1.5


def test_the_first_beat_may_be_now() -> None:
    assert beats(100, [0], [])[0][0].index == 5


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Pacer(FakeClock(0, []), 0)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1), st.floats(0, 1))
def test_histogram_quantile_is_never_below_and_at_most_13_percent_above(samples: list[int], share: float) -> None:
    histogram = Histogram()
    for sample in samples:
        histogram.add(sample)
    rank = max(1, -int(-share * len(samples) // 1))
    exact = sorted(samples)[min(rank, len(samples)) - 1]
    assert exact <= histogram.quantile_ns(share) <= exact * 1.13
    assert histogram.max_ns == max(samples)


def test_empty_histogram() -> None:
    assert (Histogram().p50_ns, Histogram().p99_ns, Histogram().count) == (0, 0, 0)


def test_wall_clock_never_wakes_early_even_when_signals_interrupt() -> None:
    clock = WallClock()
    calls = []
    previous = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        deadline = clock.now_ns() + 40_000_000
        clock.sleep_until(deadline)
        assert clock.now_ns() >= deadline
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert calls, "handlers run during the sleep"


def test_wall_clock_returns_at_once_for_the_past() -> None:
    WallClock().sleep_until(0)


@pytest.fixture
def _gc_restored() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def _refuse(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.usefixtures("_gc_restored")
def test_prepare_says_what_was_not_granted_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", _refuse)
    monkeypatch.setattr(os, "sched_setaffinity", _refuse)
    monkeypatch.setattr(realtime, "_has_capability", lambda _: False)
    monkeypatch.setattr(realtime.resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    report = prepare(50, [0], lock_memory=True)
    assert (report.priority, report.cores, report.memory_locked) == (None, (), False)
    priority, cores, memory = report.problems
    assert "rtprio 50" in priority
    assert "CPUSchedulingPolicy=fifo" in priority
    assert "not bound to cores [0]" in cores
    assert "LimitMEMLOCK=infinity" in memory


@pytest.mark.usefixtures("_gc_restored")
def test_prepare_freezes_the_garbage_collector_and_asks_for_nothing_else() -> None:
    before = os.sched_getscheduler(0), os.sched_getaffinity(0)
    report = prepare(None, None, lock_memory=False)
    assert report.problems == []
    assert report.objects_frozen > 0
    assert not gc.isenabled()
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == before
