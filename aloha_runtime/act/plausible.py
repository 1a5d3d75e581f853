"""What a policy's files claim, against what a policy can be: before the network is built and anything moves."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from aloha_runtime.act.config import ACTConfig
from aloha_runtime.errors import CheckpointError

NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights. Others (whole numbers, 8-bit floats) are quantised, and mean nothing without their scales."""
TRUNK = {"resnet18": 11_000_000, "resnet34": 21_000_000, "resnet50": 23_000_000}
"""Numbers that these trunks have at least."""
LARGEST_WEIGHT = 1e18
"""Above it a sum of squares leaves float32. Trained weights lie below 1e3."""


def refuse_larger_network(config: ACTConfig, weights: Path) -> None:
    """Raise CheckpointError when the layers that the configuration describes alone have more numbers than the file of
    weights has bytes: building them would take minutes and all memory."""
    wide, layers = config.dim_model, config.n_encoder_layers + config.n_decoder_layers
    layers += config.n_vae_encoder_layers if config.use_vae else 0
    inputs = config.state_dim + config.environment_state_dim + config.action_dim + config.chunk_size
    numbers = layers * (4 * wide * wide + 2 * wide * config.dim_feedforward) + wide * inputs
    numbers += TRUNK.get(config.vision_backbone, 0) if config.images else 0
    size = weights.stat().st_size
    if numbers > size:
        raise CheckpointError(
            f"{weights} does not fit config.json: it has {size} bytes, and the layers that config.json describes have"
            f" {numbers} numbers. They are of different policies; copy the whole directory again"
        )


def refuse_other_numbers(path: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for weights that are no numbers of a network, or such as none can calculate with."""
    for name, tensor in weights.items():
        if name in wanted and wanted[name].is_floating_point() and tensor.dtype not in NUMBERS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: weights {name} are {kind}; save them as float32")
        if not tensor.is_floating_point() or tensor.dtype not in NUMBERS or not tensor.numel():
            continue
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: weights {name} are not finite; training diverged")
        if (largest := float(tensor.abs().max())) > LARGEST_WEIGHT:
            raise CheckpointError(f"{path}: weights {name} reach {largest:.2g}; training diverged, or it is damaged")


def refuse_backward_statistics(stats: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise CheckpointError for deviations below zero, a smallest number above the largest, or what leaves float32."""
    for feature, values in stats.items():
        for name, value in values.items():
            if value.dtype not in NUMBERS or not value.numel() or not value.isfinite().all():
                continue  # the normaliser refuses it, with its own message
            if (largest := float(value.abs().max())) > LARGEST_WEIGHT:
                raise CheckpointError(f"statistic {feature}.{name} reaches {largest:.2g}")
        if "std" in values and (values["std"].float() < 0).any():
            raise CheckpointError(
                f"statistic {feature}.std is {float(values['std'].float().min()):.4g}: a deviation is not negative;"
                " compute the statistics again"
            )
        if {"min", "max"} <= set(values):
            low, high = values["min"].float(), values["max"].float()
            if low.shape == high.shape and (low > high).any():
                raise CheckpointError(f"statistic {feature}: min is above max; compute the statistics again")
