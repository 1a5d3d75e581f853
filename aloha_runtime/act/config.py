"""Configuration of an ACT policy, and the refusal of values that cannot work. `config_file.py` reads and writes it.

Field names and defaults are LeRobot's (`policies/act/configuration_act.py`), which are those of the paper
(Zhao et al. 2023, https://arxiv.org/abs/2304.13705, table III).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aloha_runtime.errors import ConfigError

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"
IMAGE_PREFIX = "observation.images."

RESNETS = ("resnet18", "resnet34", "resnet50")
SMALL_CNN = "small_cnn"
NORMALIZATIONS = ("MEAN_STD", "MIN_MAX", "IDENTITY")
FEATURE_TYPES = ("VISUAL", "STATE", "ENV", "ACTION")


class PolicyConfigError(ConfigError, ValueError):
    """A field of `ACTConfig` has a value that cannot work; the message names field, value and reason."""


@dataclass(frozen=True)
class Feature:
    """One input or output of the policy. `shape` is (3, height, width) for an image and (n,) for a vector."""

    type: Literal["VISUAL", "STATE", "ENV", "ACTION"]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.type not in FEATURE_TYPES:
            raise PolicyConfigError(f"feature type {self.type!r} is not one of {', '.join(FEATURE_TYPES)}")
        if not self.shape or any(not isinstance(size, int) or size < 1 for size in self.shape):
            raise PolicyConfigError(f"feature shape {self.shape!r} must be positive whole numbers")
        if self.type == "VISUAL" and (len(self.shape) != 3 or self.shape[0] != 3):
            raise PolicyConfigError(f"image feature has shape {self.shape}, must be (3, height, width)")
        if self.type != "VISUAL" and len(self.shape) != 1:
            raise PolicyConfigError(f"{self.type} feature has shape {self.shape}, must be a vector (n,)")


def aloha_features(cameras: Mapping[str, tuple[int, int]], environment_state_dim: int = 0) -> dict[str, Feature]:
    """Input features of an ALOHA policy: the 14-vector and one image per camera, `{name: (height, width)}`."""
    features = {f"{IMAGE_PREFIX}{name}": Feature("VISUAL", (3, *size)) for name, size in cameras.items()}
    features[STATE] = Feature("STATE", (14,))
    if environment_state_dim:
        features[ENVIRONMENT_STATE] = Feature("ENV", (environment_state_dim,))
    return features


@dataclass(frozen=True)
class ACTConfig:
    """Every choice that shapes an ACT policy. Immutable; wrong values raise `PolicyConfigError` on construction."""

    input_features: Mapping[str, Feature] = field(default_factory=lambda: aloha_features({"cam_high": (480, 640)}))
    output_features: Mapping[str, Feature] = field(default_factory=lambda: {ACTION: Feature("ACTION", (14,))})
    normalization_mapping: Mapping[str, str] = field(
        default_factory=lambda: {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    )
    n_obs_steps: int = 1

    chunk_size: int = 100
    n_action_steps: int = 100
    temporal_ensemble_coeff: float | None = None

    vision_backbone: str = "resnet18"
    pretrained_backbone_weights: str | None = "ResNet18_Weights.IMAGENET1K_V1"
    replace_final_stride_with_dilation: bool = False

    pre_norm: bool = False
    dim_model: int = 512
    n_heads: int = 8
    dim_feedforward: int = 3200
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: int = 4
    n_decoder_layers: int = 1
    use_vae: bool = True
    latent_dim: int = 32
    n_vae_encoder_layers: int = 4
    dropout: float = 0.1
    kl_weight: float = 10.0

    optimizer_lr: float = 1e-5
    optimizer_weight_decay: float = 1e-4
    optimizer_lr_backbone: float = 1e-5

    # Beyond LeRobot (kept in aloha.json).
    small_cnn_width: int = 32
    """Channels of the first stage of the small trunk; later stages have 2 and 4 times as many."""
    small_cnn_keypoints: int = 16
    """Spatial soft-argmax points the small trunk extracts from each image."""
    estimate_dim: int = 0
    """Leading numbers of `observation.environment_state` (cube x, y, z in m) that the policy estimates from images."""
    estimate_weight: float = 1.0
    """Weight of the estimate's smooth L1 loss, in normalised units."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_features(self)
        _check_architecture(self)

    @property
    def image_features(self) -> dict[str, Feature]:
        return {name: feature for name, feature in self.input_features.items() if feature.type == "VISUAL"}

    @property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """`{camera name: (height, width)}` in the order in which their tokens enter the transformer."""
        return {
            name.removeprefix(IMAGE_PREFIX): (feature.shape[1], feature.shape[2])
            for name, feature in self.image_features.items()
        }

    @property
    def state_dim(self) -> int:
        """0 when the policy does not see the joints."""
        return self.input_features[STATE].shape[0] if STATE in self.input_features else 0

    @property
    def environment_state_dim(self) -> int:
        return self.input_features[ENVIRONMENT_STATE].shape[0] if ENVIRONMENT_STATE in self.input_features else 0

    @property
    def action_dim(self) -> int:
        return self.output_features[ACTION].shape[0]


