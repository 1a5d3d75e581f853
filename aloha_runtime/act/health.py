"""What goes wrong while a policy trains, noticed and named as it happens, once each, with what to try."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch

from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.train_config import TrainConfig, TrainingError

COLLAPSED_KLD = 1e-3
"""Nats over the whole latent, below which it tells the decoder nothing: one bit is 0.69."""
COLLAPSED_STEPS = 500
"""Steps in a row that the divergence must stay there: it may pass through zero on its way."""
DIVERGED_RATIO = 3.0
"""A smoothed loss this many times its best so far."""
SMOOTHING = 0.95
"""Of the loss from step to step: about the last 20 count, so that one bad batch is no divergence."""
SETTLED_STEPS = 50
"""Steps before a best is believed: the first ones say little."""

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""What PyTorch says on CUDA, Windows, and Linux. numpy raises MemoryError."""


class Health:
    """Watches the losses of a run; `notice` says each trouble once."""

    def __init__(self, config: TrainConfig, policy: ACTConfig, say: Callable[[str], None]) -> None:
        self._config, self._policy, self._say = config, policy, say
        self._low_steps = 0
        self._smooth: float | None = None
        self._best, self._seen = float("inf"), 0
        self._said: set[str] = set()

    def notice(self, step: int, losses: Mapping[str, float]) -> None:
        """Look at the losses of one step (counted from 1)."""
        annealing = step <= self._config.kl_warmup_steps
        if "kld_loss" in losses and not annealing:
            self._notice_collapse(step, losses["kld_loss"])
        if not annealing:  # while the KL weight rises, so does the loss
            self._notice_divergence(step, losses["loss"])

    def _notice_collapse(self, step: int, kld: float) -> None:
        self._low_steps = self._low_steps + 1 if kld < COLLAPSED_KLD else 0
        if self._low_steps == COLLAPSED_STEPS:
            self._say_once(
                "collapse",
                f"step {step}: KL collapse: the divergence has been below {COLLAPSED_KLD:g} for {COLLAPSED_STEPS} "
                f"steps (now {kld:.2g}), so the latent carries nothing. Try KL annealing (--kl-warmup-steps), or "
                f"another --policy.kl-weight (now {self._policy.kl_weight:g}; less lets more through; LeRobot's ACT "
                "page tries 20); demonstrations that are all alike need no latent: --policy.use-vae false",
            )

    def _notice_divergence(self, step: int, loss: float) -> None:
        self._seen += 1
        self._smooth = loss if self._smooth is None else SMOOTHING * self._smooth + (1 - SMOOTHING) * loss
        if self._seen < SETTLED_STEPS:
            return
        self._best = min(self._best, self._smooth)
        if self._smooth > DIVERGED_RATIO * self._best:
            self._say_once(
                "divergence",
                f"step {step}: the loss diverges: {self._smooth:.3g}, after a best of {self._best:.3g}. Stop, and "
                f"resume with a lower --policy.lr (now {self._policy.lr:g}) and --policy.lr-backbone "
                f"(now {self._policy.lr_backbone:g}), and --grad-clip-norm 1 (now {self._config.grad_clip_norm:g})",
            )

    def _say_once(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(f"warning: {text}")


@contextlib.contextmanager
def out_of_memory_named(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """An allocation that fails inside becomes a TrainingError that says which batch size to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        smaller = config.batch_size // 2
        advice = f"--batch-size {smaller}" if smaller else "fewer or smaller cameras (--cameras)"
        raise TrainingError(
            f"out of memory on {device} with batch_size = {config.batch_size}: try {advice}, "
            "--policy.use-gradient-checkpointing true or --mixed-precision bf16"
        ) from error
