"""The policies that come with the package: whole, of known origin, and able to do their task."""

import json

import pytest

from aloha_runtime.act import ACTPolicy, provenance
from aloha_runtime.config import SHIPPED_POLICIES, policy_path
from aloha_runtime.sim import make_env


@pytest.mark.parametrize("name", SHIPPED_POLICIES)
def test_it_says_where_it_comes_from_and_names_no_machine(name: str) -> None:
    origin = provenance.read(policy_path(name))
    assert origin["dataset"]["total_episodes"] > 50
    assert origin["training"]["step"] > 1000
    for file in policy_path(name).glob("*.json"):
        assert '"/' not in file.read_text()


@pytest.mark.parametrize(("name", "task"), [("demo", "transfer_cube"), ("insertion", "insertion")])
def test_it_solves_its_task(name: str, task: str) -> None:
    policy = ACTPolicy.from_pretrained(policy_path(name))
    policy.config.temporal_ensemble_coeff = None
    policy.config.n_action_steps = 25  # open loop: a picture every half second
    env = make_env(task, cameras=policy.config.cameras)
    observation, _ = env.reset(seed=3)
    for _ in range(env.max_steps):
        observation, _, terminated, truncated, _ = env.step(policy.select_action(observation))
        if terminated or truncated:
            break
    env.close()
    assert terminated, f"stage {env.stage} of 4"


def test_shipped_names_are_the_folders_that_are_there() -> None:
    folder = policy_path("demo").parent
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(SHIPPED_POLICIES)
    assert all(json.loads((folder / name / "config.json").read_text())["type"] == "act" for name in SHIPPED_POLICIES)