SMALL_POLICY: dict[str, Any] = {
    "vision_backbone": SMALL_CNN,
    "estimate_dim": 3,
    "chunk_size": 50,
    "use_vae": False,
    "dim_model": 128,
    "n_heads": 4,
    "dim_feedforward": 512,
    "n_encoder_layers": 2,
    "dropout": 0.0,
    "optimizer_lr": 5e-4,
    "optimizer_lr_backbone": 5e-3,
}
"""`ACTConfig` fields of a policy that runs at every tick on one CPU core and learns a scripted task within the hour.

No CVAE: scripted demonstrations have little style to encode (the ablation in section VI.B of the paper agrees). The
trunk's learning rate is high because its soft-argmax finds an object in 300 steps at 1e-2, and in thousands at 1e-3.
"""

_POSITIVE = (
    "chunk_size", "n_action_steps", "dim_model", "n_heads", "dim_feedforward", "n_encoder_layers", "n_decoder_layers",
    "latent_dim", "n_vae_encoder_layers", "small_cnn_width", "small_cnn_keypoints",
)  # fmt: skip
_NOT_NEGATIVE = (
    "kl_weight", "optimizer_lr", "optimizer_lr_backbone", "optimizer_weight_decay", "estimate_weight", "estimate_dim",
)  # fmt: skip


def _refuse(config: ACTConfig, name: str, reason: str) -> None:
    raise PolicyConfigError(f"ACT configuration: {name} = {getattr(config, name)!r}: {reason}")


def _check_numbers(config: ACTConfig) -> None:
    for name in (*_POSITIVE, "estimate_dim"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(config, name, "must be a whole number")
    for name in _POSITIVE:
        if getattr(config, name) < 1:
            _refuse(config, name, "must be at least 1")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < float("inf"):
            _refuse(config, name, "must be finite and not negative")
    if not 0 <= config.dropout < 1:
        _refuse(config, "dropout", "must be at least 0 and below 1")
    if config.n_obs_steps != 1:
        _refuse(config, "n_obs_steps", "ACT sees one observation at a time, so it must be 1")
    if config.n_action_steps > config.chunk_size:
        _refuse(config, "n_action_steps", f"cannot exceed chunk_size = {config.chunk_size}, the actions there are")
    if config.temporal_ensemble_coeff is not None and config.n_action_steps != 1:
        _refuse(config, "n_action_steps", "temporal ensembling predicts a chunk at every step, so it must be 1")


def _check_features(config: ACTConfig) -> None:
    if set(config.output_features) != {ACTION} or config.output_features[ACTION].type != "ACTION":
        _refuse(config, "output_features", f"must be exactly one vector of type ACTION named {ACTION!r}")
    for name, feature in config.input_features.items():
        wanted = {STATE: "STATE", ENVIRONMENT_STATE: "ENV"}.get(name)
        if wanted is None and not (name.startswith(IMAGE_PREFIX) and feature.type == "VISUAL"):
            _refuse(config, "input_features", f"{name!r} is neither {STATE}, {ENVIRONMENT_STATE} nor an image")
        if wanted is not None and feature.type != wanted:
            _refuse(config, "input_features", f"{name!r} must be of type {wanted}")
    if not config.image_features and not config.environment_state_dim:
        _refuse(config, "input_features", f"needs at least one image or {ENVIRONMENT_STATE}")
    for kind, mode in config.normalization_mapping.items():
        if mode not in NORMALIZATIONS:
            _refuse(config, "normalization_mapping", f"{kind}: {mode!r} is not one of {', '.join(NORMALIZATIONS)}")


def _check_architecture(config: ACTConfig) -> None:
    if config.vision_backbone not in (*RESNETS, SMALL_CNN):
        _refuse(config, "vision_backbone", f"is not one of {', '.join((*RESNETS, SMALL_CNN))}")
    if config.replace_final_stride_with_dilation and config.vision_backbone != "resnet50":
        _refuse(config, "replace_final_stride_with_dilation", "only resnet50 has a dilated form")
    if config.feedforward_activation not in ("relu", "gelu"):
        _refuse(config, "feedforward_activation", "is not relu or gelu")
    if config.dim_model % config.n_heads:
        _refuse(config, "dim_model", f"must be divisible by n_heads = {config.n_heads}")
    if config.dim_model % 4:
        _refuse(config, "dim_model", "must be divisible by 4 for the two-dimensional sinusoidal position embedding")
    if config.vision_backbone == SMALL_CNN and config.small_cnn_width % 8:
        _refuse(config, "small_cnn_width", "must be divisible by 8, the groups of its normalisation")
    if config.estimate_dim and config.vision_backbone != SMALL_CNN:
        _refuse(config, "estimate_dim", f"only the {SMALL_CNN} backbone estimates the environment state")
    if config.estimate_dim and (config.environment_state_dim or not config.image_features):
        _refuse(config, "estimate_dim", f"needs an image and makes no sense when {ENVIRONMENT_STATE} is an input")
