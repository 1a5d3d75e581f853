"""The picture of a replay: fourteen panels with what was recorded and what the arms did."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aloha_runtime.commands.report_plots import BLUE, GREEN, ORANGE, STYLE, widen
from aloha_runtime.data.recording import Recording
from aloha_runtime.robot import IS_GRIPPER, JOINTS, SIDES


def draw(found: Recording, position: NDArray[np.float64], path: Path) -> None:
    """Write a PNG: recorded action and state against the measured `position` (T, 14), over seconds."""
    time_s = np.arange(len(position)) / found.fps
    titles = [f"{side} {joint.replace('_', ' ')}" for side in SIDES for joint in JOINTS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 5.6), dpi=110, layout="constrained")
        panels = figure.subplots(len(SIDES), len(JOINTS), sharex=True).ravel()
        for index, panel in enumerate(panels):
            panel.plot(time_s, found.actions[:, index], color=ORANGE, linewidth=1.2, label="recorded action")
            if found.state is not None:
                panel.plot(time_s, found.state[:, index], color=GREEN, linewidth=1.2, label="recorded state")
            panel.plot(time_s, position[:, index], color=BLUE, linewidth=1.0, label="replayed state")
            panel.set_title(f"{titles[index]} ({'0..1' if IS_GRIPPER[index] else 'rad'})")
            panel.margins(x=0)
            widen(panel, 0.3)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path)
