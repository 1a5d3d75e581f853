"""Training of an ACT policy on a LeRobotDataset, as one plain story: data, model, optimiser, loop, checkpoints.

    OUTPUT/checkpoints/005000/pretrained_model     a LeRobot policy directory
    OUTPUT/checkpoints/005000/training_state       optimiser, step; what resuming needs
    OUTPUT/checkpoints/last, best                  links: the newest, and the lowest validation error

Every random draw is a function of the seed and the step, so a resumed run sees what an uninterrupted one would.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, ACTConfig
from aloha_runtime.act.dataset import Augmentation, TrainingData
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.act.progress import Progress
from aloha_runtime.act.training_state import best_error, last_checkpoint, load_training_state, save_checkpoint
from aloha_runtime.errors import AlohaError

log = logging.getLogger(__name__)


class TrainingError(AlohaError):
    """Training cannot start or go on; the message says why and what to try."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `policy` holds `ACTConfig` fields by name; features and shapes come from the dataset."""

    dataset: Path
    output_dir: Path
    policy: Mapping[str, Any] = field(default_factory=dict)
    cameras: tuple[str, ...] | None = None
    """Cameras to use, in order; all of the dataset's when None."""
    use_environment_state: bool = False
    """Give the policy the true object poses (`observation.environment_state`): only for experiments in simulation."""
    frame_cache: Path | None = None
    """Where decoded frames are kept; `output_dir/frames` when None."""

    steps: int = 100_000
    batch_size: int = 8
    seed: int = 1000
    device: str = "cpu"
    threads: int | None = None
    """CPU threads of torch; its own choice when None."""
    resume: bool = False

    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    grad_clip_norm: float = 10.0
    ema_decay: float = 0.0
    """Keep a running mean of the weights with this decay, and save it as the policy; 0 is off."""
    augment: Augmentation = field(default_factory=Augmentation)

    validation_fraction: float = 0.1
    validation_frames: int = 512
    eval_freq: int = 1000
    save_freq: int = 1000
    log_freq: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_freq", "save_freq", "log_freq", "validation_frames"):
            if getattr(self, name) < 1:
                raise TrainingError(f"training configuration: {name} = {getattr(self, name)!r}: must be at least 1")
        if self.schedule not in ("constant", "cosine"):
            raise TrainingError(f"training configuration: schedule = {self.schedule!r}: is not constant or cosine")
        if not 0 <= self.validation_fraction < 1:
            raise TrainingError(
                f"training configuration: validation_fraction = {self.validation_fraction!r}: not in 0..1"
            )
        if not 0 <= self.ema_decay < 1:
            raise TrainingError(f"training configuration: ema_decay = {self.ema_decay!r}: must be at least 0, below 1")


