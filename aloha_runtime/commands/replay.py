"""`aloha replay`: a recorded episode on the arms again, through the safety gate, and how closely they followed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from aloha_runtime import config, messages
from aloha_runtime.commands.joint_plot import Curve, draw
from aloha_runtime.commands.observe import Log, Observer
from aloha_runtime.commands.operate import mode_of, raise_arms, with_task
from aloha_runtime.commands.report_plots import BLUE, GREEN, ORANGE
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.data import recording
from aloha_runtime.data.recording import Recording
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import Health
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import IS_GRIPPER, NAMES

SLACK_S = 30.0
"""A replay that is not over this long after its recording should be is stuck: the approach takes 6 s at most."""


@dataclass(frozen=True)
class Tracking:
    """What the arms did, at the recorded instants: `position` (T, 14); errors per joint (14,), NaN where unknown.

    `to_action`: measured minus recorded action, arm joints only (a gripper's action and state are other quantities).
    `to_state`: measured minus recorded state.
    """

    position: NDArray[np.float64]
    to_action_rms: NDArray[np.float64]
    to_state_rms: NDArray[np.float64]
    to_state_max: NDArray[np.float64]


def replay(
    dataset: Path, episode: int, rig_name: str, out: Path, seed: int | None, task: str | None, run_dir: Path | None
) -> None:
    """Play one episode and write `replay.json` and `replay.png` to `out`. Raises AlohaError when the arms stop."""
    console = Console(highlight=False)
    rig = with_task(config.load(rig_name), seed, task)
    found = recording.load(dataset, episode, rig_limits(rig.limits, rig.deploy, "follower"))
    seconds = len(found.actions) / found.fps
    stack = Stack(rig, Job.REPLAY, run_dir, say=console.print, episode=(str(dataset.absolute()), episode))
    with stack, Observer(stack) as observer:
        raise_arms(stack)
        observer.mark()
        stack.ask("replay")
        console.print(f"{found.task!r}: a slow way to its first action, then {seconds:.1f} s; Ctrl-C stops")
        play_ns = _wait_done(stack, observer, seconds)
        log = observer.log()
    tracking = compare(found, log, play_ns)
    out.mkdir(parents=True, exist_ok=True)
    (out / "replay.json").write_text(json.dumps(_figures(dataset, episode, tracking), indent=2) + "\n")
    draw(np.arange(len(found.actions)) / found.fps, _curves(found, tracking), out / "replay.png")
    console.print(_table(tracking))
    console.print(f"picture: {out / 'replay.png'}   figures: {out / 'replay.json'}")


def _curves(found: Recording, tracking: Tracking) -> list[Curve]:
    state = [] if found.state is None else [("recorded state", GREEN, found.state)]
    return [("recorded action", ORANGE, found.actions), *state, ("replayed state", BLUE, tracking.position)]


def _wait_done(stack: Stack, observer: Observer, seconds: float) -> int:
    """Until the last action is over; returns when the first one was due (monotonic ns)."""
    topic = messages.health_topic("replay")

    def figures() -> dict[str, float]:
        report: Health | None = observer.latest(topic)
        return report.figures if report is not None else {}

    def done() -> bool:
        mode_of(stack)  # raises with the cause when the arms went into HOLD
        return bool(figures().get("done"))

    stack.wait(done, seconds + SLACK_S, f"the end of the replay of {seconds:.1f} s")
    return int(figures()["play_ns"])


def compare(found: Recording, log: Log, play_ns: int) -> Tracking:
    """Measured positions at the recorded instants, and their distance from what was recorded."""
    states = [state for state in log.followers if state.valid]
    stamps = np.array([state.stamp_ns for state in states], dtype=np.int64)
    instants = play_ns + np.round(np.arange(len(found.actions)) / found.fps * 1e9).astype(np.int64)
    newest = np.searchsorted(stamps, instants, side="right") - 1
    if newest.min() < 0 or stamps[-1] < instants[-1] - messages.MS * messages.FOLLOWERS.max_age_ms:
        raise AlohaError("states of the followers are missing from the replay; see what they printed, and replay again")
    position = np.array([states[index].position for index in newest])
    unknown = np.full(len(NAMES), np.nan)
    to_action = np.where(IS_GRIPPER, np.nan, position - found.actions)
    to_state = position - found.state if found.state is not None else unknown[None]
    return Tracking(position, _rms(to_action), _rms(to_state), np.abs(to_state).max(axis=0))


def _rms(error: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((error**2).mean(axis=0)))


def _figures(dataset: Path, episode: int, tracking: Tracking) -> dict[str, object]:
    def by_joint(values: NDArray[np.float64]) -> dict[str, float]:
        return {name: float(value) for name, value in zip(NAMES, values, strict=True) if np.isfinite(value)}

    return {
        "dataset": str(dataset),
        "episode": episode,
        "to_action_rms_rad": by_joint(tracking.to_action_rms),
        "to_recorded_state_rms": by_joint(tracking.to_state_rms),
        "to_recorded_state_max": by_joint(tracking.to_state_max),
    }


def _table(tracking: Tracking) -> Table:
    table = Table(title="tracking error (rad; grippers: openings)", title_justify="left")
    for column in ("joint", "to action, rms", "to recorded state, rms", "largest"):
        table.add_column(column, justify="left" if column == "joint" else "right")
    for index, name in enumerate(NAMES):
        errors = (tracking.to_action_rms[index], tracking.to_state_rms[index], tracking.to_state_max[index])
        table.add_row(name, *("" if np.isnan(error) else f"{error:.4f}" for error in errors))
    return table
