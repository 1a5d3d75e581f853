"""Scripted demonstrations in gym-aloha's own environments, recorded as a policy will see them there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import Vector
from aloha_runtime.sim.gym_env import CAMERA, GymEnv
from aloha_runtime.sim.render import Image
from aloha_runtime.sim.tasks import SUCCESS_STAGE

AFTER_SUCCESS = 25
"""Steps recorded after the first success: half a second, in which a policy learns to stay."""


@dataclass(frozen=True)
class GymEpisode:
    """`state` and `action` (T, 14) as gym-aloha has them, `environment_state` (T, 7 or 14), `images` of `top`."""

    seed: int
    state: NDArray[np.float64]
    action: NDArray[np.float64]
    environment_state: NDArray[np.float64]
    images: dict[str, Image]
    solved_at_end: bool


def demonstrate(env: GymEnv, seed: int, pushes: NDArray[np.float64], size: tuple[int, int]) -> GymEpisode:
    """One demonstration, `pushes` (T, 14) rad added to what the arms are told; pictures of `size` (width, height)."""
    env.reset(seed=seed)
    next_action = env.demonstrator()
    rows: dict[str, list[Vector]] = {"state": [], "action": [], "environment_state": []}
    pictures: list[Image] = []
    solved: int | None = None
    for step, push in enumerate(pushes):
        rows["state"].append(env.state())
        rows["environment_state"].append(env.environment_state())
        pictures.append(env.render(*size))
        rows["action"].append(next_action())
        env.advance(rows["action"][-1] + push)
        if solved is None and env.stage == SUCCESS_STAGE:
            solved = step
        if solved is not None and step == solved + AFTER_SUCCESS:
            break
    columns = {name: np.stack(values) for name, values in rows.items()}
    return GymEpisode(
        seed=seed, images={CAMERA: np.stack(pictures)}, solved_at_end=env.stage == SUCCESS_STAGE, **columns
    )
