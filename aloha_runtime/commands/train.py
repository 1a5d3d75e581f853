"""`aloha train`: settings from a YAML file and the command line, then the training of `act/train.py`."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from aloha_runtime.act.train import train as run_training
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.act.training_state import saved_settings
from aloha_runtime.commands.train_options import (
    ALIASES,
    FIXED,
    GROUPS,
    descriptions,
    find_dataset,
    known_options,
    settings_from,
)
from aloha_runtime.errors import ConfigError


def train(words: Sequence[str]) -> None:
    """Train as the words of the command line say."""
    console = Console(soft_wrap=True)
    if {"--help", "-h"} & set(words):
        print_help(console)
        return
    run_training(config_from(words), partial(console.print, markup=False, highlight=False), console)


def config_from(words: Sequence[str]) -> TrainConfig:
    """The run that is asked for: defaults, a resumed run's settings, `--config FILE`, and last the other words."""
    path, words = _without_config(words)
    settings = settings_from(_read(path) if path else {}, words)
    if settings.get("resume") and "output_dir" in settings:
        settings = _merged(settings_from(saved_settings(settings["output_dir"]), []), settings)
        settings.pop("init_from", None)  # where the run started from matters no more
    for name in ("dataset", "output_dir"):
        if name not in settings:
            raise ConfigError(f"--{name.replace('_', '-')} is missing; aloha train --help lists all options")
    return TrainConfig(**{**settings, "dataset": find_dataset(settings["dataset"])})


def _without_config(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file given by `--config FILE` (or LeRobot's `--config_path=FILE`), and the words without it."""
    rest, path = list(words), None
    for index, word in enumerate(words):
        name, given, value = word.partition("=")
        if name.removeprefix("--") not in ("config", "config_path", "config-path"):
            continue
        if not given and index + 1 == len(words):
            raise ConfigError(f"{word}: has no value; write --config FILE")
        path = Path(value if given else words[index + 1])
        rest = [*words[:index], *words[index + (1 if given else 2) :]]
    return path, rest


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says instead; fields of the policy one by one."""
    policy = {**base.get("policy", {}), **over.get("policy", {})}
    return {**base, **over, **({"policy": policy} if policy else {})}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(found).__name__}")
    return found


def print_help(console: Console) -> None:
    """Every option with its default and what it is, and LeRobot's spellings."""
    say = partial(console.print, markup=False, highlight=False)
    say("Usage: aloha train --dataset PATH --output-dir OUT [--config FILE.yaml] [--NAME VALUE ...]\n")
    say("Train ACT on a LeRobot v3 dataset. Settings come from the file, then from the command line.")
    say("Go on with a stopped run: aloha train --resume --output-dir OUT")
    say("Several GPUs: torchrun --nproc-per-node 2 -m aloha_runtime.cli train ...\n")
    texts = descriptions()
    for name, item in known_options().items():
        group = name.rpartition(".")[0]
        kind = _kind(typing.get_type_hints(GROUPS[group] if group else TrainConfig)[item.name])
        say(f"  --{name.replace('_', '-'):44} {kind}, default {_default(item)}")
        if name in texts:
            say(f"      {texts[name]}")
    say("\nLeRobot's spellings; everywhere dashes or underscores, = or a space:")
    for theirs, ours in ALIASES.items():
        say(f"  --{theirs:44} --{ours.replace('_', '-')}")
    for name, value in FIXED.items():
        say(f"  --{name:44} only {value}")


def _kind(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " | ".join(typing.get_args(kind))
    if isinstance(kind, types.UnionType):
        return " | ".join(_kind(part) for part in typing.get_args(kind) if part is not type(None))
    named = {"str": "text", "int": "number", "float": "number", "bool": "true | false", "Path": "path"}
    return named.get(
        kind.__name__, "names,..." if kind is tuple or typing.get_origin(kind) is tuple else "{name: value}"
    )


def _default(item: "dataclasses.Field[Any]") -> str:
    if item.name.endswith("_shapes"):
        return "the dataset's"
    if item.default is not dataclasses.MISSING:
        return str(item.default)
    return "none: required" if item.default_factory is dataclasses.MISSING else str(item.default_factory())
