"""`aloha log list`, `show`, `save`: which logs there are, what happened in one, and the last minutes on request."""

from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aloha_runtime import messages
from aloha_runtime.bus import FLIGHT, Bus
from aloha_runtime.damaged import reads
from aloha_runtime.errors import LogError
from aloha_runtime.flight_log import shelf, story
from aloha_runtime.flight_log.channels import LEVELS
from aloha_runtime.flight_log.reader import FlightLog, find
from aloha_runtime.flight_log.triggers import EXPECTED
from aloha_runtime.messages import MS, ArmsState, Request
from aloha_runtime.realtime import NS_PER_S, WallClock
from aloha_runtime.robot import DOF, NAMES
from aloha_runtime.run_directory import default_log_dir, default_run_dir

SAVE_TIMEOUT_MS = 30_000
"""A slow disk may take its time."""
BEFORE_S, AFTER_S = 10.0, 10.0
"""What `show` and `plot` look at around the event, unless they are told."""
PIPE_WIDTH = 160
COLOUR = {LEVELS["warning"]: "yellow", LEVELS["error"]: "bold red"}
JUST_BEFORE_NS = 20 * MS
"""The supervisor hears of what happened up to a tick later; the joints are shown as they were before."""


def _console() -> Console:
    """Wide enough for a table where nobody looks at it directly (a pipe, a file)."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=PIPE_WIDTH)


def span(log: FlightLog, seconds: float | None, everything: bool) -> tuple[int, int]:
    """First and last instant (wall, ns) to look at: `seconds` before the event and after it."""
    about = log.about
    if everything:
        return about.start_ns, about.end_ns
    before, after = (BEFORE_S, AFTER_S) if seconds is None else (seconds, seconds)
    return about.event_ns - int(before * NS_PER_S), about.event_ns + int(after * NS_PER_S)


def listing(folder: Path | None) -> None:
    """Every log with its date, cause, mode, length and size; what cannot be read is said, too."""
    say = _console().print
    folder = folder or default_log_dir()
    there = shelf.logs(folder)
    if not there:
        say(f"no logs in {folder}", markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("log", "kind", "mode", "length", "size", "cause"):
        table.add_column(
            heading, justify="right" if heading in ("length", "size") else "left", no_wrap=heading != "cause"
        )
    for path in there:
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        try:
            with FlightLog(path) as log:
                about = log.about
        except LogError as error:
            table.add_row(path.name, Text("unreadable", style="bold red"), "", "", size, str(error))
            continue
        kind = Text(about.kind, style="" if about.kind in EXPECTED else "bold red")
        table.add_row(shelf.date_of(path), kind, about.mode, f"{about.span_s:.0f} s", size, Text(about.cause))
    say(table)
    say(f"in {folder}; `aloha log show last` tells what happened, `aloha log plot last` draws it", markup=False)


@reads(LogError, "See `aloha log list`.")
def show(name: str, folder: Path | None, seconds: float | None, everything: bool) -> None:
    """The timeline of a log, and the joints just before the event."""
    say = _console().print
    with FlightLog(find(folder or default_log_dir(), name)) as log:
        about = log.about
        start_ns, end_ns = span(log, seconds, everything)
        say(f"{log.path}", markup=False)
        when = f"{datetime.fromtimestamp(about.event_ns / NS_PER_S):%Y-%m-%d %H:%M:%S}"
        say(
            Text.assemble(
                (about.kind.upper(), "bold red"), f" {when}, rig {about.rig}, in {about.mode or '?'}: {about.cause}"
            )
        )
        if about.also:
            say(f"also: {about.also}", markup=False)
        if about.continues:
            say(f"it begins where {about.continues} ended", markup=False)
        if (likely := story.likely_cause(log, about.event_ns)) is not None:
            before_s = (about.event_ns - likely.stamp_ns) / NS_PER_S
            say(Text(f"likely cause: {likely.text} ({before_s:.2f} s before)", style="bold yellow"))
        if about.lost:
            say(f"{about.lost} messages never reached the recorder since its start", markup=False)
        if abs(about.wall_step_s) > 1:
            say(f"the clock of the machine was set by {about.wall_step_s:+.1f} s while it was recorded", markup=False)
        say("")
        for moment in story.timeline(log, start_ns, end_ns):
            after_s = (moment.stamp_ns - about.event_ns) / NS_PER_S
            style = COLOUR.get(moment.level, "")
            say(Text.assemble((f"{after_s:+9.3f} s  ", "dim"), (f"{moment.who:18} ", "cyan"), (moment.text, style)))
        for topic in (messages.FOLLOWERS, messages.LEADERS):
            state = story.Track(log, topic, about.event_ns - 2 * NS_PER_S, end_ns).at(about.event_ns - JUST_BEFORE_NS)
            if state is not None:
                say("")
                say(_joints(topic.name, state))
        _say_action(log, say)


def _joints(name: str, state: ArmsState) -> Table:
    """Every joint as it was: where it stood, where it was told to be, and what it took."""
    table = Table(title=f"{name} just before", title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("joint", "position", "goal", "target", "lead", "velocity", "effort mA", ""):
        table.add_column(heading, justify="left" if heading in ("joint", "") else "right")
    for index, joint in enumerate(NAMES):
        position = state.position[index]
        goal = state.goal[index] if state.goal is not None else np.nan
        target = state.target[index] if state.target is not None else np.nan
        limited = "held off its target" if state.held_off >> index & 1 else ""
        numbers = [position, goal, target, goal - position, state.velocity[index]]
        table.add_row(joint, *map(_number, numbers), f"{state.effort_ma[index]:.0f}", limited)
    return table


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.3f}"


def _say_action(log: FlightLog, say: object) -> None:
    found = story.last_action(log, log.about.mode, log.about.event_ns)
    if found is None or not callable(say):
        return
    stamp_ns, action = found
    age_ms = (log.about.event_ns - stamp_ns) / MS
    broken = [NAMES[index] for index, value in enumerate(action.position[:DOF]) if not np.isfinite(value)]
    why = f"; not a number: {', '.join(broken)}" if broken else ""
    say(f"last action of {log.about.mode}: tick {action.tick}, {age_ms:.0f} ms before{why}", markup=False)


def save(cause: str, run_dir: Path | None) -> None:
    """Have the running recorder write its last minutes now; LogError when it could not."""
    with Bus(run_dir or default_run_dir(), WallClock()) as bus:
        reply = bus.client(FLIGHT).request(
            Request(verb="save", argument=cause, sender="operator"), timeout_ms=SAVE_TIMEOUT_MS
        )
    if not reply.ok:
        raise LogError(reply.text)
    _console().print(reply.text, markup=False)
