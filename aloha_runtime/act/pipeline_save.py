"""LeRobot's processor pipelines written: JSON that LeRobot's own `make_pre_post_processors` opens."""

from collections.abc import Mapping
from typing import Any

from aloha_runtime.act.pipeline_file import AFTER, BEFORE
from aloha_runtime.act.processing import Processing

STATE_BEFORE = f"{BEFORE}_step_3_normalizer_processor.safetensors"
STATE_AFTER = f"{AFTER}_step_0_unnormalizer_processor.safetensors"
"""Files of the statistics of inputs and actions. LeRobot finds them by what the step says, whatever the number."""


def to_json(processing: Processing, lerobot: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`(policy_preprocessor.json, policy_postprocessor.json)` of a policy with this `config.json`."""
    features = {**lerobot["input_features"], **lerobot["output_features"]}
    for name in processing.unnormalized:
        features.pop(name, None)
    device = _step("device_processor", device="cpu", float_dtype=None)
    relative = _relative(processing)
    before = [
        _step("rename_observations_processor", rename_map={}),
        _step("to_batch_processor"),
        *_crop_resize(processing),
        *relative,
        device,
        _normalizer("normalizer_processor", features, processing.norm_map, processing.eps, STATE_BEFORE),
    ]
    modes = dict(processing.norm_map)
    if "ACTION" in modes or processing.action_mode != "IDENTITY":
        modes["ACTION"] = processing.action_mode
    after = [
        _normalizer("unnormalizer_processor", lerobot["output_features"], modes, processing.action_eps, STATE_AFTER),
        *(_step("absolute_actions_processor", enabled=True) for _ in relative),
        device,
    ]
    return {"name": BEFORE, "steps": before}, {"name": AFTER, "steps": after}


def _step(name: str, **settings: Any) -> dict[str, Any]:
    return {"registry_name": name, "config": settings}


def _crop_resize(processing: Processing) -> list[dict[str, Any]]:
    if not processing.crops and processing.resize is None:
        return []
    crops = {name: list(crop) for name, crop in processing.crops.items()} or None
    size = None if processing.resize is None else list(processing.resize)
    return [_step("image_crop_resize_processor", crop_params_dict=crops, resize_size=size)]


def _relative(processing: Processing) -> list[dict[str, Any]]:
    found = processing.relative
    if found is None:
        return []
    excluded = found.exclude_joints or []
    return [_step("relative_actions_processor", enabled=True, exclude_joints=excluded, action_names=found.action_names)]


def _normalizer(
    kind: str, features: Mapping[str, Any], modes: Mapping[str, str], eps: float, state: str
) -> dict[str, Any]:
    return _step(kind, eps=eps, features=dict(features), norm_map=dict(modes)) | {"state_file": state}
