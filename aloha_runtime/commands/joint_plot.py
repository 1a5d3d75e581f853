"""Fourteen panels, one for each joint, over seconds: what was wanted and what the arms did."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aloha_runtime.commands.report_plots import STYLE, widen
from aloha_runtime.robot import IS_GRIPPER, JOINTS, SIDES

LEAST = 0.3
"""Of a vertical axis (rad, openings): a joint that rests shows a flat line, not its noise."""
LINE_WIDTH = 1.1

Curve = tuple[str, str, NDArray[np.floating]]
"""Label, colour, values (T, 14); NaN leaves a gap. Later ones lie above."""


def joint_panels(figure: Figure, time_s: NDArray[np.floating], curves: Sequence[Curve]) -> list[Axes]:
    """Draw the curves, left arm above the right one; returns the panels in contract order, for what else they show."""
    panels: list[Axes] = list(figure.subplots(len(SIDES), len(JOINTS), sharex=True).ravel())
    names = [f"{side} {joint.replace('_', ' ')}" for side in SIDES for joint in JOINTS]
    for index, panel in enumerate(panels):
        for label, colour, values in curves:
            panel.plot(time_s, values[:, index], color=colour, linewidth=LINE_WIDTH, label=label)
        panel.set_title(f"{names[index]} ({'0..1' if IS_GRIPPER[index] else 'rad'})")
        panel.margins(x=0)
        widen(panel, LEAST)
    return panels


def draw(time_s: NDArray[np.floating], curves: Sequence[Curve], path: Path) -> None:
    """Write a PNG of the curves alone."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 5.6), dpi=110, layout="constrained")
        panels = joint_panels(figure, time_s, curves)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(curves))
        figure.savefig(path)
