"""`aloha log plot`: where each joint was, where it was told to be, and when it happened, as a picture."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.commands.joint_plot import joint_panels
from aloha_runtime.commands.log_show import span
from aloha_runtime.commands.report_plots import BLUE, GREEN, ORANGE, RED, SOFT, STYLE, mark_limits
from aloha_runtime.errors import LogError
from aloha_runtime.flight_log import story
from aloha_runtime.flight_log.channels import LEVELS
from aloha_runtime.flight_log.reader import FlightLog, find
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.run_directory import default_log_dir

AROUND_S = 4.0
"""Before and after the event, unless told: a way of a joint at the speeds of these arms."""
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
    curves = [
        ("target (as commanded)", ORANGE, _broken(track.target, holes)),
        ("goal (as sent)", GREEN, _broken(track.goal, holes)),
        ("position (measured)", BLUE, _broken(track.position, holes)),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 6.4), dpi=110, layout="constrained")
        figure.suptitle(title, color=RED, x=0.01, ha="left", fontsize=11)
        panels = joint_panels(figure, time_s, curves)
        for index, panel in enumerate(panels):
            mark_limits(panel, time_s, track.held_off[:, index])
            for stamp_ns, level in marks:
                colour = RED if level == LEVELS["error"] else SOFT
                panel.axvline((stamp_ns - event_ns) / NS_PER_S, color=colour, linewidth=0.8, linestyle=":")
            panel.axvline(0, color=RED, linewidth=1.0)
        panels[0].plot([], [], "|", color=RED, label="held off its target")
        panels[0].plot([], [], color=SOFT, linewidth=0.8, linestyle=":", label="mode changed")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        panels[len(panels) * 3 // 4].set_xlabel("seconds from the event", fontsize=9, color=SOFT)
        figure.savefig(out)


def _broken(values: NDArray[np.float64], holes: NDArray[np.int64]) -> NDArray[np.float64]:
    line = values.copy()
    line[holes] = np.nan
    return line
