"""`aloha deploy --shadow`: the policy says what it would do, and nothing obeys it; at the end, how far it would have
been from the person or program that moved the arms meanwhile, or from arms that stood still."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from aloha_runtime import messages
from aloha_runtime.commands import joint_plot, operate
from aloha_runtime.commands.report_plots import BLUE, GREEN, ORANGE
from aloha_runtime.commands.shadow_log import ShadowLog, distances
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import NAMES, TICK_NS

ACTIONS, FIGURES, PICTURE = "actions.csv", "shadow.json", "shadow.png"
DEPTH = 4000
"""Messages that may wait while the operator's terminal is busy: 20 s of the followers' states."""
DRAWN = 4000
"""Points of a curve in the picture, at most."""


def job_of(rig: RigConfig, teleop: bool, scripted: bool) -> Job:
    """Who moves the arms meanwhile: nobody, a person, or the simulated rig's script. ConfigError without leaders."""
    if not (teleop or scripted):
        return Job.DEPLOY
    operate.refuse_without_leaders(rig)
    if scripted and rig.sim is None:
        raise ConfigError(f"--scripted needs the simulated rig, and {rig.name} is a real one: use --teleop")
    return Job.DEMONSTRATE if scripted else Job.TELEOP


def shadow(rig: RigConfig, checkpoint: str, job: Job, out: Path, run_dir: Path | None) -> None:
    """Run until Ctrl-C or for `deploy.max_duration_s`, and write actions.csv, shadow.json and shadow.png to `out`.

    In Job.DEPLOY the arms do not move at all, not even to their start pose. Raises AlohaError.
    """
    if not rig.deploy.shadow:
        raise ValueError("shadow: the rig's deploy.shadow is not set")
    if rig.deploy.speed < 1:
        raise ConfigError("--shadow moves nothing, so there is nothing to slow down: leave out --speed")
    console = Console(highlight=False)
    log = ShadowLog(out / ACTIONS)
    try:
        with Stack(rig, job, run_dir, checkpoint, console.print) as stack:
            watch(stack, job, log)
    finally:
        log.close()
    if not len(log.rows):
        why = log.reasons.most_common(1)[0][0] if log.reasons else "it was stopped before its first tick"
        raise AlohaError(f"{checkpoint} predicted nothing: {why}")
    _write(checkpoint, log, out, console)


def watch(stack: Stack, job: Job, log: ShadowLog) -> None:
    """Collect until the operator ends it or the time is over."""
    if job is not Job.DEPLOY:
        operate.raise_arms(stack)
        stack.say("open both leader grippers wide, then squeeze them to start")
        stack.wait(
            lambda: operate.mode_of(stack) is Mode.TELEOP, operate.SQUEEZE_TIMEOUT_S, "the squeeze of the grippers"
        )
    with (
        stack.bus.subscribe(messages.SHADOW_POLICY, depth=DEPTH) as actions,
        stack.bus.subscribe(messages.FOLLOWERS, depth=DEPTH) as followers,
        stack.bus.subscribe(messages.POLICY_TICK, depth=DEPTH) as ticks,
    ):
        stack.say("the policy shadows: it says what it would do, and nothing obeys it; Ctrl-C ends")
        operate.watch_until_interrupted(
            stack,
            stack.rig.deploy.max_duration_s,
            lambda: log.add(actions.drain(), followers.drain(), ticks.drain()),
        )


def _write(checkpoint: str, log: ShadowLog, out: Path, console: Console) -> None:
    rows = log.rows
    what, found = distances(rows)
    by_joint = {
        name: dict(zip(("mean", "p95", "largest"), map(float, found[:, index]), strict=True))
        for index, name in enumerate(NAMES)
    }
    content = {
        "checkpoint": checkpoint,
        "ticks": len(rows),
        "without_prediction": dict(log.reasons),
        f"predicted_minus_{what}": by_joint,
    }
    try:
        (out / FIGURES).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draw(rows, out / PICTURE)
    except OSError as error:
        raise AlohaError(f"{out} cannot be written ({error.strerror}); the actions are in {out / ACTIONS}") from None
    words = "what was commanded" if what == "commanded" else "where the arms stood"
    table = Table(title=f"the policy, away from {words} (rad; grippers: openings)", title_justify="left")
    for column in ("joint", "mean", "95 %", "largest"):
        table.add_column(column, justify="left" if column == "joint" else "right")
    for index, name in enumerate(NAMES):
        table.add_row(name, *(f"{value:.3f}" for value in found[:, index]))
    console.print(table)
    if log.reasons:
        reason, count = log.reasons.most_common(1)[0]
        console.print(f"without a prediction: {log.reasons.total()} ticks, {count} of them because {reason}")
    console.print(f"{len(rows)} ticks: {out / ACTIONS}   figures: {out / FIGURES}   picture: {out / PICTURE}")


def draw(rows: NDArray[np.float32], path: Path) -> None:
    """Write a PNG of predicted, commanded and measured, from rows (T, 3, 14)."""
    every = max(1, len(rows) // DRAWN)
    thin = rows[::every]
    time_s = np.arange(len(rows))[::every] * TICK_NS / NS_PER_S
    curves = (("commanded", GREEN, thin[:, 1]), ("measured", BLUE, thin[:, 2]), ("policy", ORANGE, thin[:, 0]))
    joint_plot.draw(time_s, curves, path)
