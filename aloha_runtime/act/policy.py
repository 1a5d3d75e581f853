"""`ACTPolicy`: observations in raw units in, actions in raw units out; normalisation, chunks and ensembling inside."""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn

from aloha_runtime.act import checkpoint, hub
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, ACTConfig
from aloha_runtime.act.ensemble import TemporalEnsemble
from aloha_runtime.act.header import check_cameras, reads_checkpoint
from aloha_runtime.act.inputs import as_float
from aloha_runtime.act.model import ACT, IS_PAD
from aloha_runtime.act.normalize import Normalizer, Stats
from aloha_runtime.act.pixels import prepared
from aloha_runtime.act.processing import Processing
from aloha_runtime.errors import CheckpointError

Observation = Mapping[str, Any]
"""`{feature name: array or tensor}`, with or without a leading batch dimension, the same for all.

Images are uint8 (height, width, 3) or float 0..1 (3, height, width); `observation.state` is in rad, grippers 0..1.
"""


ESTIMATE_STD_FLOOR = 1e-3
"""Smallest scale of an estimated number: 1 mm for a position."""


class ACTPolicy(nn.Module):
    """An ACT network together with the statistics that its inputs and outputs are normalised with."""

    def __init__(
        self,
        config: ACTConfig,
        stats: Stats | None = None,
        processing: Processing | None = None,
        *,
        pretrained_backbone: bool = True,
    ) -> None:
        """`stats` are those of the data to be trained on; without them the policy works in raw units. `processing` is
        what the configuration says unless given.

        `pretrained_backbone` False leaves the trunk's weights random, for one that will be given its weights next.
        """
        super().__init__()
        self.config = config.built()
        self.processing = processing or Processing.of(config)
        self.model = ACT(self.config, pretrained_backbone=pretrained_backbone)
        self.normalizer = Normalizer(config, stats, self.processing)
        self.reset()

    @classmethod
    @reads_checkpoint
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        cameras: Mapping[str, tuple[int, int]] | None = None,
        device: str = "cpu",
        revision: str | None = None,
    ) -> Self:
        """Load a LeRobot policy, in evaluation mode: from a directory, or `user/model` (at `revision`) from the hub.

        `cameras`, `{name: (height, width)}`, is what the rig delivers; the policy's own must be among them. Raises
        `CheckpointError` when the directory is absent, damaged, of another kind, or made for other cameras.
        """
        directory = hub.find(name, revision)
        loaded = checkpoint.load(directory)
        if cameras is not None:
            check_cameras(loaded.config, cameras, directory)
        try:
            policy = cls(loaded.config, loaded.stats, loaded.processing, pretrained_backbone=False)
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint {directory} cannot be used: {error}") from error
        checkpoint.load_weights(policy, loaded)
        return policy.to(device).eval()

    def save_pretrained(self, directory: str | Path, **known: Mapping[str, Any] | None) -> None:
        """Write a LeRobot policy directory; each file appears whole, `config.json` last.

        `known`, such as `dataset` or `training`, goes into provenance.json (`provenance.write`).
        """
        stats, weights = self.normalizer.stats, self.state_dict()
        checkpoint.save(Path(directory), self.config, weights, stats, self.processing, **known)

    def reset(self) -> None:
        """Forget all chunks; call at the start of an episode."""
        self._queue: deque[Tensor] = deque()
        self._tick = 0
        self._ensemble: TemporalEnsemble | None = None
        if self.config.temporal_ensemble_coeff is not None:
            self._ensemble = TemporalEnsemble("paper", coefficient=self.config.temporal_ensemble_coeff)

    @property
    def device(self) -> torch.device:
        return self.model.action_head.weight.device

    @property
    def backbone(self) -> nn.Module:
        """The image trunk, for a parameter group of its own; empty for a policy without images."""
        return getattr(self.model, "backbone", nn.Module())

    @property
    def transformer(self) -> nn.Module:
        """Everything but the image trunk."""
        return nn.ModuleDict({name: child for name, child in self.model.named_children() if name != "backbone"})

    def to(self, *args: Any, **kwargs: Any) -> Self:
        super().to(*args, **kwargs)
        self.normalizer.to(self.device)
        return self

    @torch.inference_mode()
    def predict_action_chunk(self, observation: Observation) -> Tensor:
        """The next actions in raw units, (chunk, 14) or (B, chunk, 14). The latent is zero, as in the paper."""
        batch, batched = self._normalized(observation)
        was_training = self.training
        if was_training:
            self.eval()
        chunk = self._absolute(self.normalizer.unnormalize_action(self.model(batch)["action"]), observation)
        if was_training:
            self.train()
        return chunk if batched else chunk[0]

    def select_action(self, observation: Observation) -> Tensor:
        """The action for this step, (14,) or (B, 14), raw units. Call once per control tick, after `reset()`.

        With `temporal_ensemble_coeff` every call predicts a chunk and returns the weighted mean of all that cover the
        step; without, a chunk is predicted every `n_action_steps` calls and executed open loop.
        """
        if self._ensemble is not None:
            chunk = self.predict_action_chunk(observation)  # ([B,] chunk, 14)
            self._ensemble.add(self._tick, chunk.movedim(-2, 0).cpu().numpy())  # (chunk, [B,] 14)
            action = self._ensemble.action(self._tick)
            assert action is not None, "the chunk just added starts at this tick"
            self._tick += 1
            return torch.as_tensor(action, dtype=chunk.dtype, device=chunk.device)
        if not self._queue:
            chunk = self.predict_action_chunk(observation)
            self._queue.extend(chunk.movedim(-2, 0)[: self.config.n_action_steps])
        return self._queue.popleft()

    def forward(self, batch: Observation, latent_noise: Tensor | None = None) -> dict[str, Tensor]:
        """Batch in raw units -> `action` (B, chunk, 14) in raw units, and `mu`, `log_var` (B, latent) in training.

        The batch holds the inputs with a batch dimension; with `action` (B, chunk, 14) and, unless all are valid,
        `action_is_pad` (B, chunk) in it the latent comes from the CVAE encoder (drawn with `latent_noise` if given).
        Without, this is the inference path.
        """
        normalized, _ = self._normalized(batch)
        if ACTION in batch:
            actions = torch.as_tensor(batch[ACTION], dtype=torch.float32, device=self.device)
            normalized[ACTION] = self.normalizer.normalize(ACTION, self._absolute(actions, batch, -1))
            normalized[IS_PAD] = self._is_pad(batch)
        output = self.model(normalized, latent_noise)
        output["action"] = self._absolute(self.normalizer.unnormalize_action(output["action"]), batch)
        return output

    def relative_mask(self) -> Tensor:
        """(14,) True for each number of an action that the network gives as an offset from the state."""
        return torch.tensor(self.processing.mask(self.config.action_dim), device=self.device)

    def _absolute(self, actions: Tensor, observation: Observation, sign: int = 1) -> Tensor:
        """Actions (B, chunk, 14) as joint targets, of offsets from the observation's state; -1 is the way back."""
        if self.processing.relative is None:
            return actions
        state = torch.as_tensor(observation[STATE], dtype=torch.float32, device=self.device)
        state = state.reshape(-1, 1, state.shape[-1])[..., : self.config.action_dim]  # (B, 1, 14)
        return actions + sign * state * self.relative_mask()

    def compute_loss(self, output: Mapping[str, Tensor], batch: Observation) -> Tensor:
        """The loss to minimise, of what `forward` made of this batch; `losses` gives its parts."""
        return self.losses(output, batch)["loss"]

    def losses(
        self, output: Mapping[str, Tensor], batch: Observation, kl_weight: float | None = None
    ) -> dict[str, Tensor]:
        """Losses in normalised units: `loss` and its parts `l1_loss` (or `l2_loss`), `kld_loss`, `estimate_loss`.

        `l1_loss` is the mean over the steps that are not padding; `kld_loss` the divergence from N(0, 1), summed over
        the latent's dimensions and averaged over the batch; loss = l1 + kl_weight * kld (section IV.C of the paper).
        `kl_weight` replaces the configuration's, for annealing.
        """
        target = torch.as_tensor(batch[ACTION], dtype=torch.float32, device=self.device)
        predicted, target = (self.normalizer.normalize(ACTION, x) for x in (output["action"], target))
        valid = ~self._is_pad(batch).unsqueeze(-1)  # (B, chunk, 1)
        distance = F.l1_loss if self.config.action_loss == "l1" else F.mse_loss
        error = distance(predicted, target, reduction="none") * valid  # (B, chunk, 14)
        name = f"{self.config.action_loss}_loss"
        losses = {name: error.sum() / (valid.sum() * target.shape[-1]).clamp(min=1)}
        losses["loss"] = losses[name]
        if "mu" in output:
            mu, log_var = output["mu"], output["log_var"]  # (B, latent)
            losses["kld_loss"] = (-0.5 * (1 + log_var - mu.square() - log_var.exp())).sum(-1).mean()
            weight = self.config.kl_weight if kl_weight is None else kl_weight
            losses["loss"] = losses["loss"] + weight * losses["kld_loss"]
        if "estimate" in output and ENVIRONMENT_STATE in batch:
            truth = self.estimate_target(batch[ENVIRONMENT_STATE])  # (B, estimate_dim)
            losses["estimate_loss"] = F.smooth_l1_loss(output["estimate"], truth, beta=0.1)
            losses["loss"] = losses["loss"] + self.config.estimate_weight * losses["estimate_loss"]
        return losses

    def _is_pad(self, batch: Observation) -> Tensor:
        """(B, chunk) True past the end of an episode; none of it where the batch does not say."""
        if IS_PAD in batch:
            return torch.as_tensor(batch[IS_PAD], dtype=torch.bool, device=self.device)
        return torch.zeros(*batch[ACTION].shape[:2], dtype=torch.bool, device=self.device)

    def estimate_error(self, estimate: Tensor, environment_state: Any) -> float:
        """Mean absolute error of the estimate (B, estimate_dim), in the units of the environment state."""
        scale = self._estimate_scale()[1]
        return ((estimate - self.estimate_target(environment_state)).abs() * scale).mean().item()

    def estimate_target(self, environment_state: Any) -> Tensor:
        """Leading numbers of the environment state (B, n), scaled as the estimate is: (B, estimate_dim)."""
        mean, scale = self._estimate_scale()
        truth = torch.as_tensor(environment_state, dtype=torch.float32, device=self.device)
        return (truth[..., : self.config.estimate_dim] - mean) / scale

    def _estimate_scale(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (estimate_dim,) of the estimated numbers; the scale is never zero."""
        stats = self.normalizer.stats[ENVIRONMENT_STATE]
        mean, std = (stats[key][: self.config.estimate_dim].to(self.device) for key in ("mean", "std"))
        return mean, std.clamp(min=ESTIMATE_STD_FLOOR)

    def _normalized(self, observation: Observation) -> tuple[dict[str, Tensor], bool]:
        """Checked and normalised inputs with a batch dimension, and whether there was one already."""
        batch: dict[str, Tensor] = {}
        batched: dict[str, bool] = {}
        for name, shape in self.config.input_shapes.items():
            if name not in observation:
                raise ValueError(f"observation lacks {name}; the policy needs {', '.join(self.config.input_shapes)}")
            value = as_float(name, observation[name], shape, self.device)
            batched[name] = value.dim() == len(shape) + 1
            if name.startswith(IMAGE_PREFIX):
                value = prepared(value, name, self.processing)
            batch[name] = self.normalizer.normalize(name, value if batched[name] else value.unsqueeze(0))
        sizes = {value.shape[0] for value in batch.values()}
        if len(set(batched.values())) > 1 or len(sizes) > 1:
            shapes = {name: tuple(value.shape) for name, value in batch.items()}
            raise ValueError(f"inputs must all have the same batch dimension, or none: {shapes}")
        return batch, all(batched.values())
