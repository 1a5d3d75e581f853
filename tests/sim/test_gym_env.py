"""gym-aloha's environments behind our interface: pixel for pixel and number for number those of gym-aloha itself."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from aloha_runtime.errors import SimulationError
from aloha_runtime.sim.env import GYM_TASKS, as_action
from aloha_runtime.sim.gl import ensure_gl
from aloha_runtime.sim.gym_env import GymEnv

NAMES = tuple(GYM_TASKS)


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, GymEnv]]:
    """gym-aloha's untouched environment, and ours."""
    ensure_gl()
    import gym_aloha  # noqa: F401
    import gymnasium

    theirs = gymnasium.make(f"gym_aloha/{request.param}", obs_type="pixels_agent_pos")
    ours = GymEnv(request.param)
    yield theirs, ours
    ours.close()


def test_pixels_states_rewards_and_ends_are_gym_alohas(pair: tuple[Any, GymEnv]) -> None:
    theirs, ours = pair
    random = np.random.default_rng(0)
    for seed in (0, 7):
        expected, info = theirs.reset(seed=seed)
        observation, our_info = ours.reset(seed=seed)
        assert our_info == info
        action = expected["agent_pos"].copy()
        for _ in range(2):
            np.testing.assert_array_equal(observation["observation.images.top"], expected["pixels"]["top"])
            np.testing.assert_array_equal(observation["observation.state"], expected["agent_pos"].astype(np.float32))
            action += random.normal(0, 0.05, 14)
            expected, *rest = theirs.step(action)
            observation, *our_rest = ours.step(action)
            assert our_rest == rest


def test_a_small_picture_is_the_mean_of_the_large_one(pair: tuple[Any, GymEnv]) -> None:
    _, ours = pair
    ours.reset(seed=1)
    large = ours.render().astype(float)
    mean = large.reshape(120, 4, 160, 4, 3).mean(axis=(1, 3))
    assert np.abs(ours.render(160, 120) - mean).max() <= 0.5
    assert mean.std() > 10


def test_poses_are_a_function_of_the_seed(pair: tuple[Any, GymEnv]) -> None:
    theirs, ours = pair
    poses = []
    for seed in (3, 4, 3):
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        poses.append(ours.environment_state())
        physics = theirs.unwrapped._env.physics
        np.testing.assert_array_equal(poses[-1], theirs.unwrapped._env.task.get_env_state(physics))
    assert (poses[0] == poses[2]).all()
    assert (poses[0] != poses[1]).any()


def test_the_episode_ends_after_its_steps_and_without_a_picture() -> None:
    env = GymEnv(NAMES[0], cameras={}, max_steps=5)
    observation, _ = env.reset(seed=0)
    assert set(observation) == {"observation.state", "observation.environment_state"}
    ends = [env.advance(env.state()) for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    env.close()


def test_touching_the_cube_is_rewarded_as_gym_aloha_does() -> None:
    """The cube is put into the left gripper's finger: stage 3 on the table, 4 in the air, which ends the episode."""
    env = GymEnv("gym_aloha/AlohaTransferCube-v0", cameras={})
    env.reset(seed=0)
    physics = env._control.physics
    finger = physics.named.data.geom_xpos["vx300s_left/10_left_gripper_finger"]
    with physics.reset_context():
        physics.named.data.qpos["red_box_joint"] = [*finger, 1, 0, 0, 0]
    assert env.advance(env.state()) == (True, False)
    assert env.stage == 4
    env.reset(seed=0)
    assert env.stage == 0
    env.close()


def test_the_only_camera_of_a_policy_is_top_whatever_its_name() -> None:
    env = GymEnv(NAMES[0], cameras={"cam_high": (120, 160)})
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["observation.images.cam_high"], env.render(160, 120))
    env.close()
    env = GymEnv(NAMES[0], cameras={"angle": (480, 640), "top": (480, 640)})
    observation, _ = env.reset(seed=0)
    assert (observation["observation.images.angle"] != observation["observation.images.top"]).any()
    env.close()


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ({"cam_high": (120, 160), "cam_low": (120, 160)}, r"no camera 'cam_high'.*top"),
        ({"top": (720, 1280)}, r"640x480.*1280x720 of 'top'"),
    ],
)
def test_cameras_that_are_not_there_are_named(cameras: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        GymEnv(NAMES[0], cameras)


def test_actions_are_taken_from_arrays_and_tensors_and_nothing_else() -> None:
    numbers = np.linspace(-1, 1, 14)
    for action in (numbers, numbers[None], torch.tensor(numbers, requires_grad=True), list(numbers)):
        np.testing.assert_array_equal(as_action(action), numbers)
    for wrong in (numbers[:13], np.stack([numbers] * 2), np.full(14, np.nan)):
        with pytest.raises(SimulationError, match=r"\(14,\) finite numbers"):
            as_action(wrong)
