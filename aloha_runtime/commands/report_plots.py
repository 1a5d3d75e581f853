"""The report's charts, as inline SVG in the page's own fonts and colours.

Each `Chart` says where its time axes lie (shares of the picture), so that the page can move a cursor over them while
the video plays.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from aloha_runtime.commands import figures
from aloha_runtime.commands.figures import FLICKER_NS, Milliseconds
from aloha_runtime.commands.observe import Log
from aloha_runtime.messages import Mode
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import DOF, IS_GRIPPER, JOINTS, JOINTS_PER_ARM, SIDES

INK, SOFT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, ORANGE, RED, GREEN = "#2563eb", "#f59e0b", "#dc2626", "#059669"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "aloha",  # the same log gives the same bytes
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
}
POINTS = 400
"""Points of a line: more than the pixels that a panel is wide."""
PANELS_PER_ROW = 4


@dataclass(frozen=True)
class Chart:
    """`svg`: the markup. `axes`: (left, right, top, bottom) of each time axis as shares of the picture; `start_s` and
    `end_s`: what they span."""

    svg: str
    axes: list[tuple[float, float, float, float]] = field(default_factory=list)
    start_s: float = 0.0
    end_s: float = 0.0


def joints_chart(log: Log) -> Chart:
    """Fourteen panels: the commanded target and the measured position of each joint, and where it was held off."""
    states = [state for state in log.followers if state.valid]
    starts = np.arange(0, len(states), max(1, len(states) // POINTS))
    shown = [states[start] for start in starts]
    time_s = _time_s(log, [state.stamp_ns for state in shown])
    position = _vectors([state.position for state in shown])
    target = _vectors([state.target for state in shown])
    bits = np.array([state.held_off for state in states], dtype=np.int64)
    held_off = np.bitwise_or.reduceat(bits, starts)[:, None] >> np.arange(DOF) & 1 > 0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 9.2), layout="constrained")
        grid = figure.subplots(2 * len(SIDES), PANELS_PER_ROW, sharex=True)
        panels: list[Axes] = []
        for side, rows in zip(SIDES, np.split(grid, len(SIDES)), strict=True):
            spare = rows.ravel()[JOINTS_PER_ARM]
            for joint, panel in zip(JOINTS, rows.ravel(), strict=False):
                index = len(panels)
                panel.plot(time_s, target[:, index], color=ORANGE, linewidth=1.4)
                panel.plot(time_s, position[:, index], color=BLUE, linewidth=1.2)
                mark_limits(panel, time_s, held_off[:, index])
                _joint_axis(panel, f"{side} {joint.replace('_', ' ')}", index)
                panels.append(panel)
            _legend(spare)
        return _chart(figure, panels, log)


def stages_chart(log: Log, names: Sequence[str]) -> Chart:
    """The task's stage over time; interruptions shorter than a flicker of the contacts are bridged."""
    stamps = np.array([state.stamp_ns for state in log.sim])
    stages = np.array([state.stage for state in log.sim])
    began = np.searchsorted(stamps, stamps - FLICKER_NS)
    shown = [stages[first : index + 1].max() for index, first in enumerate(began)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 2.2), layout="constrained")
        panel = figure.subplots()
        time_s = _time_s(log, stamps)
        panel.fill_between(time_s, shown, step="post", color=GREEN, alpha=0.12, linewidth=0)
        panel.step(time_s, shown, where="post", color=GREEN, linewidth=1.6)
        panel.set_ylim(-0.2, len(names) - 0.7)
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel("seconds")
        return _chart(figure, [panel], log)


def timing_charts(log: Log) -> list[tuple[str, str, str]]:
    """Histograms as (title, explanation, svg): tick jitter, observation to goal, frame age, inference."""
    policy = [tick.inference_ns / 1e6 for tick in figures.ticks_of(log) if tick.inference_ns]
    shown = [
        (
            "Tick lateness",
            "An action goes out this long after its 20 ms tick begins; past 20 ms it is late.",
            figures.lateness_ms(log),
            BLUE,
        ),
        (
            "Observation to goal",
            "From the oldest frame or joint state that an action saw, to the servo cycle that moves to it.",
            figures.latency_ms(log, Mode.POLICY),
            GREEN,
        ),
        ("Frame age", "How old the policy's camera picture is at its tick.", figures.frame_age_ms(log), ORANGE),
        ("Inference", "One pass of the network.", np.array(policy), SOFT),
    ]
    return [(title, text, _histogram(values, colour)) for title, text, values, colour in shown if values.size]


