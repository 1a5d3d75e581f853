"""LeRobot policy directories, read and written: JSON and safetensors only, nothing that could run code.

    config.json                                  architecture (LeRobot's names); `aloha.json` beside it for what is ours
    model.safetensors                            weights, LeRobot's `ACTPolicy` state dict
    policy_preprocessor.json, ..._step_3_normalizer_processor.safetensors        statistics of the inputs
    policy_postprocessor.json, ..._step_0_unnormalizer_processor.safetensors     statistics of the actions

    provenance.json                              where it came from, ours alone

The layout is LeRobot 0.6's (`policies/pretrained.py`, `processor/pipeline.py`). Its releases up to 0.3 kept the
statistics inside the weights; such directories are read as well (`older.py`). Steps of the pipelines are carried out or
refused by `processing.py`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aloha_runtime import durable
from aloha_runtime.act import config_file, older, pipeline_save, plausible, provenance
from aloha_runtime.act.config import ACTION, ACTConfig
from aloha_runtime.act.files import read_tensors, write_tensors, write_text
from aloha_runtime.act.header import CONFIG, OURS, WEIGHTS, load_header, reads_checkpoint
from aloha_runtime.act.normalize import Stats
from aloha_runtime.act.pipeline_file import BEFORE, Pipelines, Step
from aloha_runtime.act.pipeline_save import STATE_AFTER, STATE_BEFORE
from aloha_runtime.act.plain_weights import plain_weights
from aloha_runtime.act.processing import Processing
from aloha_runtime.errors import CheckpointError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedCheckpoint:
    directory: Path
    config: ACTConfig
    weights: dict[str, Tensor]
    stats: dict[str, dict[str, Tensor]]
    processing: Processing


@reads_checkpoint
def load(directory: Path) -> LoadedCheckpoint:
    """Everything in a policy directory, checked as far as possible without building the network."""
    header = load_header(directory)
    if header.dropped:
        log.warning(
            "%s: %s: the network has no weights for them; they are left out", directory, ", ".join(header.dropped)
        )
    weights = plain_weights(directory / WEIGHTS, read_tensors(directory / WEIGHTS))
    plausible.refuse_larger_network(header.config, directory / WEIGHTS)
    if header.pipelines is not None:
        stats = _pipeline_stats(header.pipelines, header.processing)
        weights = older.without_statistics(weights)
    elif older.has_statistics(weights):
        weights, stats = older.split_statistics(directory / WEIGHTS, header.config, weights)
    else:
        raise _no_statistics(directory)
    plausible.refuse_backward_statistics(stats)
    return LoadedCheckpoint(directory, header.config, weights, stats, header.processing)


def _no_statistics(directory: Path) -> CheckpointError:
    return CheckpointError(
        f"{directory / BEFORE}.json is missing, and {WEIGHTS} has no statistics in it as LeRobot's up to 0.3 has, so "
        "there are no statistics to normalise with; copy the whole policy directory"
    )


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
    processing: Processing | None = None,
    **known: Mapping[str, Any] | None,
) -> None:
    """Write a policy directory. Every file is written aside and renamed; `config.json` comes last.

    `processing` is what the configuration says unless given; `known` are the parts of `provenance.write`.
    """
    durable.make_directory(directory)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    flat = {f"{name}.{key}": value.contiguous() for name, values in stats.items() for key, value in values.items()}
    write_tensors(directory / WEIGHTS, tensors)
    for state in (STATE_BEFORE, STATE_AFTER):
        write_tensors(directory / state, flat)
    lerobot, ours = config_file.config_to_json(config)
    for pipeline in pipeline_save.to_json(processing or Processing.of(config), lerobot):
        write_text(directory / f"{pipeline['name']}.json", config_file.dumps(pipeline))
    if ours:
        write_text(directory / OURS, config_file.dumps(ours))
    else:
        (directory / OURS).unlink(missing_ok=True)
    provenance.write(directory, **known)
    write_text(directory / CONFIG, config_file.dumps(lerobot))


@reads_checkpoint
def load_stats(directory: Path) -> dict[str, dict[str, Tensor]]:
    """`{feature: {statistic: tensor}}`; those of the actions come from the postprocessor, which undoes them."""
    header = load_header(directory)
    if header.pipelines is None:
        raise _no_statistics(directory)
    return _pipeline_stats(header.pipelines, header.processing)


def _pipeline_stats(pipelines: Pipelines, processing: Processing) -> dict[str, dict[str, Tensor]]:
    """The statistics of both pipelines by the names that the rig knows."""
    found = _step_stats(pipelines, pipelines.before)
    stats = {processing.renamed.get(name, name): values for name, values in found.items()}
    stats[ACTION] = _step_stats(pipelines, pipelines.after).get(ACTION, {})
    return stats


def _step_stats(pipelines: Pipelines, steps: tuple[Step, ...]) -> dict[str, dict[str, Tensor]]:
    stats: dict[str, dict[str, Tensor]] = {}
    for state in (step.state for step in steps if step.state is not None):
        for name, tensor in read_tensors(pipelines.directory / state).items():
            feature, _, statistic = name.rpartition(".")
            stats.setdefault(feature, {})[statistic] = tensor
    return stats
