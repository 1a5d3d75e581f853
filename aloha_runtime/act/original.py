"""Checkpoints of the original ACT code (`policy_best.ckpt` and `dataset_stats.pkl`) as our policies.

Zhao et al. 2023, https://github.com/tonyzhaozh/act. The state dict says all sizes but the number of heads; the cameras'
names and order are nowhere in it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, STATE, ACTConfig, PolicyConfigError, Shape
from aloha_runtime.act.importer import read_pickle, read_torch_file
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.errors import CheckpointError

NAMES = (
    ("backbones.0.0.body.", "backbone."),
    ("transformer.encoder.", "encoder."),
    ("transformer.decoder.layers.0.", "decoder.layers.0."),
    ("transformer.decoder.norm.", "decoder.norm."),
    ("encoder.layers.", "vae_encoder.layers."),
    ("encoder.norm.", "vae_encoder.norm."),
    ("query_embed.", "decoder_pos_embed."),
    ("input_proj.", "encoder_img_feat_input_proj."),
    ("input_proj_robot_state.", "encoder_robot_state_input_proj."),
    ("cls_embed.", "vae_encoder_cls_embed."),
    ("encoder_action_proj.", "vae_encoder_action_input_proj."),
    ("encoder_joint_proj.", "vae_encoder_robot_state_input_proj."),
    ("latent_proj.", "vae_encoder_latent_output_proj."),
    ("latent_out_proj.", "encoder_latent_input_proj."),
    ("additional_pos_embed.", "encoder_1d_feature_pos_embed."),
    ("action_head.", "action_head."),
    ("pos_table", "vae_encoder_pos_enc"),
)
"""Beginnings of names there, and of LeRobot's (and our) names."""

UNUSED_LAYER = re.compile(r"transformer\.decoder\.layers\.[1-9]\d*\.")
"""The original computes seven decoder layers and takes the output of the first."""
PAD_HEAD = "is_pad_head."
"""Predicts padding; nothing ever read it."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""How the original normalises images (torchvision's statistics of ImageNet, pixels in 0..1)."""
STD_FLOOR = 1e-2
"""The original raises smaller deviations of joints and actions to this when it computes its statistics."""

_RESNETS = {("BasicBlock", 2): "resnet18", ("BasicBlock", 6): "resnet34", ("Bottleneck", 6): "resnet50"}
"""By kind of block, and blocks in the third stage."""


@dataclass
class Converted:
    """The policy, and in `notes` what a user should know of the conversion."""

    policy: ACTPolicy
    notes: list[str] = field(default_factory=list)


def convert(
    checkpoint: Path, stats: Path, cameras: Iterable[str], *, n_heads: int, image_size: tuple[int, int]
) -> Converted:
    """The policy in `checkpoint`, which saw `cameras` in this order, at `image_size` (height, width).

    Raises CheckpointError naming what is missing, unknown or does not fit.
    """
    state = _state_dict(checkpoint, read_torch_file(checkpoint))
    weights, dropped = _renamed(checkpoint, state)
    shapes: dict[str, Shape] = {f"{IMAGE_PREFIX}{camera}": (3, *image_size) for camera in cameras}
    config = _config(checkpoint, state, shapes, n_heads)
    statistics, notes = _statistics(stats, config)
    policy = ACTPolicy(config, statistics, pretrained_backbone=False)
    _load(checkpoint, policy, weights)
    layers = sorted({name.split(".")[3] for name in dropped if UNUSED_LAYER.match(name)}, key=int)
    if layers:
        notes.insert(0, f"dropped decoder layers {layers[0]} to {layers[-1]}: the original never used their output")
    if any(name.startswith(PAD_HEAD) for name in dropped):
        notes.insert(0, "dropped is_pad_head: nothing ever read it")
    return Converted(policy.eval(), notes)


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Tensors by their names without the leading `model.`."""
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = "a dict of other things than tensors" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(
            f"{path} holds {kind}, not ACT's state dict; give policy_best.ckpt or policy_epoch_*.ckpt"
        )
    return {str(name).removeprefix("model."): value for name, value in content.items()}


def _renamed(path: Path, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under our names, and the names that are left out."""
    weights: dict[str, Tensor] = {}
    dropped, unknown = [], []
    for name, value in state.items():
        ours = next((new + name.removeprefix(old) for old, new in NAMES if name.startswith(old)), None)
        if UNUSED_LAYER.match(name) or name.startswith(PAD_HEAD) or name.endswith(".num_batches_tracked"):
            dropped.append(name)
        elif ours is None:
            unknown.append(name)
        else:
            weights[f"model.{ours}"] = value.float()
    if unknown:
        more = " (one trunk for each camera, which LeRobot's ACT does not have)" if "backbones.1." in unknown[0] else ""
        raise CheckpointError(
            f"{path}: {len(unknown)} tensors are not of the original ACT, such as {unknown[0]}{more}; only "
            "checkpoints of its CVAE policy can be converted"
        )
    return weights, dropped


