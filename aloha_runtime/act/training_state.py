"""Checkpoints of a training run: the policy, and beside it what resuming needs, as safetensors and JSON.

    OUTPUT/checkpoints/005000/pretrained_model     a LeRobot policy directory
    OUTPUT/checkpoints/005000/training_state       state.safetensors, training_step.json, train_config.json
    OUTPUT/checkpoints/last, best                  links

A checkpoint is written aside and renamed, and only then do the links move: whenever a run is killed, `last` is whole.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aloha_runtime import durable
from aloha_runtime.act import checkpoint, provenance, training_frames
from aloha_runtime.act.optimize import Stepper
from aloha_runtime.act.start import other_shape
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.data import owned
from aloha_runtime.errors import CheckpointError

STATE = "training_state"
TENSORS = "state.safetensors"
STEP = "training_step.json"
SETTINGS = "train_config.json"


@dataclass
class Position:
    """Where a run stands: steps done, and the lowest validation error so far (None before the first)."""

    step: int = 0
    best_error: float | None = None


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint of a run, if there is one."""
    path = output_dir / "checkpoints" / "last"
    return path if path.exists() else None


def saved_settings(output_dir: Path) -> dict[str, Any]:
    """The `TrainConfig` fields of the run in `output_dir`, as its last checkpoint has them; lists for tuples."""
    last = last_checkpoint(output_dir)
    if last is None:
        raise CheckpointError(f"{output_dir} has no checkpoint to resume from; start without --resume")
    settings: dict[str, Any] = _read_json(last / STATE / SETTINGS)
    return settings


def save_checkpoint(
    config: TrainConfig,
    stepper: Stepper,
    averaged: Mapping[str, Tensor],
    position: Position,
    *,
    is_best: bool,
    figures: Mapping[str, float],
    frames: Mapping[str, Sequence[bytes]],
) -> Path:
    """Write `checkpoints/STEP`, point `last` (and `best`) to it, and remove the ones that are not to be kept.

    `figures`, the newest of the run, go into the policy's provenance; `frames` (`training_frames.take`) beside it.
    """
    root = config.output_dir / "checkpoints"
    target, aside, old = (root / name.format(position.step) for name in ("{:06d}", ".{:06d}.tmp", ".{:06d}.old"))
    owned.remove(old)
    owned.begin(aside)
    state = aside / STATE
    durable.make_directory(state)
    policy = stepper.policy
    checkpoint.save(
        aside / "pretrained_model",
        policy.config,
        averaged,
        policy.normalizer.stats,
        policy.processing,
        dataset=provenance.dataset(config.dataset),
        **provenance.recorded_on(config.dataset),
        frames=training_frames.write(aside / "pretrained_model", frames),
        training={**dataclasses.asdict(position), "figures": dict(figures), "settings": as_settings(config)},
    )
    save_file(_tensors(stepper), state / TENSORS)
    step = {**dataclasses.asdict(position), "scaler": stepper.scaler.state_dict()}
    (state / STEP).write_text(json.dumps(step, indent=2) + "\n")
    (state / SETTINGS).write_text(json.dumps(as_settings(config), indent=2) + "\n")
    for path in (*state.iterdir(), state):
        durable.sync(path)
    if target.exists():
        while old.exists():  # somebody else's
            old = old.with_name(f"{old.name}.old")
        owned.rename(target, old)
    owned.rename(aside, target)
    _link(root / "last", target)
    if is_best:
        _link(root / "best", target)
    durable.sync(root)
    _remove_old(config, root)
    durable.sync(root)
    return target


def _remove_old(config: TrainConfig, root: Path) -> None:
    linked = {(root / name).resolve().name for name in ("last", "best")}
    found = sorted(path.name for path in root.glob("[0-9]*") if path.is_dir())
    regular = [name for name in found if int(name) % config.save_freq == 0]
    kept = linked | set(regular if config.keep is None else regular[-config.keep :])
    left = [path.name for path in root.glob(".[0-9]*") if path.is_dir()]
    for name in [*(name for name in found if name not in kept), *left]:
        owned.remove(root / name)  # one that was copied here stays: nothing says that this program wrote it


def load_training_state(directory: Path, stepper: Stepper) -> tuple[Position, dict[str, Tensor]]:
    """Bring policy, optimiser and scaler to where the checkpoint left them; also returns the averaged weights."""
    policy = stepper.policy
    loaded = checkpoint.load(directory / "pretrained_model")
    changed = other_shape(loaded.config, policy.config)
    if changed:
        raise CheckpointError(
            f"{directory} was trained with another configuration: policy.{changed} = "
            f"{getattr(loaded.config, changed)!r}, not {getattr(policy.config, changed)!r}; resume with the one it was "
            "started with"
        )
    policy.processing = loaded.processing
    policy.normalizer = type(policy.normalizer)(policy.config, loaded.stats, loaded.processing).to(policy.device)
    step = _read_json(directory / STATE / STEP)
    try:
        tensors = load_file(directory / STATE / TENSORS)
        policy.load_state_dict({name: tensors[f"weight.{name}"] for name in policy.state_dict()})
        _restore_optimizer(stepper, tensors)
        if step["scaler"] and stepper.scaler.is_enabled():
            stepper.scaler.load_state_dict(step["scaler"])
        position = Position(int(step["step"]), step["best_error"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / STATE} is damaged ({error}); resume from another checkpoint (point `last` to it)"
        ) from error
    return position, {name: value.to(policy.device) for name, value in loaded.weights.items()}


def read_position(directory: Path) -> Position:
    """Where the run in a checkpoint stands."""
    step = _read_json(directory / STATE / STEP)
    try:
        return Position(int(step["step"]), step["best_error"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{directory / STATE / STEP} is damaged ({error}); resume from another checkpoint"
        ) from error


def _tensors(stepper: Stepper) -> dict[str, Tensor]:
    tensors = {f"weight.{name}": _plain(value) for name, value in stepper.policy.state_dict().items()}
    for name, parameter in stepper.policy.named_parameters():
        for key, value in stepper.optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = _plain(value)
    return tensors


def _plain(value: Tensor) -> Tensor:
    """A copy that safetensors takes: on the CPU, contiguous (the small trunk's weights are channels-last)."""
    return value.detach().cpu().contiguous().clone()


def _restore_optimizer(stepper: Stepper, tensors: Mapping[str, Tensor]) -> None:
    """AdamW's state, each tensor laid out in memory as its parameter is."""
    for name, parameter in stepper.policy.named_parameters():
        found = {key: tensors[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq") if f"{key}.{name}" in tensors}
        if found:
            state: dict[str, Tensor] = {key: parameter.detach().clone().copy_(value) for key, value in found.items()}
            fused_on_gpu = parameter.device.type == "cuda"
            state["step"] = tensors[f"step.{name}"].to(parameter.device if fused_on_gpu else "cpu")
            stepper.optimizer.state[parameter] = state


def as_settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON can hold it; `resume` left out, since it is no part of the run."""
    values = dataclasses.asdict(config)
    values.pop("resume")
    values.pop("allow_other_dataset")
    values["policy"] = {name: dict(v) if isinstance(v, Mapping) else v for name, v in config.policy.items()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _link(link: Path, target: Path) -> None:
    aside = link.with_name(f".{link.name}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.name)
    os.replace(aside, link)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); start the training again") from error
