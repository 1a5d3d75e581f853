"""The options of `aloha train`: every field of `TrainConfig`, `ACTConfig` and `Augmentation`, and LeRobot's spellings.

Written `--policy.chunk-size 50`, `--policy.chunk_size=50`, `policy.chunk_size=50` or `policy.chunk_size 50`; a switch
alone (`--resume`) is true. In YAML the same names, groups as mappings.
"""

import ast
import dataclasses
import difflib
import inspect
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from aloha_runtime.act.augment import Augmentation
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.errors import ConfigError, DatasetError

GROUPS: Mapping[str, type] = {"policy": ACTConfig, "augment": Augmentation}
"""Fields of `TrainConfig` that are settings of their own: `--policy.chunk-size 50`."""

ALIASES: Mapping[str, str] = {
    "dataset_repo_id": "dataset", "dataset.repo_id": "dataset", "dataset.root": "dataset",
    "dataset.use_imagenet_stats": "use_imagenet_stats",
    "num_train_steps": "steps", "offline_steps": "steps",
    "wandb_enable": "wandb", "wandb.enable": "wandb", "wandb.project": "wandb_project",
    "policy.path": "init_from", "policy.pretrained_path": "init_from", "policy_repo_id": "init_from",
    "policy.device": "device",
    "policy.optimizer_lr": "policy.lr", "policy.optimizer_lr_backbone": "policy.lr_backbone",
    "policy.optimizer_weight_decay": "policy.weight_decay",
    "policy.pretrained_backbone_weights": "policy.pretrained_backbone",
    "optimizer.lr": "policy.lr", "optimizer.weight_decay": "policy.weight_decay",
    "optimizer.grad_clip_norm": "grad_clip_norm", "scheduler.num_warmup_steps": "warmup_steps",
}  # fmt: skip
"""LeRobot's spellings, of its documentation and of release 0.6, and ours."""

FIXED: Mapping[str, str] = {
    "policy_name": "act", "policy.type": "act", "policy_type": "act", "optimizer.type": "adamw",
    "policy.push_to_hub": "false", "use_policy_training_preset": "true", "save_checkpoint": "true",
}  # fmt: skip
"""Options of LeRobot that can have one value here; it changes nothing."""


def settings_from(base: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of `TrainConfig`: `base` as read from YAML, overridden by the words of a command line.

    Raises ConfigError naming the option, its value and what it takes; an unknown one with the nearest known.
    """
    merged: dict[str, Any] = {}
    given = [*_flat(base), *_pairs(words)]
    has_root = any(name == "dataset.root" for name, _ in given)  # then the other is a name only, as in LeRobot
    for spelled, value in given:
        if has_root and spelled in ("dataset.repo_id", "dataset_repo_id"):
            continue
        name = ALIASES.get(spelled, spelled)
        if name in FIXED:
            if str(value).lower() != FIXED[name]:
                raise ConfigError(f"--{name} {value}: can only be {FIXED[name]} here")
        else:
            merged[name] = _typed(name, value)
    settings: dict[str, Any] = {}
    for name, value in merged.items():
        group, _, field = name.rpartition(".")
        (settings.setdefault(group, {}) if group else settings)[field] = value
    if "augment" in settings:
        settings["augment"] = Augmentation(**settings["augment"])
    return settings


def known_options() -> dict[str, dataclasses.Field[Any]]:
    """`{"steps": field, "policy.chunk_size": field, ...}` of everything that can be set."""
    options: dict[str, dataclasses.Field[Any]] = {}
    for item in dataclasses.fields(TrainConfig):
        if item.name in GROUPS:
            options |= {f"{item.name}.{inner.name}": inner for inner in dataclasses.fields(GROUPS[item.name])}
        else:
            options[item.name] = item
    return options


def _flat(base: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Groups written as mappings become dotted names."""
    dotted = {name.partition(".")[0] for name in (*known_options(), *ALIASES, *FIXED) if "." in name}
    for name, value in base.items():
        if isinstance(value, Mapping) and name in dotted:
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names (dashes as underscores) and values of a command line."""
    left = list(words)
    while left:
        word = left.pop(0)
        name, given, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not given and _is_switch(name) and not (left and left[0].lower() in ("true", "false")):
            value = "true"
        elif not given and (not left or left[0].startswith("--")):
            check_known(name)
            raise ConfigError(f"{word}: has no value; write {word} VALUE")
        elif not given:
            value = left.pop(0)
        yield name, value


def _is_switch(name: str) -> bool:
    name = ALIASES.get(name, name)
    return name in known_options() and _type(name) in (bool, bool | None)


def descriptions() -> dict[str, str]:
    """What the source says under each field, by option."""
    texts: dict[str, str] = {}
    for group, owner in {"": TrainConfig, **GROUPS}.items():
        body = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, following in pairwise(body.body):
            if not (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)):
                continue
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = f"{group}.{line.target.id}" if group else line.target.id
                texts[name] = " ".join(str(following.value.value).split())
    return texts


def check_known(name: str) -> None:
    """Raise ConfigError for an option that does not exist, with the nearest that do."""
    known = known_options()
    if name in known or name in ALIASES or name in FIXED:
        return
    everything = [*known, *ALIASES, *FIXED]
    near = difflib.get_close_matches(name, everything, n=3, cutoff=0.6)
    near = near or [option for option in everything if option.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = f"; nearest: {', '.join('--' + _dashed(option) for option in near)}" if near else ""
    raise ConfigError(f"unknown option --{_dashed(name)}{hint}; aloha train --help lists all")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _type(name: str) -> Any:
    group, _, field = name.rpartition(".")
    return typing.get_type_hints(GROUPS[group] if group else TrainConfig)[field]


def _typed(name: str, raw: Any) -> Any:
    """`raw`, often a word of the command line, as the type of the field it is for."""
    check_known(name)
    wanted = _type(name)
    choices = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    value = raw
    if isinstance(raw, str):
        plain = {"true": True, "false": False, "none": None, "null": None}.get(raw.lower(), raw)
        fits = (plain is None and type(None) in choices) or (isinstance(plain, bool) and bool in choices)
        value = plain if fits else raw
        if any(typing.get_origin(choice) is tuple for choice in choices) and isinstance(value, str):
            value = [item for item in value.strip("[]").replace(" ", "").split(",") if item]
        elif raw.startswith("{"):
            value = yaml.safe_load(raw)
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"--{_dashed(name)} {raw!r}: {error.errors()[0]['msg']}") from error


def find_dataset(name: Path) -> Path:
    """A dataset's folder: a path, or a name such as `lerobot/aloha_insertion` in LeRobot's own folder of datasets.

    That is $HF_LEROBOT_HOME, or lerobot in $HF_HOME (~/.cache/huggingface). Raises DatasetError; nothing is downloaded.
    """
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "lerobot"
    home = Path(os.environ.get("HF_LEROBOT_HOME", cache)).expanduser()
    for path in (name, home / name):
        if path.is_dir():
            return path
    raise DatasetError(
        f"there is no dataset {name}: neither a folder of that path nor {home / name}; give --dataset a folder, or "
        "copy the dataset there (huggingface-cli download --repo-type dataset)"
    )
