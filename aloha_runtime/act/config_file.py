"""An `ACTConfig` as JSON: LeRobot's `config.json`, and `aloha.json` beside it for what LeRobot cannot express."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from aloha_runtime.act.config import SMALL_CNN, ACTConfig, Feature, PolicyConfigError

log = logging.getLogger(__name__)

_OURS = ("small_cnn_width", "small_cnn_keypoints", "estimate_dim", "estimate_weight")
"""Fields that LeRobot's configuration does not have."""


def _features_to_json(features: Mapping[str, Feature]) -> dict[str, Any]:
    return {name: {"type": feature.type, "shape": list(feature.shape)} for name, feature in features.items()}


def _features_from_json(features: Mapping[str, Any]) -> dict[str, Feature]:
    return {name: Feature(value["type"], tuple(value["shape"])) for name, value in features.items()}


_LEROBOT_ONLY: dict[str, Any] = {
    "device": "cpu", "use_amp": False, "use_peft": False, "push_to_hub": False, "repo_id": None, "private": None,
    "tags": None, "license": None, "pretrained_path": None, "pretrained_revision": None,
}  # fmt: skip
"""Keys of LeRobot's `config.json` that say how its own tools run, with the values we write."""


def config_to_json(config: ACTConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(config.json, aloha.json)` contents. The second is empty when LeRobot can express the whole policy."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    values["input_features"] = _features_to_json(config.input_features)
    values["output_features"] = _features_to_json(config.output_features)
    values["normalization_mapping"] = dict(config.normalization_mapping)
    ours = {name: values.pop(name) for name in _OURS}
    if config.vision_backbone == SMALL_CNN:
        # LeRobot refuses to open a config.json with a backbone it does not know, so that name goes into our own file.
        ours["vision_backbone"] = SMALL_CNN
        values["vision_backbone"] = "resnet18"
    else:
        ours = {}
    return {"type": "act", **_LEROBOT_ONLY, **values}, ours


def config_from_json(lerobot: Mapping[str, Any], ours: Mapping[str, Any] | None = None) -> ACTConfig:
    """The inverse of `config_to_json`. `PolicyConfigError` for another policy type or values that cannot work."""
    if lerobot.get("type") != "act":
        raise PolicyConfigError(f"policy type is {lerobot.get('type')!r}, must be 'act'")
    known = {f.name for f in dataclasses.fields(ACTConfig)}
    unknown = sorted(set(lerobot) - known - set(_LEROBOT_ONLY) - {"type"})
    if unknown:
        log.warning("config.json has keys this version does not use: %s", ", ".join(unknown))
    values = {name: value for name, value in lerobot.items() if name in known}
    missing = [name for name in ("input_features", "output_features") if not isinstance(values.get(name), Mapping)]
    if missing:
        raise PolicyConfigError(f"config.json has no {' and no '.join(missing)}")
    strangers = sorted(set(ours or {}) - set(_OURS) - {"vision_backbone"})
    if strangers:
        raise PolicyConfigError(f"aloha.json has unknown keys: {', '.join(strangers)}")
    values.update(ours or {})
    try:
        values["input_features"] = _features_from_json(values["input_features"])
        values["output_features"] = _features_from_json(values["output_features"])
        return ACTConfig(**values)
    except (KeyError, TypeError) as error:
        raise PolicyConfigError(f"config.json has a value of the wrong form: {error}") from error


def dumps(content: Mapping[str, Any]) -> str:
    """JSON text as LeRobot lays it out."""
    return json.dumps(content, indent=4)
