"""`aloha bench stack`: the full stack on the simulated rig, under the shipped policy and under teleoperation."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from aloha_runtime import config
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.figures import Figure, figures
from aloha_runtime.commands.observe import Observer
from aloha_runtime.commands.operate import RAMP_TIMEOUT_S, mode_of, raise_arms, with_task
from aloha_runtime.commands.stack import Stack
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job

POLICY = "demo"
SEED = 0
"""The same cube in every run, so that runs compare."""
TELEOP_S = 15.0
"""Longest teleoperated span: two demonstrations' time; its latency needs no more."""
WATCH_EVERY_S = 0.1

Goals = dict[str, tuple[float, bool]]
"""Figure -> its goal, and whether more is better."""
GOALS: Goals = {
    "ticks_on_time": (0.99, True),
    "tick_lateness_p99_ms": (20.0, False),
    "arms_hz": (199.0, True),
    "goals_outside_envelope": (0.0, False),
    "rss_mb.arms@followers": (150.0, False),
    "rss_mb.arms@leaders": (150.0, False),
    "rss_mb.camera@cam_high": (150.0, False),
    "cpu_percent_total": (180.0, False),
}
"""99 of 100 ticks on time; 200 Hz but for one cycle in two hundred; small processes; two cores with headroom."""
POLICY_ROWS = (
    ("ticks_on_time", "share"),
    ("ticks_fresh", "share"),
    ("tick_lateness_p50_ms", "ms"),
    ("tick_lateness_p99_ms", "ms"),
    ("arms_hz", "Hz"),
    ("arms_skipped", "cycles"),
    ("frame_age_p50_ms", "ms"),
    ("frame_age_p99_ms", "ms"),
    ("camera_skew_p50_ms", "ms"),
    ("camera_skew_p99_ms", "ms"),
    ("joint_skew_p50_ms", "ms"),
    ("joint_skew_p99_ms", "ms"),
    ("inference_p50_ms", "ms"),
    ("latency_p50_ms", "ms"),
    ("latency_p99_ms", "ms"),
    ("goals_outside_envelope", "goals"),
    ("cpu_percent_total", "% of one core"),
)
TELEOP_ROWS = (("teleop_latency_p50_ms", "ms"), ("teleop_latency_p99_ms", "ms"))


def run(seconds: float) -> list[Row]:
    """The stack for `seconds` under the shipped policy, then for at most `TELEOP_S` under a scripted demonstrator.

    Raises AlohaError when a process gives up or the arms stop by themselves.
    """
    policy = _policy_span(seconds)
    teleop = _teleop_span(min(seconds, TELEOP_S))
    processes = [(name, "% of one core") for name in policy if name.startswith("cpu_percent.")]
    processes += [(name, "MB") for name in policy if name.startswith("rss_mb.")]
    return [*rows(policy, (*POLICY_ROWS, *processes)), *rows(teleop, TELEOP_ROWS)]


def rows(found: dict[str, Figure], wanted: tuple[tuple[str, str], ...]) -> list[Row]:
    """A row for each figure that was measured, held against its goal where it has one."""
    made = []
    for name, unit in wanted:
        value = found[name]
        if isinstance(value, int | float):
            goal, more = GOALS.get(name, (None, True))
            met = None if goal is None else value >= goal if more else value <= goal
            made.append(Row(name, float(value), unit, goal=goal, met=met))
    return made


def _policy_span(seconds: float) -> dict[str, Figure]:
    with _stack(Job.DEPLOY, f"{seconds:.0f} s under policy {POLICY}") as stack, Observer(stack, POLICY) as observer:
        raise_arms(stack)
        stack.ask("policy")
        stack.wait(lambda: mode_of(stack) is Mode.POLICY, RAMP_TIMEOUT_S, "mode POLICY")
        return _measure(stack, observer, seconds)


def _teleop_span(seconds: float) -> dict[str, Figure]:
    with _stack(Job.DEMONSTRATE, f"{seconds:.0f} s of teleoperation") as stack, Observer(stack) as observer:
        raise_arms(stack)
        stack.wait(lambda: mode_of(stack) is Mode.TELEOP, RAMP_TIMEOUT_S, "the squeeze of both leader grippers")
        return _measure(stack, observer, seconds)


def _measure(stack: Stack, observer: Observer, seconds: float) -> dict[str, Figure]:
    observer.mark()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stack.watch()
        mode_of(stack)  # raises when the arms stopped by themselves
        time.sleep(WATCH_EVERY_S)
    return figures(observer.log())


@contextmanager
def _stack(job: Job, what: str) -> Iterator[Stack]:
    """A running stack in a run directory of its own, so that a benchmark never meets a rig that is in use."""
    console = Console(stderr=True, highlight=False)
    rig = with_task(config.load("sim"), SEED, None)
    parent = Path(tempfile.mkdtemp(prefix="aloha-bench-"))
    console.print(f"starting the stack: {what}")
    try:
        with Stack(rig, job, parent / "run", POLICY, say=console.print) as stack:
            yield stack
    finally:
        shutil.rmtree(parent, ignore_errors=True)
