"""Validation: the errors of the policy as it would run, on frames of episodes that training never sees."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.augment import Augmentation
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.act.policy import ACTPolicy

BATCH = 64
"""Frames at once: gradients are not kept, so more fit than in training."""


@torch.no_grad()
def validate(
    policy: ACTPolicy, averaged: Mapping[str, Tensor], data: TrainingData, frames: NDArray[np.int64], batch_size: int
) -> dict[str, float]:
    """Errors as at run time (averaged weights, latent zero): `l1` or `l2` in normalised units, and `estimate` in the
    dataset's units. Weights and random state stay as they are."""
    current = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.load_state_dict(averaged)
    policy.eval()
    sums: dict[str, float] = {}
    try:
        for part in np.array_split(frames, math.ceil(len(frames) / max(BATCH, batch_size))):
            for name, value in _errors(policy, data, part).items():
                sums[name] = sums.get(name, 0.0) + value * len(part) / len(frames)
    finally:
        policy.load_state_dict(current)
    return sums


def _errors(policy: ACTPolicy, data: TrainingData, frames: NDArray[np.int64]) -> dict[str, float]:
    batch = data.batch(frames, policy.config.chunk_size, Augmentation(), np.random.default_rng(0))
    output = policy({name: value for name, value in batch.items() if name not in (ACTION, IS_PAD)})
    kind: str = policy.config.action_loss
    errors = {kind: policy.losses(output, batch)[f"{kind}_loss"].item()}
    if "estimate" in output:
        errors["estimate"] = policy.estimate_error(output["estimate"], batch[ENVIRONMENT_STATE])
    return errors


def spread(frames: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of the frames, evenly spread, or all when there are fewer."""
    return frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).astype(np.int64)] if len(frames) else frames
