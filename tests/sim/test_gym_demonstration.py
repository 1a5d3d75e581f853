"""Demonstrations in gym-aloha: solved by its own reward, and recorded as a policy will see them."""

import numpy as np
import pytest

from aloha_runtime.commands.demonstrate import record_in_gym
from aloha_runtime.sim.gym_demonstration import AFTER_SUCCESS
from aloha_runtime.sim.gym_env import GymEnv


@pytest.mark.parametrize(("name", "least"), [("AlohaTransferCube-v0", 3), ("AlohaInsertion-v0", 1)])
def test_the_demonstrator_solves_its_tasks(name: str, least: int) -> None:
    env = GymEnv(name, cameras={})
    solved = 0
    for seed in range(3):
        env.reset(seed=seed)
        action = env.demonstrator()
        ends = (False, False)
        while not any(ends):
            ends = env.advance(action())
        solved += ends[0]
    env.close()
    assert solved >= least


@pytest.mark.long
def test_a_recorded_demonstration_plays_again() -> None:
    """The recorded actions, with the pushes that were not recorded left out, still solve the task."""
    episode = record_in_gym("AlohaTransferCube-v0", (("top", (16, 12)),), 5)
    assert episode.solved_at_end
    steps = len(episode.action)
    assert episode.images["top"].shape == (steps, 12, 16, 3)
    assert episode.state.shape == (steps, 14)
    env = GymEnv("AlohaTransferCube-v0", cameras={})
    env.reset(seed=5)
    np.testing.assert_allclose(env.state(), episode.state[0])
    np.testing.assert_allclose(env.environment_state(), episode.environment_state[0])
    ends = [env.advance(action)[0] for action in episode.action]
    env.close()
    assert any(ends)
    assert abs(ends.index(True) - (steps - 1 - AFTER_SUCCESS)) < 20
