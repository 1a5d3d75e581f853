"""`aloha bench jitter`: how late the arms' and the policy's loops wake, with and without real-time priority, on an idle
machine and on one that is busy.

The rig is that of `aloha bench faults`: real supervisor and arms processes, the policy's own loop, two emulated arms
that never wait for what else the machine does. Beside each loop stands a bare one of the same period and priority,
which does nothing but wake: what the machine itself gives.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from aloha_runtime.commands.faults.rig import FaultRig
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import Health
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock, prepare
from aloha_runtime.robot import TICK_NS

PRIORITY = 50
"""That of a rig's file by default (`realtime.priority`)."""
PERIODS_NS = {"arms": NS_PER_S // 200, "policy": TICK_NS}
HOG = "while True: pass"
FIGURES = ("lateness_p50_ms", "lateness_p99_ms", "lateness_worst_ms", "skipped")


@dataclass(frozen=True)
class Condition:
    """`priority`: SCHED_FIFO of the loops, None for ordinary processes; `hogs`: busy processes beside them."""

    priority: int | None
    hogs: int


@dataclass(frozen=True)
class Jitter:
    """One loop in one condition: ms after the beat at which it was to wake, beats lost, and those of a bare loop."""

    loop: str
    condition: Condition
    beats: float
    figures: dict[str, float]
    bare: dict[str, float]


def run(seconds: float, hogs: int, json_path: Path | None = None) -> list[Jitter]:
    """Measure each condition for `seconds`; print the table and write it as JSON. Raises AlohaError where a priority
    was asked for and not granted: such a figure would be taken for another."""
    load = os.getloadavg()[0]
    say = Console(stderr=True, highlight=False).print
    found = []
    for condition in (Condition(priority, count) for count in (0, hogs) for priority in (PRIORITY, None)):
        say(f"{_priority(condition)}, {condition.hogs} busy processes: {seconds:.0f} s, twice")
        with busy(condition.hogs):
            bare = {loop: _bare(condition, period_ns, seconds) for loop, period_ns in PERIODS_NS.items()}
            found += [_jitter(loop, condition, figures, bare[loop]) for loop, figures in _loops(condition, seconds)]
    show(found, load)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"load": load, "cores": os.cpu_count(), "seconds": seconds, "rows": [asdict(row) for row in found]}
        json_path.write_text(json.dumps(rows, indent=2) + "\n")
    return found


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes of ordinary priority that never wait."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _loops(condition: Condition, seconds: float) -> Iterator[tuple[str, dict[str, float]]]:
    """The health figures of both loops after `seconds` of motion; they count from the loops' own beginning."""
    with FaultRig(priority=condition.priority) as rig:
        rig.move(Random(0))  # noqa: S311 (instants, no secrets)
        rig.pause(seconds)
        for loop, process in (("arms", "arms@followers"), ("policy", "policy")):
            subscriber = rig.health if loop == "policy" else rig.stack.health[process]
            report: Health | None = subscriber.latest()
            if report is None:
                raise AlohaError(f"{process} has said nothing of itself within {seconds:.0f} s: measure for longer")
            refuse_ungranted(condition, process, report.figures.get("realtime_priority", 0), report.message)
            yield loop, report.figures


def refuse_ungranted(condition: Condition, who: str, granted: float, message: str) -> None:
    """AlohaError when a loop did not run at the priority that was asked for."""
    if (condition.priority or 0) != granted:
        raise AlohaError(f"{who} runs at priority {granted:.0f}, not {condition.priority or 0}: {message}")


def _jitter(loop: str, condition: Condition, figures: dict[str, float], bare: dict[str, float]) -> Jitter:
    return Jitter(loop, condition, figures["beats"], {name: figures[name] for name in FIGURES}, bare)


def _bare(condition: Condition, period_ns: int, seconds: float) -> dict[str, float]:
    """Figures of a loop that does nothing else, in a process of its own."""
    context = get_context("spawn")
    ours, its = context.Pipe(duplex=False)
    child = context.Process(target=_beat, args=(its, condition, period_ns, seconds), daemon=True)
    child.start()
    its.close()
    try:
        found: Any = ours.recv()
    except EOFError:
        raise AlohaError("the bare loop ended without a word") from None
    finally:
        child.join()
    granted, problems, figures = found
    refuse_ungranted(condition, "the bare loop", granted, problems)
    return {name: figures[name] for name in FIGURES}


def _beat(answer: Connection, condition: Condition, period_ns: int, seconds: float) -> None:
    """The child."""
    report = prepare(condition.priority, None, lock_memory=False)
    pacer = Pacer(WallClock(), period_ns)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pacer.wait()
    answer.send((report.priority or 0, "; ".join(report.problems), pacer.figures()))


def show(found: Sequence[Jitter], load: float) -> None:
    """One line for each loop and condition, the bare loop's figures after the slash."""
    table = Table(title=f"ms after the beat, ours / a bare loop; {os.cpu_count()} cores, load {load:.1f} at the start")
    for heading in ("loop", "priority", "busy processes"):
        table.add_column(heading)
    for heading in ("p50", "p99", "worst", "beats lost"):
        table.add_column(heading, justify="right")
    for row in found:
        cells = [f"{row.figures[name]:.2f} / {row.bare[name]:.2f}" for name in FIGURES[:3]]
        lost = f"{row.figures['skipped']:.0f} of {row.beats + row.figures['skipped']:.0f} / {row.bare['skipped']:.0f}"
        hz = NS_PER_S // PERIODS_NS[row.loop]
        table.add_row(f"{row.loop}, {hz} Hz", _priority(row.condition), str(row.condition.hogs), *cells, lost)
    Console(width=max(110, Console().width)).print(table)


def _priority(condition: Condition) -> str:
    return f"SCHED_FIFO {condition.priority}" if condition.priority else "ordinary"
