"""A long recording session on the simulated rig, in virtual time: memory and descriptors of every process as episodes
go by. What grows with every episode ends a session some day."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from aloha_runtime import config
from aloha_runtime.commands import record as recording
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.cues import Cues
from aloha_runtime.commands.operate import with_task
from aloha_runtime.commands.orders import Orders
from aloha_runtime.commands.record import RecordingSession, Wishes
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.take import Phase
from aloha_runtime.data import recorded
from aloha_runtime.robot import CONTROL_HZ

COMMAND = "aloha record"
WARM = 5
"""Episodes after which every buffer has been filled once and every module is loaded."""
SHOWN = (5, 50, 100, 150)
GOAL_MB = 0.1
"""Growth an episode that is taken for noise of the allocator: 15 MB in a session of 150."""
GOAL_DESCRIPTORS = 0.01
"""One descriptor in a hundred episodes."""
Look = dict[str, tuple[float, int]]
"""Resident memory (MB) and descriptors, by process."""


def run(episodes: int, seconds: float | None) -> list[Row]:
    """Record `episodes` scripted demonstrations, or only the first `seconds` of each; the growth of each process, per
    episode after the first `WARM`."""
    looks = record(episodes, seconds)
    show(looks)
    return rows(looks)


def record(episodes: int, seconds: float | None) -> list[Look]:
    """What every process used when the episodes began, one by one, and at the end."""
    rig = with_task(config.load("sim"), None, None, clock="virtual")
    rig = rig.model_copy(update={"recording": rig.recording.model_copy(update={"cue": "off"})})
    looks: list[Look] = []
    with tempfile.TemporaryDirectory(prefix="aloha-bench-") as folder:
        wishes = Wishes(Path(folder) / "dataset", "a long session", episodes, scripted=True)
        recorded.create(wishes.dataset, rig)
        arguments = ("--dataset", str(wishes.dataset), "--task", wishes.task)
        stack = Stack(rig, recording.job_of(wishes), Path(folder) / "run", say=lambda text: None, recording=arguments)
        with stack, Cues("off", stack.say) as cues, Orders(rig.recording, stack.say) as orders:
            session = _Watched(stack, wishes, cues, orders, seconds, lambda: looks.append(look(stack)))
            with session:
                session.run()
            looks.append(look(stack))
    return looks


class _Watched(RecordingSession):
    """A session that is looked at whenever an episode begins, and whose episodes may be short."""

    def __init__(
        self,
        stack: Stack,
        wishes: Wishes,
        cues: Cues,
        orders: Orders,
        seconds: float | None,
        look: Callable[[], None],
    ) -> None:
        super().__init__(stack, wishes, cues, orders)
        self._longest = None if seconds is None else seconds * CONTROL_HZ
        self._look = look

    def _one(self) -> None:
        self._look()
        super()._one()

    def _obey(self) -> None:
        super()._obey()
        state = self._state()
        if self._longest is not None and state.phase == Phase.TAKING and state.frames >= self._longest:
            self._request("success")


def look(stack: Stack) -> Look:
    """Memory and descriptors now, of every process of the stack and of this one, which is the command."""
    pids = {COMMAND: os.getpid(), **{process.name: stack.pid(process.name) for process in stack.table}}
    found = {name: psutil.Process(pid) for name, pid in pids.items()}
    return {name: (process.memory_info().rss / 1e6, process.num_fds()) for name, process in found.items()}


def growth(looks: Sequence[Look], name: str) -> tuple[float, float]:
    """MB and descriptors an episode: the slope of a line through all looks after the first `WARM`."""
    series: Any = np.array([found[name] for found in looks[WARM:]], dtype=np.float64)
    if len(series) < 2:
        return 0.0, 0.0
    memory, descriptors = np.polyfit(np.arange(len(series)), series, 1)[0]
    return float(memory), float(descriptors)


def rows(looks: Sequence[Look]) -> list[Row]:
    """A row a process and quantity."""
    found = []
    for name in looks[0]:
        memory, descriptors = growth(looks, name)
        found.append(Row(f"{name}, memory", memory, "MB/episode", goal=GOAL_MB, met=memory <= GOAL_MB))
        met = descriptors <= GOAL_DESCRIPTORS
        found.append(Row(f"{name}, descriptors", descriptors, "per episode", goal=GOAL_DESCRIPTORS, met=met))
    return found


def show(looks: Sequence[Look]) -> None:
    """Memory and descriptors of each process after some episodes, and the growth an episode."""
    shown = [count for count in SHOWN if count < len(looks)]
    if len(looks) - 1 not in shown:
        shown.append(len(looks) - 1)
    table = Table(title=f"{len(looks) - 1} episodes: MB, descriptors after episode", title_justify="left")
    table.add_column("process")
    for count in shown:
        table.add_column(str(count), justify="right")
    table.add_column("growth an episode", justify="right")
    for name in looks[0]:
        memory, descriptors = growth(looks, name)
        cells = [f"{looks[count][name][0]:.1f}, {looks[count][name][1]}" for count in shown]
        table.add_row(name, *cells, f"{1000 * memory:.0f} kB, {descriptors:.3f}")
    Console().print(table)
