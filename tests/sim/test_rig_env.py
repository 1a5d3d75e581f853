"""The simulated rig as an environment: the episodes of `sim/episode.py` step by step; environments by name."""

import subprocess
import sys

import numpy as np
import pytest

from aloha_runtime.errors import SimulationError
from aloha_runtime.sim import make_env
from aloha_runtime.sim.episode import demonstration, run_episode
from aloha_runtime.sim.gym_env import GymEnv
from aloha_runtime.sim.model import TASKS, Task
from aloha_runtime.sim.render import Renderer
from aloha_runtime.sim.rig_env import START_OFFSET_RAD, RigEnv


@pytest.mark.parametrize("task", TASKS)
def test_a_demonstration_goes_as_in_a_recorded_episode(task: Task) -> None:
    env = RigEnv(task, cameras={})
    observation, info = env.reset(seed=5)
    assert info == {"is_success": False}
    act = env.demonstrator()
    states, stages = [], []
    for _ in range(env.max_steps):
        states.append(observation["observation.state"])
        observation, reward, terminated, truncated, info = env.step(act())
        stages.append(reward)
        assert info["is_success"] == terminated == (reward == 4)
        if terminated:
            break
    assert terminated
    assert not truncated

    twin = RigEnv(task, cameras={})
    twin.reset(seed=5)
    world = twin._world
    episode = run_episode(world, 5, demonstration(world, 5)[0], len(stages))
    np.testing.assert_array_equal(episode.stages, stages)
    np.testing.assert_array_equal(episode.state.astype(np.float32), states)


def test_a_seed_gives_the_start_and_arms_are_beside_the_pose() -> None:
    env = RigEnv("transfer_cube", cameras={})
    starts = [np.concatenate([env.reset(seed=seed)[0][key] for key in env.observe()]) for seed in (1, 2, 1)]
    np.testing.assert_array_equal(starts[0], starts[2])
    assert (starts[0][:14] != starts[1][:14]).any()
    assert (starts[0][14:] != starts[1][14:]).any()
    difference = np.abs(starts[0][:6] - starts[1][:6])
    assert 0 < difference.max() <= 2 * START_OFFSET_RAD + 1e-3


def test_pictures_are_the_rigs_own_and_of_this_instant() -> None:
    env = RigEnv("transfer_cube", cameras={"cam_high": (120, 160)}, max_steps=2)
    before, _ = env.reset(seed=1)
    with Renderer(env._world.model, 160, 120, "cam_high") as camera:
        expected = camera.render(env._world.snapshot())
    np.testing.assert_array_equal(before["observation.images.cam_high"], expected)
    action = env.state()
    action[7] += 0.5
    assert env.advance(action) == (False, False)
    after, _, _, truncated, _ = env.step(action)
    assert truncated
    assert (after["observation.images.cam_high"] != before["observation.images.cam_high"]).any()
    assert env.render(320, 240).shape == (240, 320, 3)
    env.close()


def test_environments_are_made_by_name() -> None:
    assert isinstance(make_env("insertion", cameras={}), RigEnv)
    gym = make_env("gym_aloha/AlohaInsertion-v0", max_steps=7)
    assert isinstance(gym, GymEnv)
    assert (gym.task, gym.max_steps) == ("insertion", 7)
    gym.close()
    with pytest.raises(SimulationError, match=r"no task 'fold'.*AlohaInsertion-v0.*transfer_cube"):
        make_env("fold")
    with pytest.raises(SimulationError, match=r"no camera 'cam_belly'.*cam_high"):
        make_env("insertion", cameras={"cam_belly": (480, 640)})


def test_emulated_chains_load_no_mujoco() -> None:
    code = "import sys, aloha_runtime.sim.chain; print('mujoco' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
