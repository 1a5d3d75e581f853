"""Raw units to normalised units and back, with the statistics of the data the policy was trained on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, ACTConfig, Shape
from aloha_runtime.act.processing import Processing
from aloha_runtime.errors import CheckpointError

Stats = Mapping[str, Mapping[str, Tensor]]
"""`{feature: {"mean" | "std" | "min" | "max" | ...: tensor}}`; images (3, 1, 1) for pixels in 0..1, vectors (n,)."""

NEEDED = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""Statistics that each mode needs."""


class Normalizer:
    """x -> (x - offset) / divisor - shift per feature, after its mode; y -> (y + shift) * scale + offset back.

    MEAN_STD gives zero mean and unit deviation, the others -1..1 between two statistics; a feature without a mode
    passes unchanged (LeRobot's default for `observation.environment_state`). The arithmetic is LeRobot's
    (`processor/normalize_processor.py`): eps is added to a deviation, and stands in for a range only where that is 0.
    """

    def __init__(self, config: ACTConfig, stats: Stats | None, processing: Processing | None = None) -> None:
        """Without statistics (a policy that has seen no data yet) every feature passes unchanged."""
        processing = processing or Processing.of(config)
        stats = _neutral(config) if stats is None else stats
        self.stats = {name: {key: torch.as_tensor(value) for key, value in stats[name].items()} for name in stats}
        self.offset: dict[str, Tensor] = {}
        self.scale: dict[str, Tensor] = {}
        self.divisor: dict[str, Tensor] = {}
        self.shift: dict[str, float] = {}
        for name, shape in {**config.input_shapes, **config.output_shapes}.items():
            mode, eps = processing.mode(name), processing.action_eps if name == ACTION else processing.eps
            if mode not in NEEDED:
                continue
            first, second = (self._statistic(name, key, shape) for key in NEEDED[mode])
            self.offset[name] = first
            self.shift[name] = 0.0 if mode == "MEAN_STD" else 1.0
            span = second - first
            half = torch.where(span == 0, torch.full_like(span, eps), span) / 2
            self.scale[name] = second if mode == "MEAN_STD" else half
            self.divisor[name] = second + eps if mode == "MEAN_STD" else half
            if (self.divisor[name] == 0).any():
                raise CheckpointError(
                    f"{name} would be divided by 0: its {' and '.join(NEEDED[mode])} and eps = {eps:g}"
                )

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
        for values in (self.offset, self.scale, self.divisor):
            values.update({name: value.to(device) for name, value in values.items()})
        return self

    def normalize(self, name: str, value: Tensor) -> Tensor:
        """`value` (..., *feature shape) in raw units, normalised."""
        if name not in self.offset:
            return value
        normalized = (value - self.offset[name]) / self.divisor[name]
        return normalized - self.shift[name] if self.shift[name] else normalized

    def unnormalize_action(self, value: Tensor) -> Tensor:
        """Actions (..., n) from normalised to raw units."""
        if ACTION not in self.offset:
            return value
        return (value + self.shift[ACTION]) * self.scale[ACTION] + self.offset[ACTION]


def _neutral(config: ACTConfig) -> dict[str, dict[str, Tensor]]:
    """Statistics with which nothing changes."""
    values = {
        "mean": 0.0,
        "std": 1.0,
        **dict.fromkeys(("min", "q01", "q10"), -1.0),
        **dict.fromkeys(("max", "q99", "q90"), 1.0),
    }
    sizes = {name: (3, 1, 1) if name in config.images else shape for name, shape in config.input_shapes.items()}
    return {
        name: {key: torch.full(size, value) for key, value in values.items()}
        for name, size in {**sizes, **config.output_shapes}.items()
    }
