"""`aloha status`: one live table of a running system, known by its run directory alone."""

import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.commands.watch import WINDOW_NS, System
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import Health, Mode
from aloha_runtime.realtime import NS_PER_S, WallClock
from aloha_runtime.robot import JOINTS, ROLES, SIDES
from aloha_runtime.run_directory import RIG_FILE, default_run_dir

FIRST_S = 1.0
"""Long enough for a health report of every process."""
POLL_S = 0.1
REFRESH_S = 0.5
"""Twice a second is as fast as a person reads."""
WARM_C, HOT_C = 55.0, 70.0
"""Servos switch off at 80 degrees (Temperature_Limit of the X series)."""
MODE_COLOUR = {Mode.FAULT: "red", Mode.HOLD: "yellow", Mode.IDLE: "white"}


def status(run_dir: Path | None, once: bool) -> None:
    """Show the table until Ctrl-C or the end of the rig, or once. Raises TransportError when nothing runs."""
    run_dir = run_dir or default_run_dir()
    with Bus(run_dir, WallClock()) as bus:
        rig_file = run_dir / RIG_FILE
        nothing = TransportError(f"nothing runs in {run_dir}: start the rig with `aloha up`")
        if not rig_file.is_file():
            raise nothing
        system = System(bus, config.load(str(rig_file)))
        _listen(system, FIRST_S)
        if not system.heard:
            raise nothing
        picture(system)  # CPU is counted from the first look on
        _listen(system, WINDOW_NS / NS_PER_S)
        console = Console(highlight=False)
        if once:
            console.print(picture(system))
            return
        with suppress(KeyboardInterrupt), Live(picture(system), console=console, auto_refresh=False) as live:
            while rig_file.exists():
                _listen(system, REFRESH_S)
                live.update(picture(system), refresh=True)


def _listen(system: System, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        system.poll(time.monotonic_ns())
        time.sleep(POLL_S)
    system.poll(time.monotonic_ns())


def picture(system: System) -> RenderableType:
    """The whole table of this moment."""
    now_ns = time.monotonic_ns()
    parts: list[RenderableType] = [_mode_line(system, now_ns), "", _process_table(system), ""]
    parts.append(_topic_table(system, now_ns))
    reports = {name: report for name, report, _ in system.reports() if report is not None}
    arms = _arms_table(reports)
    if (stop := _stop_line(system, reports)) is not None:
        parts[1:1] = [stop]
    return Group(*parts, "", arms) if arms.row_count else Group(*parts)


def _stop_line(system: System, reports: dict[str, Health]) -> Text | None:
    """The physical stop by the supervisor's word; None where the rig has none."""
    if system.rig.stop_input is None:
        return None
    report = reports.get("supervisor")
    ready = report is not None and report.figures.get("stop_input_ready")
    state = ("ready", "green") if ready else ("not ready, arming is refused: see supervisor below", "bold red")
    return Text.assemble(("stop input ", "dim"), system.rig.stop_input.name, "   ", state)


def _mode_line(system: System, now_ns: int) -> Text:
    heartbeat = system.mode.reader.latest()
    age_ms = system.mode.age_ms(now_ns)
    if heartbeat is None or age_ms is None:
        return Text("mode unknown: no supervisor is heard", style="bold red")
    line = Text.assemble(("mode ", "dim"), (heartbeat.mode.upper(), f"bold {MODE_COLOUR.get(heartbeat.mode, 'green')}"))
    line.append(f"   {heartbeat.cause}" if heartbeat.cause else "")
    line.append(f"   rig {system.rig.name}, {system.run_dir}", style="dim")
    if age_ms > messages.MODE.max_age_ms:
        line.append(f"   the supervisor is silent for {age_ms / 1000:.1f} s", style="bold red")
    return line


def _process_table(system: System) -> Table:
    table = _table("process", "state", "heard ms ago", "CPU %", "MB", text=("state",), last="message")
    for name, report, age_ms in system.reports():
        silent = age_ms is None or age_ms > messages.health_topic(name).max_age_ms
        state = Text("ok", style="green")
        if silent:
            state = Text("silent" if system.alive(name) else "dead", style="bold red")
        elif report is not None and not report.ok:
            state = Text("trouble", style="bold yellow")
        used = system.usage(report.pid) if report is not None else None
        cpu, memory = (f"{used[0]:.0f}", f"{used[1]:.0f}") if used else ("", "")
        table.add_row(name, state, _figure(age_ms, 0), cpu, memory, _said(report))
    return table


def _said(report: Health | None) -> str:
    """The process's own message, or else the real-time priority that it was granted."""
    priority = report.figures.get("realtime_priority", 0) if report is not None else 0
    granted = f"SCHED_FIFO {priority:.0f}" if priority else ""
    return (report.message if report is not None else "") or granted


def _topic_table(system: System, now_ns: int) -> Table:
    table = _table("topic", "nominal Hz", "measured Hz", "age ms", "jitter ms", "dropped")
    for watch in system.topics:
        if not watch.reader.received:
            continue
        age_ms, rate_hz, dropped = watch.age_ms(now_ns), watch.rate_hz, watch.reader.dropped
        table.add_row(
            watch.topic.name,
            f"{watch.topic.rate_hz:g}",
            Text(f"{rate_hz:.1f}", style="red" if rate_hz < 0.95 * watch.topic.rate_hz else ""),
            Text(_figure(age_ms, 1), style="red" if age_ms is None or age_ms > watch.topic.max_age_ms + 500 else ""),
            _figure(watch.jitter_ms, 2),
            Text(str(dropped), style="red" if dropped else ""),
        )
    return table


def _arms_table(reports: dict[str, Health]) -> Table:
    """Temperature of every joint, and what each arm's driver has counted; an arm that says nothing has no column."""
    arms = [(role, side) for role in ROLES for side in SIDES]
    figures = {role: reports[f"arms@{role}s"].figures if f"arms@{role}s" in reports else {} for role in ROLES}
    known = [
        (role, side) for role, side in arms if any(key.startswith(f"temperature_{side}_") for key in figures[role])
    ]
    table = _table("servos, deg C", *(f"{role} {side}" for role, side in known))
    if not known:
        return table
    for joint in JOINTS:
        table.add_row(
            joint, *(_temperature(figures[role].get(f"temperature_{side}_{joint}_c")) for role, side in known)
        )
    counts = [
        "\n".join(
            f"{key.removeprefix(f'{side}_')} {value:.0f}"
            for key, value in figures[role].items()
            if key.startswith(f"{side}_")
        )
        for role, side in known
    ]
    table.add_row("counted", *counts)
    return table


def _temperature(value: float | None) -> Text:
    if value is None:
        return Text("")
    return Text(f"{value:.0f}", style="bold red" if value >= HOT_C else "yellow" if value >= WARM_C else "")


def _table(first: str, *headings: str, text: tuple[str, ...] = (), last: str = "") -> Table:
    table = Table(first, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in text else "right", no_wrap=True)
    if last:
        table.add_column(last)
    return table


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
