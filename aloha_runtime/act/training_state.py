"""Checkpoints of a training run: the policy, and beside it what resuming needs, as safetensors and JSON."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aloha_runtime.act import checkpoint
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.errors import CheckpointError

STATE = "training_state"
TENSORS = "state.safetensors"
STEP = "training_step.json"


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint of a run, if there is one."""
    path = output_dir / "checkpoints" / "last"
    return path if path.exists() else None


def best_error(output_dir: Path) -> float:
    """Validation error of the best checkpoint so far."""
    path = output_dir / "checkpoints" / "best" / STATE / STEP
    return float(_read_step(path)["validation_error"])


def save_checkpoint(
    output_dir: Path,
    step: int,
    policy: ACTPolicy,
    averaged: Mapping[str, Tensor],
    *,
    optimizer: torch.optim.Optimizer,
    error: float,
    is_best: bool,
) -> None:
    """Write `checkpoints/STEP`, point `last` (and `best`) to it, and remove the ones that neither points to."""
    root = output_dir / "checkpoints"
    target, aside = root / f"{step:06d}", root / f".{step:06d}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    state = aside / STATE
    state.mkdir(parents=True)
    checkpoint.save(aside / "pretrained_model", policy.config, averaged, policy.normalizer.stats)
    save_file(_tensors(policy, optimizer), state / TENSORS)
    (state / STEP).write_text(json.dumps({"step": step, "validation_error": error}))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    _link(root / "last", target)
    if is_best:
        _link(root / "best", target)
    kept = {(root / name).resolve() for name in ("last", "best")}
    for old in root.glob("[0-9]*"):
        if old.resolve() not in kept:
            shutil.rmtree(old)


def load_training_state(
    directory: Path, policy: ACTPolicy, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor]]:
    """Bring `policy` and `optimizer` to where the checkpoint left them; returns its step and the averaged weights."""
    loaded = checkpoint.load(directory / "pretrained_model")
    if loaded.config != policy.config:
        raise CheckpointError(
            f"{directory} was trained with another configuration; resume with the one it was started with"
        )
    try:
        tensors = load_file(directory / STATE / TENSORS)
        policy.load_state_dict({name: tensors[f"weight.{name}"] for name in policy.state_dict()})
        _restore_optimizer(policy, optimizer, tensors)
    except (SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{directory / STATE} is damaged ({error}); start the training again") from error
    averaged = {name: value.to(policy.device) for name, value in loaded.weights.items()}
    return int(_read_step(directory / STATE / STEP)["step"]), averaged


def _tensors(policy: ACTPolicy, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"weight.{name}": _plain(value) for name, value in policy.state_dict().items()}
    for name, parameter in policy.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = _plain(value)
    return tensors


def _plain(value: Tensor) -> Tensor:
    """A copy that safetensors takes: on the CPU, contiguous (the small trunk's weights are channels-last)."""
    return value.detach().cpu().contiguous().clone()


def _restore_optimizer(policy: ACTPolicy, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in policy.named_parameters():
        keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors]
        if keys:
            device = {key: torch.device("cpu") if key == "step" else parameter.device for key in keys}
            optimizer.state[parameter] = {key: tensors[f"{key}.{name}"].to(device[key]) for key in keys}


def _link(link: Path, target: Path) -> None:
    aside = link.with_name(f".{link.name}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.name)
    os.replace(aside, link)


def _read_step(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); start the training again") from error
    return content
