"""ACT, the action chunking transformer (Zhao et al. 2023, https://arxiv.org/abs/2304.13705), from tokens to actions.

Shapes: B batch, C chunk, D model width, L latent, S tokens of the encoder, h x w a feature map. Batch comes first.
Module names are those of LeRobot's state dict, so that its weights load. Everything here is in normalised units.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aloha_runtime.act.backbones import make_trunk, trunk_channels
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, SMALL_CNN, STATE, ACTConfig
from aloha_runtime.act.transformer import Decoder, Encoder, sinusoid, sinusoid_2d

IS_PAD = "action_is_pad"


class ACT(nn.Module):
    """The network: a normalised batch to normalised actions and, in training, the parameters of the latent."""

    def __init__(self, config: ACTConfig, *, pretrained_backbone: bool) -> None:
        super().__init__()
        self.config = config
        dim = config.dim_model
        if config.use_vae:
            self.vae_encoder = Encoder(config, config.n_vae_encoder_layers)
            self.vae_encoder_cls_embed = nn.Embedding(1, dim)
            if config.state_dim:
                self.vae_encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
            self.vae_encoder_action_input_proj = nn.Linear(config.action_dim, dim)
            self.vae_encoder_latent_output_proj = nn.Linear(dim, 2 * config.latent_dim)
            length = config.chunk_size + (2 if config.state_dim else 1)
            self.register_buffer("vae_encoder_pos_enc", sinusoid(length, dim).unsqueeze(0))

        if config.images:
            self.backbone = make_trunk(config, pretrained=pretrained_backbone)
            if config.vision_backbone == SMALL_CNN:
                self.spatial = SpatialTokens(config)
            self.encoder_img_feat_input_proj = nn.Conv2d(trunk_channels(config), dim, kernel_size=1)

        self.encoder = Encoder(config, config.n_encoder_layers)
        self.decoder = Decoder(config)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, dim)
        if config.state_dim:
            self.encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
        if config.environment_state_dim:
            self.encoder_env_state_input_proj = nn.Linear(config.environment_state_dim, dim)
        n_vectors = 1 + bool(config.state_dim) + bool(config.environment_state_dim)
        self.encoder_1d_feature_pos_embed = nn.Embedding(n_vectors, dim)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, dim)
        self.action_head = nn.Linear(dim, config.action_dim)
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, batch: dict[str, Tensor], latent_noise: Tensor | None = None) -> dict[str, Tensor]:
        """Normalised inputs -> `action` (B, C, A); with actions in the batch also `mu`, `log_var` (B, L) of the latent.

        `latent_noise` (B, L) replaces the random draw in z = mu + sigma * noise. Without actions z is 0, the mean of
        the prior, as in the paper, or drawn from it with `sample_latent`. `estimate` (B, estimate_dim) is there when
        the configuration asks for it.
        """
        output: dict[str, Tensor] = {}
        some_input = batch[next(iter(self.config.input_shapes))]
        latent = some_input.new_zeros(some_input.shape[0], self.config.latent_dim)  # (B, L)
        if self.config.use_vae and ACTION in batch:
            mu, log_var = self.encode_actions(batch)  # (B, L), (B, L)
            noise = torch.randn_like(mu) if latent_noise is None else latent_noise
            latent = mu + (log_var / 2).exp() * noise  # (B, L)
            output.update(mu=mu, log_var=log_var)
        elif self.config.sample_latent:
            latent = torch.randn_like(latent) if latent_noise is None else latent_noise  # (B, L)

        tokens, positions = self.vector_tokens(batch, latent)  # (B, 1..3, D), (1, 1..3, D)
        if self.config.images:
            image_tokens, image_positions, estimate = self.image_tokens(batch)  # (B, N, D), (1, N, D)
            tokens = torch.cat([tokens, image_tokens], dim=1)  # (B, S, D)
            positions = torch.cat([positions, image_positions], dim=1)  # (1, S, D)
            if estimate is not None:
                output["estimate"] = estimate  # (B, estimate_dim)
        memory = self.encoder(tokens, positions)  # (B, S, D)
        decoded = self.decoder(memory, positions, self.decoder_pos_embed.weight)  # (B, C, D)
        output["action"] = self.action_head(decoded)  # (B, C, A)
        return output

    def encode_actions(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """CVAE encoder: what is special about this demonstration, as the mean and log variance (B, L) of a latent."""
        actions = batch[ACTION]  # (B, C, A)
        size = actions.shape[0]
        tokens = [self.vae_encoder_cls_embed.weight.expand(size, 1, -1)]  # (B, 1, D)
        if self.config.state_dim:
            tokens.append(self.vae_encoder_robot_state_input_proj(batch[STATE]).unsqueeze(1))
        tokens.append(self.vae_encoder_action_input_proj(actions))  # (B, C, D)
        sequence = torch.cat(tokens, dim=1)  # (B, 1..2 + C, D)
        is_pad = F.pad(batch[IS_PAD], (sequence.shape[1] - actions.shape[1], 0), value=False)
        encoded = self.vae_encoder(sequence, self.vae_encoder_pos_enc, is_pad)  # (B, 1..2 + C, D)
        mu, log_var = self.vae_encoder_latent_output_proj(encoded[:, 0]).chunk(2, dim=-1)
        return mu, log_var  # (B, L), (B, L)

    def vector_tokens(self, batch: dict[str, Tensor], latent: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1..3, D) for latent, joints and environment state, with learned positions (1, 1..3, D)."""
        tokens = [self.encoder_latent_input_proj(latent)]
        if self.config.state_dim:
            tokens.append(self.encoder_robot_state_input_proj(batch[STATE]))
        if self.config.environment_state_dim:
            tokens.append(self.encoder_env_state_input_proj(batch[ENVIRONMENT_STATE]))
        return torch.stack(tokens, dim=1), self.encoder_1d_feature_pos_embed.weight.unsqueeze(0)

    def image_tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """A token per cell of every camera's feature map (B, N, D), positions (1, N, D), and the estimate if any."""
        tokens, positions, keypoints = [], [], []
        for name in self.config.images:
            features = self.features(batch[name])  # (B, channels, h, w)
            if self.config.vision_backbone == SMALL_CNN:
                features, points = features
                keypoints.append(points.flatten(1))  # (B, 2K)
            projected = self.encoder_img_feat_input_proj(features)  # (B, D, h, w)
            height, width = projected.shape[2:]
            tokens.append(projected.flatten(2).transpose(1, 2))  # (B, h * w, D)
            positions.append(sinusoid_2d(height, width, self.config.dim_model).to(projected))  # (h * w, D)
        estimate = None
        if keypoints:
            extra, extra_positions, estimate = self.spatial(torch.cat(keypoints, dim=1))
            tokens.append(extra)  # (B, 1..2, D)
            positions.append(extra_positions)  # (1..2, D)
        return torch.cat(tokens, dim=1), torch.cat(positions).unsqueeze(0), estimate

    def features(self, image: Tensor) -> Any:
        """What the trunk makes of one camera's images (B, 3, H, W), kept or computed again on the way back."""
        if self.config.use_gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(self.backbone, image, use_reentrant=False)
        return self.backbone(image)


class SpatialTokens(nn.Module):
    """Turns the keypoints of all cameras into a token, and into an estimate of the environment state with its own.

    Fed with the estimate, the transformer meets the very quantity that a policy trained on the true environment state
    is given; the loss on the estimate teaches the trunk what to look for long before the actions would.
    """

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        inputs = 2 * config.small_cnn_keypoints * len(config.images)
        self.keypoint_proj = nn.Linear(inputs, config.dim_model)
        self.pos_embed = nn.Embedding(1 + bool(config.estimate_dim), config.dim_model)
        self.estimate_dim = config.estimate_dim
        if config.estimate_dim:
            self.estimate_head = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, config.estimate_dim))
            self.estimate_proj = nn.Linear(config.estimate_dim, config.dim_model)

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(B, 2K * cameras) -> tokens (B, 1..2, D), positions (1..2, D), estimate (B, estimate_dim) or None."""
        tokens, estimate = [self.keypoint_proj(keypoints)], None
        if self.estimate_dim:
            estimate = self.estimate_head(keypoints)
            tokens.append(self.estimate_proj(estimate))
        return torch.stack(tokens, dim=1), self.pos_embed.weight, estimate
