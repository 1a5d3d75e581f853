"""The report as one HTML page: template, charts and video in a single file without any outside reference."""

import base64
import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from string import Template

import aloha_runtime
from aloha_runtime import messages
from aloha_runtime.commands import report_plots
from aloha_runtime.commands.figures import Figure
from aloha_runtime.commands.observe import Log
from aloha_runtime.commands.report_plots import Chart

GOOD, BAD = "#059669", "#d97706"
STAGES = {
    "transfer_cube": ("not touched", "right touches", "right lifts", "left touches", "handed over"),
    "insertion": ("not touched", "both touch", "both lifted", "peg at socket", "inserted"),
}
"""Stages 0 to 4 of each task, as `sim/tasks.py` counts them."""
RATE_TOLERANCE = 0.1
"""A topic that falls further below its nominal rate is marked."""


@dataclass(frozen=True)
class Tile:
    """One key figure as it is shown."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


def tiles_of(found: dict[str, Figure]) -> list[Tile]:
    """The key figures; one that was not measured shows a dash."""
    on_time = _number(found["ticks_on_time"], ".1%")
    cpu = _number(found["cpu_percent_total"], ".0f")
    processes = len(named(found, "cpu_percent"))
    return [
        Tile("50 Hz ticks on time", on_time.removesuffix("%"), "%", f"of {found['ticks']} ticks"),
        _quantile_tile("tick lateness", found, "tick_lateness"),
        _quantile_tile("observation to goal", found, "latency"),
        _quantile_tile("frame age at the tick", found, "frame_age"),
        Tile("arms cycle", _number(found["arms_hz"], ".1f"), "Hz", f"{found['arms_skipped']} cycles skipped"),
        Tile(
            "goals outside the limits", _number(found["goals_outside_envelope"], ".0f"), "", "judged on the servo wire"
        ),
        Tile(
            "cycles with a joint held off its target",
            _number(found["arms_held_off"], ".1%").removesuffix("%"),
            "%",
            "by the lead or a position limit, grippers aside",
        ),
        Tile("CPU", cpu, "%", f"of one core, {processes} processes; {os.cpu_count()} cores here"),
    ]


def _quantile_tile(label: str, found: dict[str, Figure], name: str) -> Tile:
    return Tile(
        label, _number(found[f"{name}_p50_ms"], ".1f"), "ms", f"p99 {_number(found[f'{name}_p99_ms'], '.1f')} ms"
    )


def named(found: dict[str, Figure], prefix: str) -> list[str]:
    """Topics or processes that have a figure `prefix.NAME`."""
    return [name.removeprefix(f"{prefix}.") for name in found if name.startswith(f"{prefix}.")]


def page(log: Log, found: dict[str, Figure], headline: str, warnings: Sequence[str], video: Path | None) -> str:
    """The whole page."""
    template = Template((files("aloha_runtime.commands") / "report_template.html").read_text(encoding="utf-8"))
    verdict = "success" if found["success"] else "not solved"
    facts = {name: found[name] for name in ("seed", "policy", "task", "rig")} | {"episode": f"{log.span_s:.1f} s"}
    return template.substitute(
        title=html.escape(f"{verdict}: {found['task']}, seed {found['seed']}"),
        tone=GOOD if found["success"] else BAD,
        verdict=verdict,
        headline=html.escape(headline),
        facts="".join(f"<li>{name} <b>{html.escape(str(value))}</b></li>" for name, value in facts.items()),
        warnings="".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in warnings),
        tiles="".join(map(_tile, tiles_of(found))),
        video=_video(video) if video else "",
        stages=_timed(report_plots.stages_chart(log, STAGES[log.task])) if log.sim else "<p>No simulated world.</p>",
        joints=_timed(report_plots.joints_chart(log)) if log.followers else "<p>No state of the followers arrived.</p>",
        timing="".join(
            f'<div><h3>{title}</h3><p class="soft">{text}</p>{svg}</div>'
            for title, text, svg in report_plots.timing_charts(log)
        ),
        topics="".join(_topic_row(name, log) for name in log.flows),
        processes=_process_rows(log),
        notes=_notes(log),
        footer=f"aloha_runtime {aloha_runtime.__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def _tile(tile: Tile) -> str:
    return (
        f'<div class="tile"><div class="label">{html.escape(tile.label)}</div>'
        f'<div class="value">{html.escape(tile.value)} <small>{tile.unit}</small></div>'
        f'<div class="note">{html.escape(tile.note)}</div></div>'
    )


def _video(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        "<section><h2>Episode</h2>"
        '<p class="soft">Rendered again from the logged states of the simulated world.</p>'
        f'<video controls muted loop autoplay playsinline src="data:video/mp4;base64,{data}"></video></section>'
    )


def _timed(chart: Chart) -> str:
    axes = json.dumps([[round(float(edge), 5) for edge in place] for place in chart.axes])
    return (
        f'<div class="timed" data-axes="{axes}" data-start="{chart.start_s}" data-end="{chart.end_s}">{chart.svg}</div>'
    )


def _topic_row(name: str, log: Log) -> str:
    flow = log.flows[name]
    slow = flow.rate_hz < flow.nominal_hz * (1 - RATE_TOLERANCE)
    cells = (
        f'<td class="n">{flow.nominal_hz:g}</td>',
        f'<td class="n{" bad" if slow else ""}">{flow.rate_hz:.1f}</td>',
        f'<td class="n{" bad" if flow.dropped else ""}">{flow.dropped}</td>',
    )
    return f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>"


def _process_rows(log: Log) -> str:
    most = max((usage.cpu_percent for usage in log.usage.values()), default=0.0) or 1.0
    rows = [
        f'<tr><td>{html.escape(name)}</td><td class="n">{usage.cpu_percent:.1f}</td>'
        f'<td class="bar"><i style="width:{100 * usage.cpu_percent / most:.1f}%"></i></td>'
        f'<td class="n">{usage.rss_mb:.0f}</td></tr>'
        for name, usage in log.usage.items()
    ]
    total, memory = (sum(getattr(usage, key) for usage in log.usage.values()) for key in ("cpu_percent", "rss_mb"))
    rows.append(
        f'<tr><td><b>all</b></td><td class="n"><b>{total:.0f}</b></td><td></td>'
        f'<td class="n"><b>{memory:.0f}</b></td></tr>'
    )
    return "".join(rows)


def _notes(log: Log) -> str:
    """What the processes themselves had to say at the end, such as a priority that the system did not grant."""
    said = []
    for name in log.usage:
        reports = log.of(messages.health_topic(name))
        if reports and reports[-1].message:
            said.append(f"<li><b>{html.escape(name)}</b>: {html.escape(reports[-1].message)}</li>")
    return f'<section><h2>Notes of the processes</h2><ul class="notes">{"".join(said)}</ul></section>' if said else ""


def _number(value: Figure, form: str) -> str:
    return "-" if value is None else format(value, form)
