"""`aloha bench jitter`: what is measured, and that no figure is shown for a priority that was not granted."""

import re

import psutil
import pytest

from aloha_runtime.commands import bench_jitter
from aloha_runtime.commands.bench_jitter import Condition, Jitter, refuse_ungranted
from aloha_runtime.errors import AlohaError

ORDINARY = Condition(None, 0)


def test_a_priority_that_was_not_granted_is_not_measured() -> None:
    with pytest.raises(AlohaError, match="the bare loop runs at priority 0, not 50: no real-time priority"):
        refuse_ungranted(Condition(50, 4), "the bare loop", 0, "no real-time priority")
    with pytest.raises(AlohaError, match="not 0"):
        refuse_ungranted(ORDINARY, "arms@followers", 50, "")
    refuse_ungranted(Condition(50, 0), "policy", 50, "")
    refuse_ungranted(ORDINARY, "policy", 0, "")


def test_the_bare_loop_beats_by_itself() -> None:
    found = bench_jitter._bare(ORDINARY, 5_000_000, 0.3)
    assert set(found) == set(bench_jitter.FIGURES)
    assert 0 <= found["lateness_p50_ms"] <= found["lateness_p99_ms"] <= found["lateness_worst_ms"]


def test_busy_processes_end_with_the_measurement() -> None:
    before = set(psutil.Process().children())
    with bench_jitter.busy(2):
        assert len(set(psutil.Process().children()) - before) == 2
    assert not set(psutil.Process().children()) - before


def test_the_table_has_both_loops_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"lateness_p50_ms": 0.1, "lateness_p99_ms": 0.25, "lateness_worst_ms": 3.5, "skipped": 6.0}
    bare = {"lateness_p50_ms": 0.05, "lateness_p99_ms": 0.12, "lateness_worst_ms": 1.25, "skipped": 0.0}
    bench_jitter.show([Jitter("arms", Condition(50, 4), 1994.0, ours, bare)], 0.5)
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "200 Hz" in line)
    for cell in ("SCHED_FIFO 50", "4", "0.10 / 0.05", "0.25 / 0.12", "3.50 / 1.25", "6 of 2000 / 0"):
        assert re.search(rf"│ +{re.escape(cell)} +│", row), cell