def train(config: TrainConfig, report: Callable[[str], None] = log.info) -> Path:
    """Train, and return the directory of the best policy (`.../pretrained_model`). `report` gets lines of progress."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if last_checkpoint(config.output_dir) is not None and not config.resume:
        raise TrainingError(
            f"{config.output_dir} already holds checkpoints; resume, or choose another output directory"
        )
    cache = config.frame_cache or config.output_dir / "frames"
    data = TrainingData(config.dataset, config.cameras, cache, report)
    training, validation = data.split(config.validation_fraction, config.seed)

    torch.manual_seed(config.seed)
    policy = ACTPolicy(policy_config(config, data), data.stats).to(config.device)
    averaged = running_mean(policy, config.ema_decay)
    optimizer = make_optimizer(policy)
    step, best = 0, math.inf
    last = last_checkpoint(config.output_dir)
    if last is not None:
        step, saved = load_training_state(last, policy, optimizer)
        averaged = saved if config.ema_decay else averaged
        best = best_error(config.output_dir)
    size = sum(parameter.numel() for parameter in policy.parameters()) / 1e6
    report(
        f"{len(training)} frames to train on, {len(validation)} to validate; {size:.2f} M parameters; from step {step}"
    )

    progress = Progress(config.steps, config.log_freq, step, report)
    while step < config.steps:
        started = time.perf_counter()
        batch = training_batch(config, data, training, policy.config.chunk_size, step)
        waited = time.perf_counter() - started
        losses = training_step(config, policy, optimizer, batch, step)
        step += 1
        if config.ema_decay:
            update_mean(averaged, policy, config.ema_decay, step)
        progress.add(step, losses, optimizer.param_groups[0]["lr"], waited)
        due = step % config.save_freq == 0 or step % config.eval_freq == 0 or step == config.steps
        if due:
            error = evaluate(config, policy, averaged, data, validation) if len(validation) else {}
            progress.validated(step, error)
            score = error.get("l1", -float(step))  # without validation the newest is the best
            is_best = score < best
            save_checkpoint(
                config.output_dir, step, policy, averaged, optimizer=optimizer, error=score, is_best=is_best
            )
            best = min(best, score)
    return config.output_dir / "checkpoints" / "best" / "pretrained_model"


def policy_config(config: TrainConfig, data: TrainingData) -> ACTConfig:
    """The policy's configuration with the dataset's features filled in."""
    inputs, outputs = data.shapes(use_environment_state=config.use_environment_state)
    made = ACTConfig(**{"input_shapes": inputs, "output_shapes": outputs, **config.policy})
    if made.estimate_dim > (data.vectors[ENVIRONMENT_STATE].shape[1] if ENVIRONMENT_STATE in data.vectors else 0):
        raise TrainingError(
            f"estimate_dim = {made.estimate_dim}: {config.dataset} has no {ENVIRONMENT_STATE} that long; set it to 0"
        )
    return made


def make_optimizer(policy: ACTPolicy) -> torch.optim.AdamW:
    """AdamW with the image trunk (and what reads its keypoints) in a group of its own, as in the paper."""
    named = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
    trunk = [parameter for name, parameter in named if name.startswith(_TRUNK)]
    rest = [parameter for name, parameter in named if not name.startswith(_TRUNK)]
    lr, lr_backbone = policy.config.lr, policy.config.lr_backbone
    groups = [{"params": rest, "lr": lr, "base_lr": lr}]
    if trunk:
        groups.append({"params": trunk, "lr": lr_backbone, "base_lr": lr_backbone})
    return torch.optim.AdamW(groups, weight_decay=policy.config.weight_decay)


_TRUNK = ("model.backbone.", "model.spatial.estimate_head.")


def training_batch(
    config: TrainConfig, data: TrainingData, frames: NDArray[np.int64], chunk_size: int, step: int
) -> dict[str, Tensor]:
    """The batch of a step: every frame once an epoch, in an order given by the seed."""
    places = step * config.batch_size + np.arange(config.batch_size)
    epochs, offsets = places // len(frames), places % len(frames)
    chosen = np.empty(config.batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([config.seed, 1, int(epoch)]).permutation(len(frames))
        chosen[epochs == epoch] = frames[order[offsets[epochs == epoch]]]
    return data.batch(chosen, chunk_size, config.augment, np.random.default_rng([config.seed, 2, step]))


def training_step(
    config: TrainConfig, policy: ACTPolicy, optimizer: torch.optim.Optimizer, batch: Mapping[str, Tensor], step: int
) -> dict[str, float]:
    """One update of the weights; returns the losses."""
    scale = learning_rate_scale(config, step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
    torch.manual_seed(config.seed * 1_000_003 + step)  # dropout and the latent's noise, the same after a resume
    policy.train()
    losses = policy.losses(policy(batch), batch)
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip_norm)
    if not norm.isfinite():
        raise TrainingError(
            f"step {step}: the gradient is not finite (loss {losses['loss'].item():.3g}); resume from the last "
            "checkpoint with a lower policy.lr or a longer warm-up, and check the dataset for outliers"
        )
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def learning_rate_scale(config: TrainConfig, step: int) -> float:
    """Linear warm-up to 1, then constant, or a cosine down to 0 at the last step."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "constant" or step < config.warmup_steps:
        return warm
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def running_mean(policy: ACTPolicy, decay: float) -> dict[str, Tensor]:
    """Where the running mean of the weights starts; without one, the weights themselves (they share memory)."""
    return {name: value.detach().clone() if decay else value for name, value in policy.state_dict().items()}


@torch.no_grad()
def update_mean(averaged: dict[str, Tensor], policy: ACTPolicy, decay: float, step: int) -> None:
    """Move the running mean of the weights towards the present ones; early on it forgets faster."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in policy.state_dict().items():
        averaged[name].lerp_(value, 1 - decay)


@torch.no_grad()
def evaluate(
    config: TrainConfig,
    policy: ACTPolicy,
    averaged: Mapping[str, Tensor],
    data: TrainingData,
    frames: NDArray[np.int64],
) -> dict[str, float]:
    """Validation errors as at run time (averaged weights, latent zero): `l1`, and `estimate` in the dataset's units."""
    current = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.load_state_dict(averaged)
    policy.eval()
    picked = frames[np.linspace(0, len(frames) - 1, min(config.validation_frames, len(frames))).astype(np.int64)]
    sums: dict[str, float] = {}
    for part in np.array_split(picked, math.ceil(len(picked) / 64)):
        batch = data.batch(part, policy.config.chunk_size, Augmentation(), np.random.default_rng(0))
        output = policy({name: value for name, value in batch.items() if name not in (ACTION, IS_PAD)})
        errors = {"l1": policy.losses(output, batch)["l1_loss"].item()}
        if "estimate" in output:
            errors["estimate"] = policy.estimate_error(output["estimate"], batch[ENVIRONMENT_STATE])
        for name, value in errors.items():
            sums[name] = sums.get(name, 0.0) + value * len(part) / len(picked)
    policy.load_state_dict(current)
    return sums