def _config(path: Path, state: Mapping[str, Tensor], images: Mapping[str, Shape], n_heads: int) -> ACTConfig:
    """All sizes, read off the shapes of the weights."""

    def shape(name: str, dims: int = 2) -> tuple[int, ...]:
        if name not in state or state[name].dim() != dims:
            raise CheckpointError(
                f"{path}: {name} is missing or no {dims}-dimensional tensor; it is not ACT's state dict"
            )
        return tuple(state[name].shape)

    def layers(prefix: str) -> int:
        found = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
        return len(found)

    chunk_size, dim_model = shape("query_embed.weight")
    try:
        return ACTConfig(
            input_shapes={**images, STATE: (shape("input_proj_robot_state.weight")[1],)},
            output_shapes={ACTION: (shape("action_head.weight")[0],)},
            chunk_size=chunk_size,
            dim_model=dim_model,
            n_heads=n_heads,
            dim_feedforward=shape("transformer.encoder.layers.0.linear1.weight")[0],
            n_encoder_layers=layers("transformer.encoder.layers."),
            n_vae_encoder_layers=layers("encoder.layers."),
            latent_dim=shape("latent_out_proj.weight")[1],
            pre_norm="transformer.encoder.norm.weight" in state,
            vision_backbone=_resnet(path, state, layers),
            pretrained_backbone=False,
        )
    except PolicyConfigError as error:
        raise CheckpointError(f"{path} cannot be converted: {error}") from error


def _resnet(path: Path, state: Mapping[str, Tensor], layers: Any) -> str:
    body = "backbones.0.0.body."
    kind = "Bottleneck" if f"{body}layer1.0.conv3.weight" in state else "BasicBlock"
    blocks = layers(f"{body}layer3.")
    if (kind, blocks) not in _RESNETS:
        raise CheckpointError(
            f"{path}: its trunk has {blocks} blocks ({kind}) in the third stage; only those of "
            f"{', '.join(_RESNETS.values())} can be converted"
        )
    return _RESNETS[kind, blocks]


def _statistics(path: Path, config: ACTConfig) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    content = read_pickle(path)
    notes = []
    stats: dict[str, dict[str, Tensor]] = {
        name: {"mean": _rgb(IMAGENET_MEAN), "std": _rgb(IMAGENET_STD)} for name in config.images
    }
    for feature, theirs, size in ((STATE, "qpos", config.state_dim), (ACTION, "action", config.action_dim)):
        stats[feature] = {key: _vector(path, content, f"{theirs}_{key}", size) for key in ("mean", "std")}
        low = int((stats[feature]["std"] <= STD_FLOOR * (1 + 1e-6)).sum())
        if low:
            notes.append(f"{low} of {size} deviations of {feature} are at the original's floor of {STD_FLOOR}")
    notes.append("images are normalised with ImageNet's statistics, as the original does")
    return stats, notes


def _rgb(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _vector(path: Path, content: Any, key: str, size: int) -> Tensor:
    value: NDArray[Any] | None = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, np.ndarray):
        there = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has no array {key!r} (there is: {there}); give the run's dataset_stats.pkl")
    if value.size != size or not np.isfinite(value).all():
        raise CheckpointError(
            f"{path}: {key} must be {size} finite numbers, as the checkpoint's weights say; it is {value}"
        )
    return torch.tensor(value.ravel().astype(np.float32))


def _load(path: Path, policy: ACTPolicy, weights: dict[str, Tensor]) -> None:
    wanted = policy.state_dict()
    for verb, names in (("missing", set(wanted) - set(weights)), ("too many", set(weights) - set(wanted))):
        if names:
            raise CheckpointError(f"{path}: {len(names)} tensors are {verb}, such as {min(names)} (LeRobot's names)")
    for name, value in wanted.items():
        if weights[name].shape != value.shape or not weights[name].isfinite().all():
            raise CheckpointError(
                f"{path}: {name} (LeRobot's name) has shape {tuple(weights[name].shape)}, must be finite and "
                f"{tuple(value.shape)}"
            )
    policy.load_state_dict(weights)
