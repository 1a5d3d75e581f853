"""Configuration of an ACT policy, and the refusal of values that cannot work. `config_file.py` reads and writes it.

Field names and defaults are LeRobot's (`policies/act/configuration_act.py`), which are those of the paper
(Zhao et al. 2023, https://arxiv.org/abs/2304.13705, table III).
"""

import copy
import re
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
EFFICIENTNET = "efficientnet_lite0"
BACKBONES = (*RESNETS, EFFICIENTNET, SMALL_CNN)
TORCHVISION_WEIGHTS = r"(\w+)_Weights\.\w+$"
"""Pattern of torchvision's names of weights; any other text is the path of a file."""
VIP_BACKBONE = "resnet50"
"""The network that VIP was trained on."""
NORMALIZATIONS = ("MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY")
TRAINING_FIELDS = (
    "lr", "lr_backbone", "weight_decay", "kl_weight", "dropout", "action_loss", "estimate_weight",
    "use_gradient_checkpointing", "pretrained_backbone", "temporal_ensemble_coeff", "n_action_steps", "sample_latent",
)  # fmt: skip
"""Fields of `ACTConfig` that may change from one run to the next, and in a policy that is built: they are not the shape
of the network."""
FeatureType = Literal["VISUAL", "STATE", "ENV", "ACTION"]


class PolicyConfigError(ConfigError, ValueError):
    """A field of `ACTConfig` has a value that cannot work; the message names field, value and reason."""


Shape = tuple[int, ...]
"""(3, height, width) for an image, (n,) for a vector; without a batch dimension."""


def feature_type(name: str) -> FeatureType:
    """What an input or output is, by its name; `PolicyConfigError` for one that ACT has no place for."""
    if name.startswith(IMAGE_PREFIX):
        return "VISUAL"
    types: dict[str, FeatureType] = {STATE: "STATE", ENVIRONMENT_STATE: "ENV", ACTION: "ACTION"}
    if name not in types:
        raise PolicyConfigError(f"{name!r} is neither {STATE}, {ENVIRONMENT_STATE}, {ACTION} nor an image")
    return types[name]


def aloha_inputs(cameras: Mapping[str, tuple[int, int]], environment_state_dim: int = 0) -> dict[str, Shape]:
    """Input shapes of an ALOHA policy: the 14-vector and one image per camera, `{name: (height, width)}`."""
    shapes: dict[str, Shape] = {f"{IMAGE_PREFIX}{name}": (3, *size) for name, size in cameras.items()}
    shapes[STATE] = (14,)
    if environment_state_dim:
        shapes[ENVIRONMENT_STATE] = (environment_state_dim,)
    return shapes


