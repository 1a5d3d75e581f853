"""Raw units to normalised units and back, with the statistics of the data the policy was trained on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, ACTConfig, Shape, feature_type
from aloha_runtime.errors import CheckpointError

EPS = 1e-8
"""Added to a standard deviation (or range) before dividing by it; LeRobot's `normalizer_processor` has the same."""

Stats = Mapping[str, Mapping[str, Tensor]]
"""`{feature: {"mean" | "std" | "min" | "max": tensor}}`; images (3, 1, 1) for pixels in 0..1, vectors (n,)."""

_NEEDED = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max")}


class Normalizer:
    """x -> (x - offset) / scale per feature, after its mode in `normalization_mapping`.

    MEAN_STD gives zero mean and unit deviation, MIN_MAX -1..1; a feature whose type has no mode passes unchanged
    (LeRobot's default for `observation.environment_state`).
    """

    def __init__(self, config: ACTConfig, stats: Stats | None) -> None:
        """Without statistics (a policy that has seen no data yet) every feature passes unchanged."""
        stats = _neutral(config) if stats is None else stats
        self.stats = {name: {key: torch.as_tensor(value) for key, value in stats[name].items()} for name in stats}
        self.offset: dict[str, Tensor] = {}
        self.scale: dict[str, Tensor] = {}
        for name, shape in {**config.input_shapes, **config.output_shapes}.items():
            mode = config.normalization_mapping.get(feature_type(name), "IDENTITY")
            if mode in _NEEDED:
                first, second = (self._statistic(name, key, shape) for key in _NEEDED[mode])
                self.offset[name] = first if mode == "MEAN_STD" else (first + second) / 2
                self.scale[name] = second if mode == "MEAN_STD" else (second - first) / 2

    def _statistic(self, name: str, key: str, shape: Shape) -> Tensor:
        if key not in self.stats.get(name, {}):
            raise CheckpointError(f"statistics lack {name}.{key}, which normalises {name}; compute or copy them")
        value = self.stats[name][key].to(torch.float32)
        shape = (3, 1, 1) if name.startswith(IMAGE_PREFIX) else shape
        if value.numel() != torch.Size(shape).numel():
            raise CheckpointError(f"statistic {name}.{key} has shape {tuple(value.shape)}, must be {shape}")
        if not value.isfinite().all():
            raise CheckpointError(f"statistic {name}.{key} is not finite: {value.flatten().tolist()}")
        return value.reshape(shape)

    def to(self, device: torch.device) -> "Normalizer":
        self.offset = {name: value.to(device) for name, value in self.offset.items()}
        self.scale = {name: value.to(device) for name, value in self.scale.items()}
        return self

    def normalize(self, name: str, value: Tensor) -> Tensor:
        """`value` (..., *feature shape) in raw units, normalised."""
        if name not in self.offset:
            return value
        return (value - self.offset[name]) / (self.scale[name] + EPS)

    def unnormalize_action(self, value: Tensor) -> Tensor:
        """Actions (..., n) from normalised to raw units."""
        if ACTION not in self.offset:
            return value
        return value * self.scale[ACTION] + self.offset[ACTION]


def _neutral(config: ACTConfig) -> dict[str, dict[str, Tensor]]:
    """Statistics with which nothing changes."""
    values = {"mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0}
    sizes = {name: (3, 1, 1) if name in config.images else shape for name, shape in config.input_shapes.items()}
    return {
        name: {key: torch.full(size, value) for key, value in values.items()}
        for name, size in {**sizes, **config.output_shapes}.items()
    }
