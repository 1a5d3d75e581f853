"""`aloha log open`: a log as a recording for the Rerun viewer: joints by name, thumbnails, lines of what happened."""

import base64
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from aloha_runtime import messages
from aloha_runtime.commands.dataset_rrd import need_rerun
from aloha_runtime.flight_log import story
from aloha_runtime.flight_log.channels import LEVELS, LOG, LogLine, Thumbnail
from aloha_runtime.flight_log.reader import FlightLog
from aloha_runtime.messages import Action, Health
from aloha_runtime.robot import NAMES

TIME_LINE = "time"
VECTORS = ("position", "velocity", "effort_ma", "goal", "target")
WORDS = {LEVELS["info"]: "INFO", LEVELS["warning"]: "WARN", LEVELS["error"]: "ERROR"}


def rrd(path: Path, out: Path) -> None:
    """Write a log to `out`. Raises ConfigError when Rerun is not installed, LogError for a log that cannot be read."""
    rerun = need_rerun("`aloha log open`")
    out.parent.mkdir(parents=True, exist_ok=True)
    with FlightLog(path) as log:
        stream = rerun.RecordingStream("aloha-log", recording_id=path.stem)
        stream.save(out)
        for topic in (messages.FOLLOWERS, messages.LEADERS):
            _arms(rerun, stream, topic.name, story.Track(log, topic, None, None))
        for name in story.DRIVERS:
            _actions(rerun, stream, log, name)
        _lines(rerun, stream, log)
        for name in log.counts():
            if name.startswith("/thumbnail/"):
                _pictures(rerun, stream, log, name)
            elif name.startswith("/health/"):
                _figures(rerun, stream, log, name)
        stream.flush()
        stream.disconnect()


def view(out: Path) -> bool:
    """Open the viewer beside this command; False where there is no screen or no viewer."""
    viewer = Path(sys.executable).with_name("rerun")
    found = str(viewer) if viewer.is_file() else shutil.which("rerun")
    if found is None:
        return False
    subprocess.Popen([found, str(out)], start_new_session=True)
    return True


def _columns(rerun: Any, stream: Any, entity: str, stamps_ns: Any, values: Any) -> None:
    stamps = np.asarray(stamps_ns, dtype=np.int64).astype("datetime64[ns]")
    columns = rerun.Scalars.columns(scalars=np.asarray(values, dtype=np.float64))
    stream.send_columns(entity, indexes=[rerun.TimeColumn(TIME_LINE, timestamp=stamps)], columns=columns)


def _arms(rerun: Any, stream: Any, name: str, track: story.Track) -> None:
    if not track.states:
        return
    for key in VECTORS:
        rows = np.array([getattr(state, key) or [np.nan] * len(NAMES) for state in track.states], dtype=np.float64)
        for joint, column in zip(NAMES, rows.T, strict=True):
            _columns(rerun, stream, f"{name}/{joint}/{key}", track.time_ns, column)


def _actions(rerun: Any, stream: Any, log: FlightLog, name: str) -> None:
    found = [(stamp_ns, action.position) for stamp_ns, action in log.messages(name, Action)]
    found = [(stamp_ns, position) for stamp_ns, position in found if len(position) == len(NAMES)]
    if found:
        rows = np.array([position for _, position in found], dtype=np.float64)
        for joint, column in zip(NAMES, rows.T, strict=True):
            _columns(rerun, stream, f"{name[1:]}/{joint}", [stamp_ns for stamp_ns, _ in found], column)


def _figures(rerun: Any, stream: Any, log: FlightLog, name: str) -> None:
    kept: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for stamp_ns, report in log.messages(name, Health):
        for figure, value in report.figures.items():
            kept[figure].append((stamp_ns, value))
    for figure, rows in kept.items():
        _columns(rerun, stream, f"{name[1:]}/{figure}", [row[0] for row in rows], [row[1] for row in rows])


def _lines(rerun: Any, stream: Any, log: FlightLog) -> None:
    for stamp_ns, line in log.messages(LOG, LogLine):
        stream.set_time(TIME_LINE, timestamp=np.datetime64(stamp_ns, "ns"))
        stream.log("log", rerun.TextLog(f"{line.name}: {line.message}", level=WORDS.get(line.level, "INFO")))


def _pictures(rerun: Any, stream: Any, log: FlightLog, name: str) -> None:
    for stamp_ns, picture in log.messages(name, Thumbnail):
        stream.set_time(TIME_LINE, timestamp=np.datetime64(stamp_ns, "ns"))
        stream.log(name[1:], rerun.EncodedImage(contents=base64.b64decode(picture.data), media_type="image/jpeg"))
