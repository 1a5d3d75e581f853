"""LeRobot policy directories, read and written: JSON and safetensors only, nothing that could run code.

    config.json                                  architecture (LeRobot's names); `aloha.json` beside it for what is ours
    model.safetensors                            weights, LeRobot's `ACTPolicy` state dict
    policy_preprocessor.json, ..._step_3_normalizer_processor.safetensors        statistics of the inputs
    policy_postprocessor.json, ..._step_0_unnormalizer_processor.safetensors     statistics of the actions

    provenance.json                              where it came from, ours alone

The layout is LeRobot 0.6's (`policies/pretrained.py`, `processor/pipeline.py`). Its releases up to 0.3 kept the
statistics inside the weights; such directories are read as well (`older.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aloha_runtime import durable
from aloha_runtime.act import config_file, older, plausible, provenance
from aloha_runtime.act.config import ACTION, ACTConfig
from aloha_runtime.act.files import read_tensors, write_tensors, write_text
from aloha_runtime.act.header import CONFIG, OURS, WEIGHTS, load_config, read_json, reads_checkpoint
from aloha_runtime.act.normalize import EPS, Stats
from aloha_runtime.errors import CheckpointError

PREPROCESSOR = "policy_preprocessor"
POSTPROCESSOR = "policy_postprocessor"
PREPROCESSOR_STATE = f"{PREPROCESSOR}_step_3_normalizer_processor.safetensors"
POSTPROCESSOR_STATE = f"{POSTPROCESSOR}_step_0_unnormalizer_processor.safetensors"


@dataclass(frozen=True)
class LoadedCheckpoint:
    directory: Path
    config: ACTConfig
    weights: dict[str, Tensor]
    stats: dict[str, dict[str, Tensor]]


@reads_checkpoint
def load(directory: Path) -> LoadedCheckpoint:
    """Everything in a policy directory, checked as far as possible without building the network."""
    config = load_config(directory)
    weights = read_tensors(directory / WEIGHTS)
    plausible.refuse_larger_network(config, directory / WEIGHTS)
    if older.has_statistics(weights):
        weights, stats = older.split_statistics(directory / WEIGHTS, config, weights)
    else:
        stats = load_stats(directory)
    plausible.refuse_backward_statistics(stats)
    return LoadedCheckpoint(directory, config, weights, stats)


def load_weights(policy: nn.Module, loaded: LoadedCheckpoint) -> None:
    """Copy the weights into `policy`; every tensor must be there, with its shape, and no other."""
    wanted = policy.state_dict()
    missing = sorted(set(wanted) - set(loaded.weights))
    unknown = sorted(set(loaded.weights) - set(wanted))
    shapes = [
        f"{name} {tuple(loaded.weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in loaded.weights and loaded.weights[name].shape != tensor.shape
    ]
    problems = [
        f"{len(items)} tensors {verb}, such as {items[0]}"
        for verb, items in (("missing", missing), ("not known", unknown), ("of the wrong shape", shapes))
        if items
    ]
    if problems:
        path = loaded.directory / WEIGHTS
        raise CheckpointError(f"{path} does not fit {CONFIG}: {'; '.join(problems)}. They are of different policies")
    plausible.refuse_other_numbers(loaded.directory / WEIGHTS, loaded.weights, wanted)
    policy.load_state_dict(loaded.weights)


def save(
    directory: Path,
    config: ACTConfig,
    weights: Mapping[str, Tensor],
    stats: Stats,
    **known: Mapping[str, Any] | None,
) -> None:
    """Write a policy directory. Every file is written aside and renamed; `config.json` comes last.

    `known` are the parts of `provenance.write`.
    """
    durable.make_directory(directory)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    flat = {f"{name}.{key}": value.contiguous() for name, values in stats.items() for key, value in values.items()}
    write_tensors(directory / WEIGHTS, tensors)
    write_tensors(directory / PREPROCESSOR_STATE, flat)
    write_tensors(directory / POSTPROCESSOR_STATE, flat)
    lerobot, ours = config_file.config_to_json(config)
    write_text(directory / f"{PREPROCESSOR}.json", config_file.dumps(_preprocessor(lerobot)))
    write_text(directory / f"{POSTPROCESSOR}.json", config_file.dumps(_postprocessor(lerobot)))
    if ours:
        write_text(directory / OURS, config_file.dumps(ours))
    else:
        (directory / OURS).unlink(missing_ok=True)
    provenance.write(directory, **known)
    write_text(directory / CONFIG, config_file.dumps(lerobot))


def _preprocessor(lerobot: Mapping[str, Any]) -> dict[str, Any]:
    features = {**lerobot["input_features"], **lerobot["output_features"]}
    steps = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
        _normalizer("normalizer_processor", features, lerobot, PREPROCESSOR_STATE),
    ]
    return {"name": PREPROCESSOR, "steps": steps}


def _postprocessor(lerobot: Mapping[str, Any]) -> dict[str, Any]:
    steps = [
        _normalizer("unnormalizer_processor", lerobot["output_features"], lerobot, POSTPROCESSOR_STATE),
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ]
    return {"name": POSTPROCESSOR, "steps": steps}


def _normalizer(kind: str, features: Mapping[str, Any], lerobot: Mapping[str, Any], state: str) -> dict[str, Any]:
    values = {"eps": EPS, "features": features, "norm_map": lerobot["normalization_mapping"]}
    return {"registry_name": kind, "config": values, "state_file": state}


@reads_checkpoint
def load_stats(directory: Path) -> dict[str, dict[str, Tensor]]:
    """`{feature: {statistic: tensor}}`; those of the actions come from the postprocessor, which undoes them."""
    _refuse_renaming(directory / f"{PREPROCESSOR}.json")
    stats = _pipeline_stats(directory, PREPROCESSOR, "normalizer_processor")
    stats[ACTION] = _pipeline_stats(directory, POSTPROCESSOR, "unnormalizer_processor").get(ACTION, {})
    return stats


def _refuse_renaming(path: Path) -> None:
    for step in _steps(path):
        renamed = (step.get("config") or {}).get("rename_map") or {}
        for old, new in renamed.items():
            raise CheckpointError(
                f"{path} renames {old} to {new}; the rig's camera names are mapped in its configuration instead: empty "
                "the rename_map and map the names there"
            )


def _steps(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing, and {WEIGHTS} has no statistics in it as LeRobot's up to 0.3 has, so there are no "
            "statistics to normalise with; copy the whole policy directory"
        )
    steps = read_json(path).get("steps")
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def _pipeline_stats(directory: Path, pipeline: str, kind: str) -> dict[str, dict[str, Tensor]]:
    path = directory / f"{pipeline}.json"
    found = [step for step in _steps(path) if step.get("registry_name") == kind]
    if len(found) != 1 or not isinstance(found[0].get("state_file"), str):
        raise CheckpointError(f"{path} does not have exactly one {kind} step with a state file; it is damaged")
    if not re.fullmatch(r"[\w.-]+\.safetensors", found[0]["state_file"]):
        raise CheckpointError(
            f"{path}: state file {found[0]['state_file']!r} must be a name inside the directory, ending in .safetensors"
        )
    stats: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(directory / found[0]["state_file"]).items():
        feature, _, statistic = name.rpartition(".")
        stats.setdefault(feature, {})[statistic] = tensor
    return stats
