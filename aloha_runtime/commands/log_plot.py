"""`aloha log plot`: where each joint was, where it was told to be, and when it happened, as a picture."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.commands.log_show import span
from aloha_runtime.commands.report_plots import BLUE, GREEN, ORANGE, RED, SOFT, STYLE, widen
from aloha_runtime.errors import LogError
from aloha_runtime.flight_log import story
from aloha_runtime.flight_log.channels import LEVELS
from aloha_runtime.flight_log.reader import FlightLog, find
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import DOF, IS_GRIPPER, JOINTS, SIDES
from aloha_runtime.run_directory import default_log_dir

AROUND_S = 4.0
"""Before and after the event, unless told: a way of a joint at the speeds of these arms."""
LEAST = 0.3
"""Of a vertical axis (rad, openings): a joint that rests shows a flat line, not its noise."""
GAP_NS = NS_PER_S // 10
"""Nothing for so long: the line is broken, not drawn across."""


def plot(name: str, folder: Path | None, out: Path, seconds: float | None, leaders: bool) -> Path:
    """Draw a log around its event; LogError when it has nothing of the arms there."""
    topic = messages.LEADERS if leaders else messages.FOLLOWERS
    with FlightLog(find(folder or default_log_dir(), name)) as log:
        start_ns, end_ns = span(log, AROUND_S if seconds is None else seconds, False)
        track = story.Track(log, topic, start_ns, end_ns)
        if not len(track.time_ns):
            raise LogError(
                f"log {log.path} has nothing of the {topic.name} around its event: look with `aloha log show`"
            )
        marks = [(m.stamp_ns, m.level) for m in story.timeline(log, start_ns, end_ns) if m.who == "mode"]
        about = log.about
    out.parent.mkdir(parents=True, exist_ok=True)
    title = f"{about.kind.upper()}  {about.cause}  ({about.rig}, in {about.mode})"
    _draw(track, about.event_ns, marks, title, out)
    return out


def _draw(track: story.Track, event_ns: int, marks: list[tuple[int, int]], title: str, out: Path) -> None:
    time_s = (track.time_ns - event_ns) / NS_PER_S
    holes = np.flatnonzero(np.diff(track.time_ns) > GAP_NS) + 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 6.4), dpi=110, layout="constrained")
        figure.suptitle(title, color=RED, x=0.01, ha="left", fontsize=11)
        panels: NDArray[np.object_] = figure.subplots(len(SIDES), len(JOINTS), sharex=True).ravel()
        names = [f"{side} {joint.replace('_', ' ')}" for side in SIDES for joint in JOINTS]
        for index in range(DOF):
            panel: Axes = panels[index]
            for values, colour, label in (
                (track.target, ORANGE, "target (as commanded)"),
                (track.goal, GREEN, "goal (as sent)"),
                (track.position, BLUE, "position (measured)"),
            ):
                line = values[:, index].copy()
                line[holes] = np.nan
                panel.plot(time_s, line, color=colour, linewidth=1.1, label=label)
            limited = track.limited[:, index]
            if limited.any():
                foot = panel.get_xaxis_transform()
                panel.plot(time_s[limited], np.zeros(limited.sum()), "|", color=RED, markersize=4, transform=foot)
            for stamp_ns, level in marks:
                worst = level == LEVELS["error"]
                panel.axvline(
                    (stamp_ns - event_ns) / NS_PER_S, color=RED if worst else SOFT, linewidth=0.8, linestyle=":"
                )
            panel.axvline(0, color=RED, linewidth=1.0)
            panel.set_title(f"{names[index]} ({'0..1' if IS_GRIPPER[index] else 'rad'})")
            panel.margins(x=0)
            widen(panel, LEAST)
        panels[0].plot([], [], "|", color=RED, label="a limit stepped in")
        panels[0].plot([], [], color=SOFT, linewidth=0.8, linestyle=":", label="mode changed")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.supxlabel("seconds from the event", fontsize=9, color=SOFT)
        figure.savefig(out)
