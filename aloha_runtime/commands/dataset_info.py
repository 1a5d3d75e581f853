"""`aloha dataset info` and `check`: what a dataset holds, and what is wrong with it."""

import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aloha_runtime.act.fit import refuse_untrainable_data
from aloha_runtime.data.check import check as findings
from aloha_runtime.data.finding import Finding
from aloha_runtime.data.progress import progress
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.recording import ACTION
from aloha_runtime.data.summary import summarise
from aloha_runtime.data.units import flat_names, is_of_aloha
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import CONTROL_HZ

SHOWN = 8
"""Flagged episodes that are listed; `aloha dataset view` has them all."""


def info(path: Path, as_json: bool) -> None:
    """Print it."""
    found = summarise(path)
    console = Console(highlight=False)
    if as_json:
        console.print_json(json.dumps(found))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("dataset", found["path"])
    if found["rig"] or found["robot_type"]:
        table.add_row("recorded on", found["rig"] or found["robot_type"])
    length = f"{found['seconds'] / 60:.1f} min at {found['fps']:g} Hz"
    length += f", {found['shortest_s']:.1f} to {found['longest_s']:.1f} s each"
    table.add_row("episodes", f"{found['episodes']}, {found['frames']} frames, {length}")
    for task, count in found["tasks"].items():
        table.add_row("task", f"{task} ({count} episodes)")
    cameras = ", ".join(f"{name} {size}" for name, size in found["cameras"].items())
    table.add_row("cameras", f"{cameras} ({', '.join(found['codecs'])})" if cameras else "none")
    for key, feature in found["features"].items():
        table.add_row("feature", f"{key}  {feature['dtype']} {'x'.join(map(str, feature['shape']))}")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in found["outcomes"].items())
    table.add_row("outcomes", outcomes or "none")
    table.add_row("flagged", f"{len(found['flagged'])} episodes")
    for index, flags in list(found["flagged"].items())[:SHOWN]:
        table.add_row("", f"{index}: {'; '.join(flags)}")
    table.add_row("on disk", f"{found['bytes'] / 1e6:.1f} MB, {found['video_bytes'] / 1e6:.1f} of them video")
    console.print(table)
    if found["open_episode"]:
        console.print(f"An episode was left open: aloha dataset repair {path}")


def check(path: Path, decode: bool) -> bool:
    """Print every finding; True when there is none."""
    console = Console(highlight=False, soft_wrap=True)
    episodes = Dataset(path).info.total_episodes
    with progress("episodes", episodes, console.print) as advance:
        found = findings(path, decode, advance)
    found += [] if found else _not_for_training(path)
    for finding in found:
        console.print(str(finding))
    looked = "every picture" if decode else "without looking at the pictures (--decode does)"
    verdict = f"{len(found)} findings" if found else "all is well"
    console.print(f"{path}: {verdict} in {episodes} episodes, {looked}")
    return not found


def _not_for_training(path: Path) -> Iterator[Finding]:
    """What `aloha train` or `aloha deploy` would refuse in a dataset that is sound."""
    dataset = Dataset(path)
    try:
        refuse_untrainable_data(dataset, tuple(dataset.cameras))
    except DatasetError as error:
        what, _, remedy = str(error).partition(". ")
        yield Finding("training", what, remedy.rstrip(".") or "see docs/act.md for what a policy learns from")
        return
    if is_of_aloha(flat_names(dataset.features[ACTION].names)) and dataset.fps != CONTROL_HZ:
        said = f"a policy would act at {dataset.fps:g} Hz, the rig takes {CONTROL_HZ} actions a second"
        yield Finding("deploying", said, f"`aloha dataset convert {path} NEW_FOLDER --rate {CONTROL_HZ}`")
