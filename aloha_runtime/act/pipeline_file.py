"""LeRobot's processor pipelines as files: `policy_preprocessor.json` and `policy_postprocessor.json`, read strictly.

A step, a setting or a key that this runtime does not execute is refused by its name: left out, it would change what a
policy does without a word. What the steps mean together is `processing.py`'s.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from aloha_runtime.act.config import NORMALIZATIONS
from aloha_runtime.act.json_file import read_json
from aloha_runtime.errors import CheckpointError

BEFORE, AFTER = "policy_preprocessor", "policy_postprocessor"
STATE_FILE = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
"""A name inside the directory: no separator, so that it leads nowhere else."""
FLOAT_TYPES = (None, "float32", "float")
"""What `device_processor` may cast to: the network's weights are float32, and LeRobot's cannot take other inputs."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No settings at all."""


class Rename(Settings, frozen=True, forbid_unknown_fields=True):
    rename_map: dict[str, str] | None = None


class Device(Settings, frozen=True, forbid_unknown_fields=True):
    """Where tensors go; this runtime has its own option for that."""

    device: str = "cpu"
    float_dtype: str | None = None


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
    shape: tuple[int, ...]


class Normalize(Settings, frozen=True, forbid_unknown_fields=True):
    features: dict[str, Feature]
    norm_map: dict[str, str]
    eps: float = 1e-8
    normalize_observation_keys: list[str] | None = None


class CropResize(Settings, frozen=True, forbid_unknown_fields=True):
    """`crop_params_dict`: `{image: (top, left, height, width)}`; `resize_size`: (height, width) of every image."""

    crop_params_dict: dict[str, tuple[int, int, int, int]] | None = None
    resize_size: tuple[int, int] | None = None


class Relative(Settings, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    exclude_joints: list[str] | None = None
    action_names: list[str] | None = None


class Absolute(Settings, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False


BATCH = ("to_batch_processor", "to_batch_processor_action", "to_batch_processor_observation",
         "to_batch_processor_complementary_data")  # fmt: skip
STEPS: Mapping[str, Mapping[str, type[Settings]]] = {
    BEFORE: {
        "rename_observations_processor": Rename,
        **dict.fromkeys(BATCH, Settings),
        "device_processor": Device,
        "image_crop_resize_processor": CropResize,
        "relative_actions_processor": Relative,
        "normalizer_processor": Normalize,
    },
    AFTER: {
        **dict.fromkeys(BATCH, Settings),
        "device_processor": Device,
        "absolute_actions_processor": Absolute,
        "unnormalizer_processor": Normalize,
    },
}
"""The steps that are executed, by LeRobot's names."""


@dataclass(frozen=True)
class Step:
    """One step of a pipeline. `path`, `index`: where it is written; `state`: file of its statistics, if it has one."""

    path: Path
    index: int
    name: str
    settings: Any
    state: str | None

    def refuse(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: step {self.index} ({self.name}): {reason}")


@dataclass(frozen=True)
class Pipelines:
    """Both pipelines of a policy directory, in the order of their steps."""

    directory: Path
    before: tuple[Step, ...]
    after: tuple[Step, ...]


def read(directory: Path) -> Pipelines | None:
    """The pipelines of a policy directory; None where neither is there, as LeRobot wrote it up to 0.3.

    Raises `CheckpointError` naming file, step and setting.
    """
    paths = [directory / f"{name}.json" for name in (BEFORE, AFTER)]
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    if len(there) == 1:
        absent = next(path for path in paths if path not in there)
        raise CheckpointError(
            f"{absent} is missing, so there are no statistics to normalise with; copy the whole policy directory"
        )
    return Pipelines(directory, *(tuple(_steps(path)) for path in paths))


def _steps(path: Path) -> Iterator[Step]:
    content = read_json(path)
    _only(content, ("name", "steps"), f"{path}")
    steps = content.get("steps")
    if not isinstance(steps, list):
        raise CheckpointError(f"{path} has no list of steps; it is damaged")
    for index, entry in enumerate(steps):
        yield _step(path, index, entry)


def _only(content: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in content:
        if key not in known:
            raise CheckpointError(f"{where}: unknown key {key[:80]!r}; this runtime knows {', '.join(known)}")


def _step(path: Path, index: int, entry: Any) -> Step:
    where = f"{path}: step {index}"
    if not isinstance(entry, dict):
        raise CheckpointError(f"{where} is no JSON object; the file is damaged")
    _only(entry, ("registry_name", "class", "config", "state_file"), where)
    name = entry.get("registry_name", entry.get("class"))
    known = STEPS[path.stem]
    if not isinstance(name, str) or name not in known or "class" in entry:
        raise CheckpointError(
            f"{where} is {str(name)[:120]!r}, which this runtime does not execute here (it executes "
            f"{', '.join(known)}); run the policy with LeRobot, or save it without that step"
        )
    settings = _settings(where, name, known[name], entry.get("config", {}))
    step = Step(path, index, name, settings, entry.get("state_file"))
    if isinstance(settings, Normalize):
        _check_normalize(step, settings)
    elif step.state is not None:
        raise step.refuse(f"has a state file ({str(step.state)[:80]!r}), which such a step does not have")
    if isinstance(settings, Device) and settings.float_dtype not in FLOAT_TYPES:
        raise step.refuse(f"float_dtype is {settings.float_dtype!r}: only float32 is executed; set it to null")
    return step


def _settings(where: str, name: str, kind: type[Settings], config: Any) -> Settings:
    if config is None:
        raise CheckpointError(f"{where} ({name}): config is null, which LeRobot cannot open either; write {{}}")
    try:
        return msgspec.convert(config, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{where} ({name}): {error}") from None


def _check_normalize(step: Step, settings: Normalize) -> None:
    for kind, mode in settings.norm_map.items():
        if kind not in ("STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"):
            raise step.refuse(f"norm_map: {kind[:80]!r} is no type of feature")
        if mode not in NORMALIZATIONS:
            raise step.refuse(f"norm_map: {kind}: {mode[:80]!r} is not one of {', '.join(NORMALIZATIONS)}")
    if not math.isfinite(settings.eps) or settings.eps < 0:
        raise step.refuse(f"eps is {settings.eps!r}, must be finite and not negative")
    if not isinstance(step.state, str):
        raise step.refuse("has no state file, so there are no statistics; it is damaged")
    if not STATE_FILE.fullmatch(step.state):
        raise step.refuse(f"state file {step.state[:80]!r} must be a name inside the directory, ending in .safetensors")
