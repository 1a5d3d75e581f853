"""An `ACTConfig` as JSON: LeRobot's `config.json`, and `aloha.json` beside it for what LeRobot cannot express."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from aloha_runtime.act.config import (
    ENVIRONMENT_STATE,
    FIELDS,
    IMAGE_PREFIX,
    RESNETS,
    STATE,
    ACTConfig,
    PolicyConfigError,
    Shape,
    feature_type,
)

log = logging.getLogger(__name__)

_OURS = (
    "action_loss", "sample_latent", "use_gradient_checkpointing", "use_vip", "vip_checkpoint",
    "small_cnn_width", "small_cnn_keypoints", "estimate_dim", "estimate_weight",
)  # fmt: skip
"""Fields that LeRobot's configuration does not have; written when they differ from their defaults."""

_LEROBOT_NAMES = {
    "lr": "optimizer_lr", "lr_backbone": "optimizer_lr_backbone", "weight_decay": "optimizer_weight_decay",
}  # fmt: skip
"""Fields that LeRobot calls something else."""

IMAGENET_WEIGHTS = {name: f"ResNet{name[6:]}_Weights.IMAGENET1K_V1" for name in RESNETS}
"""torchvision's names of the weights that `pretrained_backbone = True` stands for."""

OUR_WEIGHTS = IMAGENET_WEIGHTS["resnet18"]
"""What a `config.json` with a trunk of ours says instead; LeRobot refuses the backbone before it reads this."""


