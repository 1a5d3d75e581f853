"""The report of an episode: report.html (one self-contained file), report.json, and one screen of text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aloha_runtime.commands import report_page
from aloha_runtime.commands.figures import Figure, figures
from aloha_runtime.commands.observe import Log
from aloha_runtime.commands.report_video import render_video

ENVIRONMENT_STATE = "observation.environment_state"
OUTCOMES = {
    "transfer_cube": ("The right arm handed the cube to the left one", "The cube was not handed over"),
    "insertion": ("The peg is in the socket", "The peg is not in the socket"),
}
"""What success and the lack of it mean in each task."""


@dataclass(frozen=True)
class Written:
    """Where a report lies, and what it says."""

    html: Path
    json: Path
    figures: dict[str, Figure]
    headline: str


def write(
    log: Log,
    out: Path,
    policy_inputs: Sequence[str] = (),
    progress: Callable[[float], None] = lambda share: None,
    too_busy: str = "",
) -> Written:
    """Write report.html, report.json and episode.mp4 into `out` (made when absent); `progress` hears the video's share.

    `policy_inputs`: the features that the policy reads; the headline says when these are the objects' poses.
    `too_busy`: why this computer was too busy for real time; a reader must not take virtual time for it.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = figures(log) | {"policy_inputs": ", ".join(policy_inputs), "too_busy_for_real_time": too_busy}
    found["headline"] = headline = headline_of(found)
    video = out / "episode.mp4"
    if log.sim:
        render_video(log, video, progress)
    page = report_page.page(log, found, headline, warnings_of(found), video if log.sim else None)
    html, json_file = out / "report.html", out / "report.json"
    html.write_text(page, encoding="utf-8")
    json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Written(html, json_file, found, headline)


def headline_of(found: dict[str, Figure]) -> str:
    """One sentence: what became of the task, and whether the policy was told what it should have seen."""
    solved, failed = OUTCOMES.get(str(found["task"]), ("Task solved", "Task not solved"))
    told = ", under a policy that reads the objects' poses from the simulator," * (
        ENVIRONMENT_STATE in str(found["policy_inputs"])
    )
    if found["success"]:
        return f"{solved}{told} in {found['time_to_success_s']:.1f} s"
    return f"{failed}{told} within {found['seconds']:.0f} s (stage {found['stage']} of {found['stages']})"


def warnings_of(found: dict[str, Figure]) -> list[str]:
    """What a reader must not overlook."""
    warnings = [f"The arms stopped by themselves: {found['hold_cause']}"] if found["hold_cause"] else []
    if found["clock"] == "virtual":
        busy = found.get("too_busy_for_real_time")
        why = f", because this computer was too busy for real time ({busy})" if busy else ""
        warnings.append(
            f"This episode ran in virtual time{why}. In virtual time nobody is late: its ticks, latencies and rates say"
            " nothing about this computer; motion, limits and outcome are those of the same processes."
        )
    return warnings


def print_summary(written: Written, console: Console) -> None:
    """The report in one screen of text."""
    found = written.figures
    tone = "green" if found["success"] else "red"
    verdict = "SUCCESS" if found["success"] else "NOT SOLVED"
    facts = f"seed {found['seed']}   policy {found['policy']}   task {found['task']}   rig {found['rig']}"
    lines: list[RenderableType] = [Text(written.headline, style="bold"), Text(facts)]
    lines += [Text(warning, style="yellow") for warning in warnings_of(found)]
    console.print(Panel(Group(*lines), title=f"[bold {tone}]{verdict}[/]", border_style=tone, title_align="left"))
    console.print(Columns([_figures_table(found), _process_table(found)], padding=(0, 4)))
    console.print(f"report: [bold]{written.html}[/]   figures: {written.json}", soft_wrap=True)


def _figures_table(found: dict[str, Figure]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for tile in report_page.tiles_of(found):
        table.add_row(tile.label, Text(f"{tile.value} {tile.unit}", style="bold"), Text(tile.note, style="dim"))
    return table


def _process_table(found: dict[str, Figure]) -> Table:
    table = Table("process", box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("CPU %", justify="right")
    table.add_column("MB", justify="right")
    for name in report_page.named(found, "cpu_percent"):
        table.add_row(name, f"{found[f'cpu_percent.{name}']:.1f}", f"{found[f'rss_mb.{name}']:.0f}")
    return table
