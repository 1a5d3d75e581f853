"""`aloha train`: every field of the training and of the policy from the command line or a YAML file."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from aloha_runtime.act.augment import Augmentation
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.train import train as run_training
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.errors import ConfigError

GROUPS: Mapping[str, type] = {"policy": ACTConfig, "augment": Augmentation}
"""Groups of options that belong to a class of their own: `--policy.chunk-size 50`."""


def train(dataset: Path, output_dir: Path, config: Path | None, overrides: Sequence[str]) -> None:
    """Train with the settings of `config` (YAML), replaced by `--name value` pairs; prints where the policy lies."""
    console = Console()
    settings = settings_from(_read(config) if config else {}, overrides)
    best = run_training(TrainConfig(dataset=dataset, output_dir=output_dir, **settings), report=console.print)
    console.print(f"best policy: {best}")


def settings_from(base: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of `TrainConfig`: `base` as read from YAML, overridden by `["--policy.kl-weight", "5", ...]`.

    Raises ConfigError naming the option, its value and what it takes.
    """
    merged: dict[str, Any] = {key: dict(value) if key in GROUPS else value for key, value in base.items()}
    for name, value in _pairs(overrides):
        group, _, field = name.rpartition(".")
        target = merged.setdefault(group, {}) if group else merged
        target[field] = value
    settings: dict[str, Any] = {}
    for name, value in merged.items():
        if name in GROUPS:
            settings[name] = {field: _typed(GROUPS[name], field, raw, f"{name}.") for field, raw in value.items()}
        else:
            settings[name] = _typed(TrainConfig, name, value, "")
    if "augment" in settings:
        settings["augment"] = Augmentation(**settings["augment"])
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(found).__name__}")
    return found


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """`--name value` and `--name=value`, dashes in names as underscores; a name alone is `true`."""
    pairs: list[tuple[str, str]] = []
    words = list(overrides)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"unexpected {word!r}: options look like --steps 1000 or --policy.chunk-size 50")
        name, given, value = word[2:].partition("=")
        if not given:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        pairs.append((name.replace("-", "_"), value))
    return pairs


def _typed(owner: type, field: str, raw: Any, prefix: str) -> Any:
    """`raw` as the type that the owner's field has."""
    types = typing.get_type_hints(owner)
    names = [item.name for item in dataclasses.fields(owner) if item.name not in ("dataset", "output_dir")]
    if field not in names:
        known = ", ".join(prefix + name for name in names)
        raise ConfigError(f"unknown option --{prefix}{field}; known are {known}")
    try:
        return TypeAdapter(types[field]).validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"--{prefix}{field} {raw!r}: {error.errors()[0]['msg']}") from error
