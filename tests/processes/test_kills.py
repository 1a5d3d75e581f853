"""Processes killed while the arms move: the goals stop, nothing falls, and the system can be armed and moved again.

Three of them, in virtual time; `aloha bench kills` does all.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import SMALL_POLICY, aloha_inputs
from aloha_runtime.commands.bench_kills import Outcome, outcomes, rows
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import START_POSE, pose_vector

EXPECTED = {"arms@followers": Mode.FAULT, "supervisor": Mode.HOLD, "policy": Mode.HOLD}
"""What each death ends in."""


def random_policy(directory: Path) -> Path:
    """A small policy for the shipped simulated rig that never was trained; it trembles about the start pose."""
    torch.manual_seed(0)
    small = {"temporal_ensemble_coeff": 0.01, "estimate_dim": 0, "dim_model": 32, "n_heads": 2, "dim_feedforward": 64}
    inputs = aloha_inputs({"cam_high": (120, 160)})
    config = ACTConfig(input_shapes=inputs, **{**SMALL_POLICY, **small, "small_cnn_width": 8})
    shapes = {"observation.state": (14,), "action": (14,), "observation.images.cam_high": (3, 1, 1)}
    stats = {name: {"mean": torch.zeros(shape), "std": torch.full(shape, 0.2)} for name, shape in shapes.items()}
    for name in ("observation.state", "action"):
        stats[name]["mean"] = torch.tensor(pose_vector(START_POSE, 0.5), dtype=torch.float32)
    ACTPolicy(config, stats).save_pretrained(directory, dataset={"fps": 50})
    return directory


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Two systems at a time."""
    policy = str(random_policy(tmp_path_factory.mktemp("kills") / "policy"))
    with ThreadPoolExecutor() as pool:
        teleoperated = pool.submit(outcomes, Job.DEMONSTRATE, ("arms@followers", "supervisor"))
        deployed = pool.submit(outcomes, Job.DEPLOY, ("policy",), policy)
        yield {outcome.victim: outcome for outcome in [*teleoperated.result(), *deployed.result()]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", EXPECTED)
def test_the_arms_stop_hold_and_move_again_when_the_operator_says_so(found: dict[str, Outcome], victim: str) -> None:
    outcome = found[victim]
    assert outcome.mode is EXPECTED[victim]
    assert victim in outcome.cause
    assert not outcome.driven
    assert outcome.after_action_ms <= 70
    assert outcome.travel_rad <= (0.30 if victim == "arms@followers" else 0.27)
    assert outcome.outside == 0
    assert outcome.torque
    assert outcome.again == ""
    assert all(row.met for row in rows(outcome))


def test_the_goals_outlive_the_supervisor_no_longer_than_its_word_counts(found: dict[str, Outcome]) -> None:
    assert found["supervisor"].after_kill_ms <= 220
