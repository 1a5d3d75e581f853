"""Statistics inside the weights, as LeRobot's releases up to 0.3 kept them, taken out while they are read.

They are tensors of model.safetensors such as `normalize_inputs.buffer_observation_images_top.mean`: the feature's name
with underscores for its dots.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from aloha_runtime.act.config import ACTION, ACTConfig
from aloha_runtime.errors import CheckpointError

INPUTS = "normalize_inputs."
OUTPUTS = ("unnormalize_outputs.", "normalize_targets.")
"""What the statistics of the actions are called; both hold the same."""


def has_statistics(weights: Mapping[str, Tensor]) -> bool:
    """Whether the normalisation lies inside the weights."""
    return any(name.startswith((INPUTS, *OUTPUTS)) for name in weights)


def without_statistics(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own weights. LeRobot today passes over statistics inside them and executes the pipelines alone."""
    return {key: value for key, value in weights.items() if not key.startswith((INPUTS, *OUTPUTS))}


def split_statistics(
    path: Path, config: ACTConfig, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The network's own weights, and the statistics `{feature: {statistic: tensor}}`.

    Raises CheckpointError for statistics that were never set (infinite: the policy had seen no dataset).
    """
    features = {name.replace(".", "_"): name for name in (*config.input_shapes, *config.output_shapes)}
    stats: dict[str, dict[str, Tensor]] = {}
    for prefix in (INPUTS, *reversed(OUTPUTS)):  # what undoes the normalisation has the last word
        for key, value in weights.items():
            if not key.startswith(f"{prefix}buffer_"):
                continue
            buffer, _, statistic = key.removeprefix(f"{prefix}buffer_").rpartition(".")
            if buffer not in features:
                raise CheckpointError(
                    f"{path}: {key} belongs to no feature of config.json; they are of different policies"
                )
            if not value.isfinite().all():
                raise CheckpointError(
                    f"{path}: {key} is not finite, so the policy was saved without the statistics of a dataset; save "
                    "it again with the ones it was trained with"
                )
            stats.setdefault(features[buffer], {})[statistic] = value
    if ACTION not in stats and "ACTION" in config.normalization_mapping:
        raise CheckpointError(f"{path}: there are no statistics of the actions; copy the whole checkpoint again")
    return without_statistics(weights), stats
