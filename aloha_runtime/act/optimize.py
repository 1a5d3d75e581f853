"""How the weights change: parameter groups, schedules, precision, the running mean, and the step itself."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aloha_runtime.act.distributed import Processes
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.act.train_config import TrainConfig, TrainingError

_TRUNK = ("model.backbone.", "model.spatial.estimate_head.")
"""Parameters of the image trunk, and of what reads its keypoints."""

SMALLEST_LOSS_SCALE = 1e-4
"""fp16: the scaler halves its factor at every gradient that overflows; below this the loss itself is the trouble."""

_CPU_FUSED_SINCE = (2, 4)
"""PyTorch release with a fused AdamW on the CPU, 3 times as fast as its loop over tensors."""


def make_optimizer(policy: ACTPolicy) -> torch.optim.AdamW:
    """AdamW with the image trunk (and what reads its keypoints) in a group of its own, as in the paper."""
    named = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
    trunk = [parameter for name, parameter in named if name.startswith(_TRUNK)]
    rest = [parameter for name, parameter in named if not name.startswith(_TRUNK)]
    lr, lr_backbone = policy.config.lr, policy.config.lr_backbone
    groups = [{"params": rest, "lr": lr, "base_lr": lr}]
    if trunk:
        groups.append({"params": trunk, "lr": lr_backbone, "base_lr": lr_backbone})
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    fused = policy.device.type == "cuda" or (policy.device.type == "cpu" and release >= _CPU_FUSED_SINCE)
    return torch.optim.AdamW(groups, weight_decay=policy.config.weight_decay, fused=fused)


def learning_rate_scale(config: TrainConfig, step: int) -> float:
    """Linear warm-up to 1, then constant, or down to 0 at the last step: a straight line or half a cosine."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "constant" or step < config.warmup_steps:
        return warm
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def kl_weight(config: TrainConfig, full: float, step: int) -> float:
    """KL annealing: from 0 at the first step to `full` after `kl_warmup_steps`."""
    return full * min(1.0, step / config.kl_warmup_steps) if config.kl_warmup_steps else full


class Stepper:
    """Makes one update of the weights after the other; what it holds beside the weights is `optimizer` and `scaler`."""

    def __init__(self, config: TrainConfig, policy: ACTPolicy, processes: Processes) -> None:
        self.config, self.policy, self.processes = config, policy, processes
        self.optimizer = make_optimizer(policy)
        device = policy.device.type
        half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.mixed_precision]
        self.autocast = torch.autocast(device, dtype=half, enabled=half is not None)
        self.scaler = torch.amp.GradScaler(device, enabled=config.mixed_precision == "fp16")
        if config.compile:
            policy.model.compile()
        self.network: nn.Module = processes.wrapped(policy)
        self.parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]

    def step(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One update of the weights with this process's share of the batch; the figures are those of all processes.

        They are the losses, `grad_norm` before clipping, `lr` and `kl_weight`. Raises TrainingError when the gradient
        is not finite; the weights are then as before.
        """
        config, policy = self.config, self.policy
        scale = learning_rate_scale(config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        # Dropout, the same after a resume; each process has draws of its own.
        torch.manual_seed(config.seed * 1_000_003 + step + 7_368_787 * self.processes.rank)
        policy.train()
        weight = kl_weight(config, policy.config.kl_weight, step)
        with self.autocast:
            output = self.network(batch, self._latent_noise(step))
        losses = policy.losses({name: value.float() for name, value in output.items()}, batch, weight)
        losses = self._of_all(losses, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses["loss"]).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.grad_clip_norm)
        figures = self.processes.mean({**losses, "grad_norm": norm})
        self._refuse_not_finite(figures, step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        figures["lr"] = float(self.optimizer.param_groups[0]["lr"])
        return {**figures, "kl_weight": weight} if policy.config.use_vae else figures

    def _latent_noise(self, step: int) -> Tensor | None:
        """The CVAE's draws for this process's rows (B, latent), out of those of the whole batch."""
        if not self.policy.config.use_vae:
            return None
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        noise = torch.randn(self.config.batch_size, self.policy.config.latent_dim, generator=random)
        return noise[self.processes.rows(self.config.batch_size)].to(self.policy.device)

    def _of_all(self, losses: dict[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses whose mean over the processes is the loss of the whole batch.

        The action loss is a mean over valid steps, of which one process may have more than another.
        """
        if self.processes.count == 1:
            return losses
        valid = (~batch[IS_PAD]).sum().float()
        share = valid / self.processes.summed(valid).clamp(min=1) * self.processes.count
        name = f"{self.policy.config.action_loss}_loss"
        whole = losses[name] * share
        return {**losses, name: whole, "loss": losses["loss"] - losses[name] + whole}

    def _refuse_not_finite(self, figures: Mapping[str, float], step: int) -> None:
        if math.isfinite(figures["grad_norm"]) and math.isfinite(figures["loss"]):
            return
        scaled = self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_LOSS_SCALE
        if scaled and math.isfinite(figures["loss"]):
            return  # the scaler leaves this step out and halves its factor
        policy = self.policy.config
        what = "gradient" if math.isfinite(figures["loss"]) else "loss"
        raise TrainingError(
            f"step {step + 1}: the {what} is not finite (loss {figures['loss']:.3g}, gradient norm "
            f"{figures['grad_norm']:.3g}); resume from the last checkpoint with a lower policy.lr (now {policy.lr:g}) "
            f"and policy.lr_backbone (now {policy.lr_backbone:g}), grad_clip_norm 1 "
            f"(now {self.config.grad_clip_norm:g}) or a longer warm-up, and check the dataset for outliers"
        )


def running_mean(policy: ACTPolicy, decay: float) -> dict[str, Tensor]:
    """Where the running mean of the weights starts; without one, the weights themselves (they share memory)."""
    return {name: value.detach().clone() if decay else value for name, value in policy.state_dict().items()}


@torch.no_grad()
def update_mean(averaged: dict[str, Tensor], policy: ACTPolicy, decay: float, step: int) -> None:
    """Move the running mean of the weights towards the present ones; early on it forgets faster."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in policy.state_dict().items():
        averaged[name].lerp_(value, 1 - decay)
