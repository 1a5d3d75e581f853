"""The late-tick rule, against a count by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.control.health import TickHealth, TickRecord


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=300))
def test_success_is_the_share_of_the_last_100_ticks(ticks):
    record, history = TickRecord(), [True] * 100
    for on_time, skipped in ticks:
        verdict = record.add(on_time, skipped)
        history += [False] * skipped + [on_time]
        share = sum(history[-100:]) / 100
        assert record.success == share
        expected = TickHealth.HOLD if share < 0.80 else TickHealth.DEGRADED if share < 0.95 else TickHealth.GOOD
        assert verdict is record.verdict is expected


@pytest.mark.parametrize(
    ("late", "verdict"),
    [
        (0, TickHealth.GOOD),
        (5, TickHealth.GOOD),
        (6, TickHealth.DEGRADED),
        (20, TickHealth.DEGRADED),
        (21, TickHealth.HOLD),
    ],
)
def test_thresholds(late, verdict):
    record = TickRecord()
    for _ in range(late):
        record.add(False)
    assert record.verdict is verdict


def test_a_long_stall_counts_as_a_full_window():
    assert TickRecord().add(True, skipped=10**9) is TickHealth.HOLD