def _features_to_json(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    return {name: {"type": feature_type(name), "shape": list(shape)} for name, shape in shapes.items()}


def without_weights(lerobot: Mapping[str, Any]) -> tuple[str, ...]:
    """Inputs of a `config.json` that ACT's network has no weights for. LeRobot lists every `observation.*` vector of a
    dataset as an input, and its ACT reads the joints, the environment's state and images of them."""
    features = lerobot.get("input_features")
    return tuple(name for name, value in features.items() if _unread(name, value)) if isinstance(features, dict) else ()


def _unread(name: str, feature: Any) -> bool:
    kind = feature.get("type") if isinstance(feature, dict) else None
    is_read = name in (STATE, ENVIRONMENT_STATE) or name.startswith(IMAGE_PREFIX)
    return kind in ("STATE", "LANGUAGE", "REWARD") and not is_read


def _features_from_json(features: Mapping[str, Any]) -> dict[str, Shape]:
    shapes = {}
    for name, value in features.items():
        if _unread(name, value):
            continue
        if value["type"] != feature_type(name):
            raise PolicyConfigError(f"config.json: {name!r} is of type {value['type']!r}, must be {feature_type(name)}")
        shapes[name] = tuple(value["shape"])
    return shapes


_LEROBOT_ONLY: dict[str, Any] = {
    "device": "cpu", "use_amp": False, "use_peft": False, "push_to_hub": False, "repo_id": None, "private": None,
    "tags": None, "license": None, "pretrained_path": None, "pretrained_revision": None,
}  # fmt: skip
"""Keys of LeRobot's `config.json` that say how its own tools run, with the values we write."""


def config_to_json(config: ACTConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(config.json, aloha.json)` contents. The second is empty when LeRobot can express the whole policy."""
    values = {name: getattr(config, name) for name in FIELDS}
    defaults = ACTConfig()
    ours = {name: values.pop(name) for name in _OURS}
    ours = {name: value for name, value in ours.items() if value != getattr(defaults, name)}
    pretrained = values.pop("pretrained_backbone")
    if isinstance(pretrained, str) and "_Weights." not in pretrained:
        ours["pretrained_backbone"] = pretrained  # a file, of which LeRobot knows nothing
    # LeRobot refuses a backbone of ours by its name; under a ResNet's it would open the policy with random weights.
    imagenet = IMAGENET_WEIGHTS.get(config.vision_backbone, OUR_WEIGHTS)
    named = pretrained if "_Weights." in str(pretrained) else imagenet
    values["pretrained_backbone_weights"] = named if pretrained else None
    values["normalization_mapping"] = dict(config.normalization_mapping)
    values["input_features"] = _features_to_json(values.pop("input_shapes"))
    values["output_features"] = _features_to_json(values.pop("output_shapes"))
    for name, theirs in _LEROBOT_NAMES.items():
        values[theirs] = values.pop(name)
    return {"type": "act", **_LEROBOT_ONLY, **values}, ours


def config_from_json(lerobot: Mapping[str, Any], ours: Mapping[str, Any] | None = None) -> ACTConfig:
    """The inverse of `config_to_json`. `PolicyConfigError` for another policy type or values that cannot work."""
    lerobot = _modern(lerobot)
    if lerobot.get("type") != "act":
        raise PolicyConfigError(f"policy type is {lerobot.get('type')!r}, must be 'act'")
    theirs = {_LEROBOT_NAMES.get(name, name): name for name in FIELDS if name not in _OURS}
    translated = {"input_features", "output_features", "pretrained_backbone_weights"}
    unknown = sorted(set(lerobot) - set(theirs) - translated - set(_LEROBOT_ONLY) - {"type"})
    if unknown:
        log.warning("config.json has keys this version does not use: %s", ", ".join(unknown))
    values = {theirs[name]: value for name, value in lerobot.items() if name in theirs}
    needed = (
        "input_features",
        "output_features",
        *(["normalization_mapping"] if "normalization_mapping" in lerobot else []),
    )
    missing = [name for name in needed if not isinstance(lerobot.get(name), Mapping)]
    if missing:
        raise PolicyConfigError(f"config.json has no {' and no '.join(missing)}")
    weights = lerobot.get("pretrained_backbone_weights")
    values["pretrained_backbone"] = weights in IMAGENET_WEIGHTS.values() or weights or False
    strangers = sorted(set(ours or {}) - set(_OURS) - {"vision_backbone", "pretrained_backbone"})
    if strangers:
        raise PolicyConfigError(f"aloha.json has unknown keys: {', '.join(strangers)}")
    values.update(ours or {})  # older releases wrote "resnet18" for a trunk of ours, and its name into aloha.json
    try:
        values["input_shapes"] = _features_from_json(lerobot["input_features"])
        values["output_shapes"] = _features_from_json(lerobot["output_features"])
        return ACTConfig(**values)
    except (KeyError, TypeError) as error:
        raise PolicyConfigError(f"config.json has a value of the wrong form: {error}") from error


def _modern(content: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` of any release of LeRobot under the keys of today's.

    The oldest (2024) have `input_shapes` and a normalisation mode for each feature, and no `type`.
    """
    values = dict(content)
    if "type" not in values and {"chunk_size", "use_vae", "latent_dim"} <= set(values):
        values["type"] = "act"  # named in the configuration of the training only
    if not isinstance(values.get("input_shapes"), Mapping) or not isinstance(values.get("output_shapes"), Mapping):
        return values
    modes: dict[str, str] = {}
    for side, kind in (("input", "input_features"), ("output", "output_features")):
        shapes, normalization = values.pop(f"{side}_shapes"), values.pop(f"{side}_normalization_modes", {})
        values[kind] = {name: {"type": feature_type(name), "shape": shape} for name, shape in shapes.items()}
        for name, mode in normalization.items():
            if modes.setdefault(feature_type(name), mode.upper()) != mode.upper():
                raise PolicyConfigError(f"config.json: {name} is normalised by {mode}, others of its kind are not")
    values["normalization_mapping"] = modes
    if values.pop("temporal_ensemble_momentum", None) is not None:
        log.warning("config.json: temporal_ensemble_momentum is another ensembling than the paper's and is left out")
    return values


def dumps(content: Mapping[str, Any]) -> str:
    """JSON text as LeRobot lays it out."""
    return json.dumps(content, indent=4)
