"""What `aloha demo` refuses before anything starts, and how `aloha bench stack` holds figures against goals."""

import json
from pathlib import Path

import pytest

from aloha_runtime.commands import bench_stack, demo
from aloha_runtime.commands.figures import figures
from aloha_runtime.errors import AlohaError, CheckpointError


def policy_directory(parent: Path, text: str) -> Path:
    (parent / "config.json").write_text(text)
    return parent


def test_the_inputs_of_a_policy_are_read_without_loading_it(tmp_path: Path) -> None:
    features = {"observation.state": {"type": "STATE", "shape": [14]}, "observation.environment_state": {}}
    directory = policy_directory(tmp_path, json.dumps({"type": "act", "input_features": features}))
    assert demo.policy_inputs(directory) == ["observation.state", "observation.environment_state"]


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"input_features": 3}'])
def test_a_directory_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match="not a LeRobot policy"):
        demo.policy_inputs(policy_directory(tmp_path, text))


def test_an_absent_policy_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        demo.demo(seed=1, policy=str(tmp_path / "absent"), out=tmp_path / "out", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    policy_directory(tmp_path, '{"input_features": {"observation.state": {}}}')
    (tmp_path / "file").touch()
    with pytest.raises(AlohaError, match="--out"):
        demo.demo(seed=1, policy=str(tmp_path), out=tmp_path / "file", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_are_held_against_their_goals() -> None:
    found = {"ticks_on_time": 0.995, "tick_lateness_p99_ms": 23.0, "inference_p50_ms": 7.0, "latency_p50_ms": None}
    made = bench_stack.rows(found, tuple((name, "unit") for name in found))
    assert [(row.name, row.goal, row.met) for row in made] == [
        ("ticks_on_time", 0.99, True),
        ("tick_lateness_p99_ms", 20.0, False),
        ("inference_p50_ms", None, None),
    ]


def test_every_row_of_the_benchmark_is_a_figure(short_log_figures: set[str]) -> None:
    wanted = {name for name, _ in (*bench_stack.POLICY_ROWS, *bench_stack.TELEOP_ROWS)}
    assert wanted <= short_log_figures
    assert bench_stack.GOALS.keys() <= short_log_figures


@pytest.fixture(scope="module")
def short_log_figures() -> set[str]:
    from made_up import demonstrated

    return set(figures(demonstrated(ticks=3)))