def _histogram(values: Milliseconds, colour: str) -> str:
    p50, p99 = np.percentile(values, (50, 99))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6, 2.5), layout="constrained")
        panel = figure.subplots()
        panel.hist(values, bins=min(40, 5 + values.size // 8), color=colour, alpha=0.75, linewidth=0)
        for value, name in ((p50, "p50"), (p99, "p99")):
            panel.axvline(value, color=INK, linewidth=1, linestyle="-" if name == "p50" else ":")
        panel.set_title(f"p50 {p50:.1f} ms (line), p99 {p99:.1f} ms (dots)", color=SOFT, fontweight="normal")
        panel.set_xlabel("ms")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.grid(axis="x", visible=False)
        return _svg(figure)


def _joint_axis(panel: Axes, title: str, index: int) -> None:
    gripper = IS_GRIPPER[index]
    panel.set_title(f"{title} ({'0 closed .. 1 open' if gripper else 'rad'})")
    panel.yaxis.set_major_locator(MaxNLocator(4))
    panel.margins(x=0)
    widen(panel, 0.3 if not gripper else 1.1)


def widen(panel: Axes, least: float) -> None:
    """At least this much on the vertical axis: a joint that rests shows a flat line, not its noise."""
    low, high = panel.get_ylim()
    if high - low < least:
        panel.set_ylim((low + high - least) / 2, (low + high + least) / 2)


def mark_limits(panel: Axes, time_s: NDArray[np.float64], held_off: NDArray[np.bool_]) -> None:
    """A red tick at the foot of the panel for each moment at which a limit kept this joint off its target."""
    if held_off.any():
        panel.plot(
            time_s[held_off], np.zeros(int(held_off.sum())), "|", color=RED, markersize=5,
            transform=panel.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _legend(panel: Axes) -> None:
    """The spare panel of each arm explains the lines."""
    panel.axis("off")
    panel.plot([], [], color=ORANGE, linewidth=1.6, label="target (action as commanded)")
    panel.plot([], [], color=BLUE, linewidth=1.6, label="position (measured)")
    panel.plot([], [], "|", color=RED, markersize=7, label="held off its target")
    panel.legend(loc="center left", fontsize=10)


def _time_s(log: Log, stamps_ns: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    return (np.asarray(stamps_ns, dtype=np.int64) - log.start_ns) / NS_PER_S


def _vectors(rows: Sequence[list[float] | None]) -> NDArray[np.float64]:
    """(n, 14); a row that is None is a gap in the line."""
    return np.array([[np.nan] * DOF if row is None else row for row in rows], dtype=np.float64).reshape(-1, DOF)


def _chart(figure: Figure, panels: Sequence[Axes], log: Log) -> Chart:
    for panel in panels:
        panel.set_xlim(0, log.span_s)
    svg = _svg(figure)  # lays the panels out
    places = [panel.get_position() for panel in panels]
    return Chart(svg, [(box.x0, box.x1, 1 - box.y1, 1 - box.y0) for box in places], 0.0, log.span_s)


NO_METADATA = {"Date": None, "Creator": None, "Type": None, "Format": None}
CLEANED = (
    (r"<style.*?</style>", ""),  # would apply to the whole page
    (r' xmlns(:xlink)?="[^"]*"', ""),
    (r"xlink:href", "href"),
    (r"font-family: [^;\"]*", "font-family: inherit"),
    (r'(<svg[^>]*?) (?:width|height)="[^"]*"([^>]*?) (?:width|height)="[^"]*"', r"\1\2"),
)
"""What an SVG file has and an <svg> inside a page must not: patterns and what takes their place."""


def _svg(figure: Figure) -> str:
    """The <svg> element alone, as wide as its place in the page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=NO_METADATA, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in CLEANED:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    return svg
