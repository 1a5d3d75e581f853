"""A policy's actions and a person's reach the servos with the same delay: the real loops, in one run."""

import pytest

from aloha_runtime.commands import bench_delay


def test_a_policy_moves_the_arms_as_late_as_a_person_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_delay, "MEASURED_S", 2.0)  # one whole swing
    found = bench_delay.measure(inference_ms=8)
    assert found.teleop == pytest.approx(10.5, abs=1.0)
    assert found.policy == pytest.approx(found.teleop, abs=bench_delay.AGREES_MS)
