"""The fuzzer finds nothing in the gate, and finds at once a gate that is a little too generous."""

import json
from pathlib import Path

import pytest

from aloha_runtime.commands import bench_fuzz, fuzz_terminal
from aloha_runtime.control.limits import limits_from


def test_no_goal_leaves_the_envelope_in_one_process() -> None:
    found = bench_fuzz.run(10_000, seed=0, workers=1)
    assert found.counts == {}, found.offences
    assert found.actions == 10_000
    assert found.followed > 1000
    assert found.goals > 50_000
    assert found.worst["velocity"] > 0.95, "nothing moved at the limit, so nothing was tried"
    assert found.worst["lead"] > 0.95


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"velocity_rad_s": 3.0}, "velocity"),
        ({"acceleration_rad_s2": 60.0}, "acceleration"),
        ({"lead_rad": 0.34}, "lead"),
        ({"position_margin_rad": 0.01}, "position"),
    ],
)
def test_a_generous_gate_is_found_out(change: dict[str, float], rule: str) -> None:
    limits = limits_from(change)
    assert any(rule in bench_fuzz.one(seed, limits=limits).counts for seed in range(40))


def test_a_seed_repeats_itself() -> None:
    assert bench_fuzz.one(7) == bench_fuzz.one(7)


def test_a_run_that_is_cut_off_has_said_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, last = bench_fuzz.one, 5

    def cut_off(seed: int) -> bench_fuzz.Found:
        if seed == last:
            raise KeyboardInterrupt
        return real(seed)

    monkeypatch.setattr(bench_fuzz, "SAVED_EVERY", 2)
    monkeypatch.setattr(bench_fuzz, "one", cut_off)
    path = tmp_path / "fuzz.json"
    with pytest.raises(KeyboardInterrupt):
        bench_fuzz.run(10_000, seed=0, workers=1, so_far=path)
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["one process: actions tried"]["value"] == 4000
    assert rows["one process: goals outside the envelope"]["met"] is True


def test_no_goal_leaves_the_envelope_on_the_terminal() -> None:
    found = fuzz_terminal.run(1000, seed=1)
    assert found.counts == {}, found.offences
    assert found.goals > 1000
