"""The reference vectors in tests/data/act: what LeRobot 0.6.1 computed, and the formula that made its weights."""

import functools
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import aloha_inputs

DATA = Path(__file__).parents[1] / "data"
NAMES = ("tiny", "aloha", "env_state", "prenorm_gelu", "resnet50_dilated_novae", "image_and_env_state")


def weight(name: str, shape: list[int], seed: int) -> NDArray[np.float32]:
    """The value of one tensor of the reference networks, a function of its name alone."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return np.asarray(0.5 + rng.random(shape), np.float32)
    x = rng.standard_normal(shape)
    if name.endswith("embed.weight"):
        pass
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif name.endswith("weight") and len(shape) == 1:
        x = 1 + 0.1 * x
    elif len(shape) >= 2:
        x = 2 * x / np.sqrt(np.prod(shape[1:]))
    else:
        x = 0.05 * x
    return np.asarray(x, np.float32)


@dataclass
class Vector:
    """One reference case: its description, arrays, and a way to build the policy that made them."""

    name: str
    spec: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def config(self, **changes: Any) -> ACTConfig:
        cameras = {name: tuple(size) for name, size in self.spec["cameras"].items()}
        shapes = aloha_inputs(cameras, self.spec["environment_state_dim"])
        return ACTConfig(**{**self.spec["config"], "input_shapes": shapes, "pretrained_backbone": False, **changes})

    def stats(self) -> dict[str, dict[str, torch.Tensor]]:
        stats: dict[str, dict[str, torch.Tensor]] = {}
        for key in self.arrays:
            if key.startswith("stats/"):
                _, feature, statistic = key.split("/")
                stats.setdefault(feature, {})[statistic] = torch.tensor(self.arrays[key])
        return stats

    @functools.cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(weight(name, shape, self.spec["seed"]))
            for name, shape in self.spec["state_dict"].items()
            if name != "model.vae_encoder_pos_enc"
        }

    @functools.cached_property
    def policy(self) -> ACTPolicy:
        return self.make_policy()

    def make_policy(self, **changes: Any) -> ACTPolicy:
        policy = ACTPolicy(self.config(**changes), self.stats())
        missing, unexpected = policy.load_state_dict(self.weights, strict=False)
        assert not unexpected
        assert set(missing) <= {"model.vae_encoder_pos_enc"}
        return policy.eval()

    def observation(self, index: int | slice) -> dict[str, NDArray[Any]]:
        """Observation(s) in raw units: images as uint8 (..., H, W, 3)."""
        result = {}
        for key, grid in self.arrays.items():
            if key.startswith("grid/observation.images."):
                height, width = self.spec["cameras"][key.rpartition(".")[2]]
                image = grid[index].repeat(height // 8, axis=-3).repeat(width // 8, axis=-2)
                result[key.removeprefix("grid/")] = image
            elif key.startswith("grid/"):
                result[key.removeprefix("grid/")] = grid[index]
        return result


def load(name: str) -> Vector:
    folder = DATA / "act"
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return Vector(name, json.loads((folder / f"{name}.json").read_text()), arrays)
