"""What is wrong with a rig file, in words: file, line, key, value and what to do."""

import reprlib
from pathlib import Path
from typing import Any

import yaml

from aloha_runtime.errors import ConfigError

MOVED = {
    f"{role}_gripper": f"is measured on each arm now: move it to arms.{role}_left.gripper and arms.{role}_right.gripper"
    ", or measure with `aloha setup --only grippers`"
    for role in ("leader", "follower")
}
"""Keys of older rig files, and where they went."""


def explain(path: Path, node: yaml.Node | None, item: Any) -> str:
    """One validation error as `file:line: key: what is wrong`."""
    reason = item["msg"].removeprefix("Value error, ")
    keys = tuple(str(part) for part in item["loc"] if part != "[key]")
    if not keys:  # a rule about the whole rig
        return f"{path}:{line_of(node, tuple(reason.split()[0].rstrip(':').split('.')))}: {reason}"
    line, name = line_of(node, keys), ".".join(keys)
    if item["type"] == "extra_forbidden" and name in MOVED:
        return f"{path}:{line}: {name} {MOVED[name]}"
    if item["type"] == "extra_forbidden":
        return f"{path}:{line}: unknown key {name!r}; remove it or correct its spelling (see `aloha config show`)"
    if item["type"] == "missing":
        return f"{path}:{line}: missing key {name!r}; add it"
    shown = f" (value {reprlib.repr(item['input'])})" if not isinstance(item["input"], dict) else ""
    return f"{path}:{line}: {name}: {reason}{shown}"


def line_of(node: yaml.Node | None, keys: tuple[str, ...]) -> int:
    """Line (from 1) of the deepest part of a key path that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            match = next(((k, v) for k, v in node.value if k.value == key), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def refuse_duplicates(path: Path, node: yaml.Node | None, looked_at: set[int]) -> None:
    """YAML readers keep the last of two equal keys in silence; a rig file must not. A part that others refer to (`&`,
    `*`) is looked at once, so that one inside itself comes to an end."""
    if id(node) in looked_at:
        return
    looked_at.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(f"{path}:{line}: key {key.value!r} is given twice (first on line {seen[key.value]})")
            seen[key.value] = line
            refuse_duplicates(path, value, looked_at)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            refuse_duplicates(path, value, looked_at)
