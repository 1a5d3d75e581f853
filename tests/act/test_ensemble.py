"""Temporal ensembling by absolute tick: the paper's result when chunks are on time, the right mean when not."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aloha_runtime.act.ensemble import MODES, Mode, TemporalEnsemble, slowed

ACTION = 3

STEADY = settings(derandomize=True, deadline=None, max_examples=150)


def chunk_of(start: int, length: int, salt: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng([start, length, salt]).normal(size=(length, ACTION))


def reference(
    chunks: dict[int, NDArray[np.float64]], tick: int, mode: Mode, coefficient: float
) -> NDArray[np.float64] | None:
    """The definition, term by term: every chunk that has an action for `tick`, from the oldest to the newest."""
    covering = [chunks[start][tick - start] for start in sorted(chunks) if start <= tick < start + len(chunks[start])]
    if not covering:
        return None
    if mode == "off":
        return covering[-1]
    if mode == "newest":
        covering.reverse()
    weights = [float(np.exp(-coefficient * age)) for age in range(len(covering))]
    total = np.zeros(ACTION)
    for weight, action in zip(weights, covering, strict=True):
        total += weight * action
    return total / sum(weights)


# One event per tick: chunks (start relative to the tick, length) that arrive before the tick is asked for, if it is.
ARRIVALS = st.lists(st.tuples(st.integers(-8, 5), st.integers(1, 9)), max_size=3)
SCHEDULES = st.lists(st.tuples(ARRIVALS, st.booleans()), min_size=1, max_size=30)


@STEADY
@given(schedule=SCHEDULES, mode=st.sampled_from(MODES), coefficient=st.sampled_from([0.0, 0.01, 0.5, -0.2]))
def test_late_early_skipped_and_repeated_chunks(
    schedule: list[tuple[list[tuple[int, int]], bool]], mode: Mode, coefficient: float
) -> None:
    ensemble = TemporalEnsemble(mode, coefficient)
    chunks: dict[int, NDArray[np.float64]] = {}
    for tick, (arrivals, asked) in enumerate(schedule, start=1000):
        for salt, (offset, length) in enumerate(arrivals):
            chunks[tick + offset] = chunk_of(tick + offset, length, salt)
            ensemble.add(tick + offset, chunks[tick + offset])
        if not asked:
            continue
        expected = reference(chunks, tick, mode, coefficient)
        actual = ensemble.action(tick)
        assert (actual is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(actual, expected, atol=1e-12)


@STEADY
@given(
    length=st.integers(1, 12),
    ticks=st.integers(1, 40),
    coefficient=st.floats(0, 1),
    origin=st.integers(-(10**6), 10**12),
)
def test_equals_the_online_form_when_every_tick_has_a_chunk(
    length: int, ticks: int, coefficient: float, origin: int
) -> None:
    """The running update by which LeRobot and the original compute it: old mean times its weight sum, plus the new."""
    ensemble = TemporalEnsemble("paper", coefficient)
    mean, count = np.zeros((0, ACTION)), np.zeros(0, dtype=int)
    for tick in range(ticks):
        chunk = chunk_of(tick, length)
        weights = np.exp(-coefficient * np.arange(length + 1))
        sums = np.concatenate([[0.0], np.cumsum(weights)])
        mean = np.vstack([mean, np.zeros((length - len(mean), ACTION))])
        count = np.concatenate([count, np.zeros(length - len(count), dtype=int)])
        mean = (mean * sums[count, None] + chunk * weights[count, None]) / sums[count + 1, None]
        count = count + 1
        ensemble.add(origin + tick, chunk)
        np.testing.assert_allclose(ensemble.action(origin + tick), mean[0], atol=1e-9)
        mean, count = mean[1:], count[1:]


@STEADY
@given(mode=st.sampled_from(MODES), coefficient=st.floats(-1000, 1000), count=st.integers(1, 20))
def test_mean_stays_between_the_predictions_whatever_the_coefficient(
    mode: Mode, coefficient: float, count: int
) -> None:
    ensemble = TemporalEnsemble(mode, coefficient)
    predictions = []
    for start in range(count):
        chunk = chunk_of(start, 20)
        ensemble.add(start, chunk)
        predictions.append(chunk[count - 1 - start])
    action = ensemble.action(count - 1)
    assert action is not None
    assert (action >= np.min(predictions, axis=0) - 1e-12).all()
    assert (action <= np.max(predictions, axis=0) + 1e-12).all()


@STEADY
@given(order=st.permutations(range(6)))
def test_order_of_arrival_does_not_matter(order: list[int]) -> None:
    in_order, shuffled = TemporalEnsemble(), TemporalEnsemble()
    for start in range(6):
        in_order.add(start, chunk_of(start, 10))
    for start in order:
        shuffled.add(start, chunk_of(start, 10))
    for tick in range(5, 18):
        expected, actual = in_order.action(tick), shuffled.action(tick)
        assert (expected is None) == (actual is None) == (tick > 14)
        if expected is not None:
            np.testing.assert_array_equal(actual, expected)


def test_a_skipped_inference_does_not_shift_the_trajectory() -> None:
    ensemble = TemporalEnsemble()
    for start in (0, 1, 4):  # inference at 2 and 3 was skipped; each chunk says exactly where to be at each tick
        ensemble.add(start, np.arange(start, start + 10, dtype=np.float64)[:, None].repeat(2, axis=1))
        for tick in range(start, start + 3):
            np.testing.assert_allclose(ensemble.action(tick), [tick, tick])


def test_oldest_is_heaviest_in_paper_mode_and_lightest_in_newest() -> None:
    ensemble = TemporalEnsemble("paper", 0.5)
    ensemble.add(0, np.zeros((5, 1)))
    ensemble.add(1, np.ones((5, 1)))
    light, heavy = np.exp(-0.5) / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(ensemble.action(1), [light])
    ensemble.mode = "newest"
    np.testing.assert_allclose(ensemble.action(1), [heavy])


def test_off_executes_a_chunk_for_its_steps_then_takes_the_newest() -> None:
    ensemble = TemporalEnsemble("off", execute_steps=4)
    values = []
    for tick in range(10):
        ensemble.add(tick, np.full((6, 1), float(tick)))
        action = ensemble.action(tick)
        assert action is not None
        values.append(action[0])
    assert values == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_off_leaves_a_chunk_that_has_ended_before_its_steps() -> None:
    ensemble = TemporalEnsemble("off", execute_steps=100)
    ensemble.add(0, np.zeros((2, 1)))
    assert ensemble.action(0) == 0
    ensemble.add(1, np.ones((5, 1)))
    assert [ensemble.action(tick) for tick in (1, 2, 5)] == [0, 1, 1]


def test_coverage_and_reset() -> None:
    ensemble = TemporalEnsemble()
    ensemble.add(5, np.zeros((3, 2)))
    ensemble.add(6, np.zeros((3, 2)))
    assert [ensemble.coverage(tick) for tick in range(4, 10)] == [0, 1, 2, 2, 1, 0]
    ensemble.reset()
    assert ensemble.coverage(6) == 0
    assert ensemble.action(6) is None


def test_caller_may_reuse_its_arrays() -> None:
    for mode in MODES:
        ensemble = TemporalEnsemble(mode)
        chunk = np.zeros((4, 2))
        ensemble.add(0, chunk)
        chunk += 1
        action = ensemble.action(0)
        assert action is not None
        action += 5
        np.testing.assert_array_equal(ensemble.action(0), [0, 0])


@pytest.mark.parametrize("chunk", [np.zeros((0, 14)), np.zeros(14), np.full((2, 14), np.nan), np.full((2, 14), np.inf)])
def test_chunks_that_must_not_move_an_arm_are_refused(chunk: NDArray[np.float64]) -> None:
    ensemble = TemporalEnsemble()
    with pytest.raises(ValueError, match="chunk"):
        ensemble.add(0, chunk)
    assert ensemble.action(0) is None


@pytest.mark.parametrize("wrong", [{"mode": "mean"}, {"coefficient": float("nan")}, {"execute_steps": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be|is not one of"):
        TemporalEnsemble(**wrong)  # type: ignore[arg-type]


def test_importing_the_ensemble_does_not_import_torch() -> None:
    check = "import sys, aloha_runtime.act.ensemble, aloha_runtime.act.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@STEADY
@given(length=st.integers(1, 30), speed=st.floats(0.1, 1))
def test_a_slowed_chunk_is_the_same_motion_at_another_pace(length: int, speed: float) -> None:
    chunk = chunk_of(3, length)
    slow = slowed(chunk, speed)
    assert len(slow) == int((length - 1) / speed + 1e-9) + 1
    assert slow[0] == pytest.approx(chunk[0])
    for tick, action in enumerate(slow):
        step = min(tick * speed, length - 1)
        expected = [np.interp(step, np.arange(length), chunk[:, joint]) for joint in range(ACTION)]
        assert action == pytest.approx(expected, abs=1e-9)
    assert np.abs(np.diff(slow, axis=0)).max(initial=0) <= speed * np.abs(np.diff(chunk, axis=0)).max(initial=0) + 1e-9


def test_speed_one_is_the_chunk_itself_and_half_has_every_action_on_every_second_tick() -> None:
    chunk = chunk_of(0, 8)
    assert slowed(chunk, 1.0) is chunk
    assert slowed(chunk, 0.5)[::2] == pytest.approx(chunk)
    assert len(slowed(chunk[:0], 0.5)) == 0
    with pytest.raises(ValueError, match="must be above 0"):
        slowed(chunk, 0.0)