@dataclass
class ACTConfig:
    """Every choice that shapes an ACT policy. A value that cannot work raises `PolicyConfigError` when it is given,
    on construction and on assignment. What shapes the network cannot be changed once a policy is built of it."""

    input_shapes: Mapping[str, Shape] = field(default_factory=lambda: aloha_inputs({"cam_high": (480, 640)}))
    output_shapes: Mapping[str, Shape] = field(default_factory=lambda: {ACTION: (14,)})
    normalization_mapping: Mapping[str, str] = field(
        default_factory=lambda: {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    )
    n_obs_steps: int = 1

    chunk_size: int = 100
    n_action_steps: int = 0
    """Actions executed open loop before the next chunk. 0 stands for the whole chunk, or 1 with temporal ensembling."""
    temporal_ensemble_coeff: float | None = None

    vision_backbone: str = "resnet18"
    pretrained_backbone: bool | str = True
    """Weights that training starts from: True for published ImageNet ones, a name of torchvision's, or a file."""
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

    lr: float = 1e-5
    weight_decay: float = 1e-4
    lr_backbone: float = 1e-5

    # Beyond LeRobot (kept in aloha.json).
    action_loss: Literal["l1", "l2"] = "l1"
    """Distance between predicted and demonstrated actions; the paper found L1 to be more precise."""
    sample_latent: bool = False
    """At inference draw the latent from N(0, 1), for varied behaviour, instead of taking its mean 0 (the paper)."""
    use_gradient_checkpointing: bool = False
    """In training compute each camera's trunk and each layer again on the way back: less memory, more time."""
    use_vip: bool = False
    """Start from a ResNet-50 trained by value-implicit pre-training (Ma et al. 2022, https://arxiv.org/abs/2210.00030)."""
    vip_checkpoint: str | None = None
    """File of the published VIP weights."""
    small_cnn_width: int = 32
    """Channels of the first stage of the small trunk; later stages have 2 and 4 times as many."""
    small_cnn_keypoints: int = 16
    """Spatial soft-argmax points the small trunk extracts from each image."""
    estimate_dim: int = 0
    """Leading numbers of `observation.environment_state` (cube x, y, z in m) that the policy estimates from images."""
    estimate_weight: float = 1.0
    """Weight of the estimate's smooth L1 loss, in normalised units."""

    def __post_init__(self) -> None:
        if self.use_vip and self.vision_backbone == ACTConfig.vision_backbone:
            object.__setattr__(self, "vision_backbone", VIP_BACKBONE)
        if not self.n_action_steps:
            steps = self.chunk_size if self.temporal_ensemble_coeff is None else 1
            object.__setattr__(self, "n_action_steps", steps)
        self._check()
        object.__setattr__(self, "_complete", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise PolicyConfigError(f"ACT configuration: there is no {name}; there are: {', '.join(FIELDS)}")
        before = self.__dict__.get(name)
        if "_built" in self.__dict__ and name not in TRAINING_FIELDS and value != before:
            raise PolicyConfigError(
                f"ACT configuration: {name} = {value!r}: the policy is built with {before!r}, which its weights fit; "
                "make a new policy, ACTPolicy(dataclasses.replace(config, ...))"
            )
        object.__setattr__(self, name, value)
        if "_complete" in self.__dict__:
            try:
                self._check()
            except PolicyConfigError:
                object.__setattr__(self, name, before)
                raise

    def built(self) -> "ACTConfig":
        """A copy that a policy keeps: assigning to what shapes its network is refused."""
        kept = copy.copy(self)
        object.__setattr__(kept, "_built", True)
        return kept

    def _check(self) -> None:
        _check_numbers(self)
        _check_shapes(self)
        _check_architecture(self)

    @property
    def images(self) -> dict[str, Shape]:
        """Input images, `{name: (3, height, width)}`."""
        return {name: shape for name, shape in self.input_shapes.items() if name.startswith(IMAGE_PREFIX)}

    @property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """`{camera name: (height, width)}` in the order in which their tokens enter the transformer."""
        return {name.removeprefix(IMAGE_PREFIX): (shape[1], shape[2]) for name, shape in self.images.items()}

    @property
    def state_dim(self) -> int:
        """0 when the policy does not see the joints."""
        return self.input_shapes.get(STATE, (0,))[0]

    @property
    def environment_state_dim(self) -> int:
        return self.input_shapes.get(ENVIRONMENT_STATE, (0,))[0]

    @property
    def action_dim(self) -> int:
        return self.output_shapes[ACTION][0]


FIELDS = tuple(ACTConfig.__dataclass_fields__)

_POSITIVE = (
    "chunk_size", "n_action_steps", "dim_model", "n_heads", "dim_feedforward", "n_encoder_layers", "n_decoder_layers",
    "latent_dim", "n_vae_encoder_layers", "small_cnn_width", "small_cnn_keypoints",
)  # fmt: skip
_NOT_NEGATIVE = (
    "kl_weight", "lr", "lr_backbone", "weight_decay", "estimate_weight", "estimate_dim",
)  # fmt: skip

_LARGEST = {
    **dict.fromkeys(("n_encoder_layers", "n_decoder_layers", "n_vae_encoder_layers"), 100),
    **dict.fromkeys(("chunk_size", "n_action_steps", "dim_model", "latent_dim", "n_heads", "estimate_dim"), 10_000),
    **dict.fromkeys(("small_cnn_width", "small_cnn_keypoints"), 1000),
    "dim_feedforward": 100_000,
}
"""Far above what anybody trains; a file that says more is damaged, and building it would take all memory."""
_LARGEST_SIDE = 10_000
"""Pixels of a picture's side, numbers of a vector."""


def _refuse(config: ACTConfig, name: str, reason: str) -> None:
    raise PolicyConfigError(f"ACT configuration: {name} = {repr(getattr(config, name))[:200]}: {reason}")


def _check_numbers(config: ACTConfig) -> None:
    for name in (*_POSITIVE, "estimate_dim"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(config, name, "must be a whole number")
    for name in _POSITIVE:
        if getattr(config, name) < 1:
            _refuse(config, name, "must be at least 1")
    for name, largest in _LARGEST.items():
        if getattr(config, name) > largest:
            _refuse(config, name, f"must be at most {largest}")
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


def _check_shapes(config: ACTConfig) -> None:
    if set(config.output_shapes) != {ACTION}:
        _refuse(config, "output_shapes", f"must be exactly one vector named {ACTION!r}")
    for field_name in ("input_shapes", "output_shapes"):
        for name, shape in getattr(config, field_name).items():
            _check_shape(config, field_name, name, shape)
    if not config.images and not config.environment_state_dim:
        _refuse(config, "input_shapes", f"needs at least one image or {ENVIRONMENT_STATE}")
    for kind, mode in config.normalization_mapping.items():
        if mode not in NORMALIZATIONS:
            _refuse(config, "normalization_mapping", f"{kind}: {mode!r} is not one of {', '.join(NORMALIZATIONS)}")


def _check_shape(config: ACTConfig, field_name: str, name: str, shape: Shape) -> None:
    kind = feature_type(name)
    if (kind == "ACTION") != (field_name == "output_shapes"):
        _refuse(config, field_name, f"{name!r} does not belong there")
    if not shape or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        _refuse(config, field_name, f"shape of {name!r} must be positive whole numbers")
    if max(shape) > _LARGEST_SIDE:
        _refuse(config, field_name, f"{name!r} is {max(shape)} long, more than {_LARGEST_SIDE}")
    if kind == "VISUAL" and (len(shape) != 3 or shape[0] != 3):
        _refuse(config, field_name, f"shape of {name!r} must be (3, height, width)")
    if kind != "VISUAL" and len(shape) != 1:
        _refuse(config, field_name, f"shape of {name!r} must be that of a vector, (n,)")


def _check_backbone(config: ACTConfig) -> None:
    name, weights = config.vision_backbone, config.pretrained_backbone
    if name not in BACKBONES:
        ours = f"{EFFICIENTNET} and {SMALL_CNN} are ours alone: LeRobot cannot open a policy with them"
        _refuse(config, "vision_backbone", f"is not one of {', '.join(BACKBONES)} ({ours})")
    if config.use_vip and name != VIP_BACKBONE:
        _refuse(config, "vision_backbone", f"VIP's weights are those of a {VIP_BACKBONE}")
    if config.use_vip and not config.vip_checkpoint:
        _refuse(config, "vip_checkpoint", "use_vip needs the file of the published VIP weights")
    if not isinstance(weights, bool) and (not isinstance(weights, str) or not weights):
        _refuse(config, "pretrained_backbone", "is not true, false, a name of torchvision's weights, or a file")
    named = re.match(TORCHVISION_WEIGHTS, weights) if isinstance(weights, str) else None
    if named and named[1].lower() != name:
        _refuse(config, "pretrained_backbone", f"are not weights of vision_backbone = {name!r}")
    if isinstance(weights, str) and name == SMALL_CNN:
        _refuse(config, "pretrained_backbone", f"there are none for {SMALL_CNN}, which starts from random weights")


def _check_architecture(config: ACTConfig) -> None:
    _check_backbone(config)
    if config.action_loss not in ("l1", "l2"):
        _refuse(config, "action_loss", "is not l1 or l2")
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
    if config.estimate_dim and (config.environment_state_dim or not config.images):
        _refuse(config, "estimate_dim", f"needs an image and makes no sense when {ENVIRONMENT_STATE} is an input")


ACT_ALOHA_PRESET = ACTConfig(
    input_shapes=aloha_inputs(dict.fromkeys(("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"), (480, 640)))
)
"""The paper's policy for the real rig: four cameras of 640x480, chunks of 100 actions (2 s), 51.6 M parameters."""

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
    "lr": 5e-4,
    "lr_backbone": 5e-3,
}
"""`ACTConfig` fields of a policy that runs at every tick on one CPU core and learns a scripted task within the hour.

No CVAE: scripted demonstrations have little style to encode (the ablation in section VI.B of the paper agrees). The
trunk's learning rate is high because its soft-argmax finds an object in 300 steps at 1e-2, and in thousands at 1e-3.
"""
