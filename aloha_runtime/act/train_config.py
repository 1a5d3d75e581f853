"""What one training run is: `TrainConfig`, and the refusal of values that cannot work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aloha_runtime.act.augment import Augmentation
from aloha_runtime.errors import AlohaError


class TrainingError(AlohaError):
    """Training cannot start or go on; the message says why and what to try."""


class TrainingStopped(AlohaError):  # noqa: N818 (it is none)
    """Training was asked to stop, saved a checkpoint, and says how to go on."""

    exit_code = 130


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `policy` holds `ACTConfig` fields by name; features and shapes come from the dataset."""

    dataset: Path
    output_dir: Path
    policy: Mapping[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    """Fine-tune: a policy directory (`demo`, `user/model`) whose weights, shape and statistics training starts from."""
    resume: bool = False
    """Go on from the last checkpoint of `output_dir`."""
    allow_other_dataset: bool = False
    """Resume although the dataset is not the one that the run was started on, or has changed since."""

    cameras: tuple[str, ...] | None = None
    """Cameras to use, in order; all of the dataset's when None. With `init_from` they take the places of its own."""
    use_environment_state: bool = False
    """Give the policy the true object poses (`observation.environment_state`): only for experiments in simulation."""
    use_imagenet_stats: bool | None = None
    """Normalise images as ImageNet's were, not with the dataset's own figures. None: for a pretrained ResNet only."""
    frame_cache: Path | None = None
    """Where decoded frames are kept; `output_dir/frames` when None."""
    frame_cache_gb: float | None = None
    """Most GB that they may take; None: the free space. If they do not fit, each batch decodes its video."""

    steps: int = 100_000
    batch_size: int = 8
    """Samples of a step, over all processes together."""
    seed: int = 1000
    device: str = "auto"
    """cpu, cuda or cuda:1; auto is a GPU when there is one."""
    threads: int | None = None
    """CPU threads of torch; its own choice when None."""
    num_workers: int = 1
    """Threads that prepare batches ahead; 0 prepares each when it is needed."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the forward pass; fp16 scales the loss so that small gradients survive."""
    compile: bool = False
    """torch.compile the network: minutes at the start, faster steps after."""

    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up: as it is, or down to 0 at the last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to its value."""
    kl_warmup_steps: int = 0
    """Steps over which the KL weight rises linearly from 0 to `policy.kl_weight` (KL annealing)."""
    grad_clip_norm: float = 10.0
    ema_decay: float = 0.0
    """Keep a running mean of the weights with this decay, and save it as the policy; 0 is off."""
    augment: Augmentation = field(default_factory=Augmentation)

    validation_fraction: float = 0.1
    """Share of the episodes that is held out."""
    validation_frames: int = 512
    """Frames of the held-out episodes to validate on, evenly spread."""
    eval_freq: int = 1000
    save_freq: int = 5000
    keep: int | None = None
    """How many checkpoints of every `save_freq` steps to keep, the newest; all when None. `best` stays besides."""
    log_freq: int = 100

    curves: bool = True
    """Draw `curves.png` at every checkpoint (matplotlib)."""
    tensorboard: bool = True
    """Write TensorBoard event files into `output_dir/tensorboard`, if the package is installed."""
    wandb: bool = False
    """Log to Weights & Biases; its own environment variables say where and how."""
    wandb_project: str = "aloha"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_freq", "save_freq", "log_freq", "validation_frames"):
            self._check(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("num_workers", "warmup_steps", "kl_warmup_steps", "seed"):
            self._check(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("threads", "keep"):
            self._check(name, getattr(self, name) is None or getattr(self, name) >= 1, "must be at least 1")
        self._check("schedule", self.schedule in ("constant", "cosine", "linear"), "is not constant, cosine or linear")
        self._check("mixed_precision", self.mixed_precision in ("no", "bf16", "fp16"), "is not no, bf16 or fp16")
        self._check("grad_clip_norm", self.grad_clip_norm > 0, "must be above 0; a large value clips nothing")
        for name in ("validation_fraction", "ema_decay"):
            self._check(name, 0 <= getattr(self, name) < 1, "must be at least 0 and below 1")
        self._check("resume", not (self.resume and self.init_from), "a resumed run cannot start from init_from as well")

    def _check(self, name: str, holds: bool, reason: str) -> None:
        if not holds:
            raise TrainingError(f"training configuration: {name} = {getattr(self, name)!r}: {reason}")
