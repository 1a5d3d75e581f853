"""`aloha demo`: the whole runtime on the simulated rig, one episode of a policy, and a report of it."""

import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from aloha_runtime import config, messages
from aloha_runtime.commands import report
from aloha_runtime.commands.figures import success_stamp_ns
from aloha_runtime.commands.observe import Log, Observer
from aloha_runtime.commands.operate import raise_arms, with_task
from aloha_runtime.commands.stack import Stack
from aloha_runtime.errors import AlohaError, CheckpointError
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job

EPISODE_S = 12.0
"""Twice as long as a demonstration takes; a policy that has not solved the task by then will not."""
LOOK_EVERY_S = 0.1


def demo(seed: int | None, policy: str, out: Path, run_dir: Path | None) -> None:
    """One episode of transfer cube; report.html and report.json go to `out`. An episode without success is no error.

    Raises AlohaError when something broke: a process gave up, the arms went into HOLD, the report cannot be written.
    """
    console = Console(highlight=False)
    rig = with_task(config.load("sim"), seed, None)
    assert rig.sim is not None, "the shipped rig `sim` is a simulated one"
    inputs = policy_inputs(config.policy_path(policy))
    _check_folder(out)
    stack = Stack(rig, Job.DEPLOY, run_dir, policy, say=console.print)
    console.print(f"[bold]task {rig.sim.task}, seed {rig.sim.seed}, policy {policy}[/] ({', '.join(inputs)})")
    console.print(f"starting {len(stack.table)} processes: {', '.join(process.name for process in stack.table)}")
    began = time.monotonic()
    with stack:
        console.print(f"all report after {time.monotonic() - began:.1f} s; the arms rise to the start pose")
        with Observer(stack, policy) as observer:
            raise_arms(stack)
            log = _episode(stack, observer, console)
    written = _report(log, out, inputs, console)
    report.print_summary(written, console)
    if cause := written.figures["hold_cause"]:
        raise AlohaError(f"the arms stopped by themselves: {cause}")


def policy_inputs(directory: Path) -> list[str]:
    """The features that a policy directory's `config.json` says it reads, without loading the policy itself.

    Raises CheckpointError when there is no such file or it is not one of a policy.
    """
    path = directory / "config.json"
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["input_features"])
    except OSError as error:
        raise CheckpointError(
            f"policy {directory} has no {path.name} ({error.strerror}): give `demo` or a LeRobot policy directory"
        ) from None
    except (ValueError, KeyError, TypeError):  # not JSON, or JSON of something else
        raise CheckpointError(
            f"policy {directory}: config.json has no `input_features`; it is not a LeRobot policy"
        ) from None


def _episode(stack: Stack, observer: Observer, console: Console) -> Log:
    """The policy drives until the task stays solved, the time is over, or the arms stop by themselves."""
    observer.mark()
    stack.ask("policy")
    console.print(f"the policy drives both follower arms at 50 Hz, for up to {EPISODE_S:.0f} s")
    shown, deadline = 0, time.monotonic() + EPISODE_S
    while time.monotonic() < deadline:
        stack.watch()
        time.sleep(LOOK_EVERY_S)
        states = observer.so_far(messages.SIM_STATE)
        reached = max((state.stage for state in states), default=0)
        if reached > shown:
            console.print(f"  stage {reached} of 4")
            shown = reached
        heartbeat = observer.latest(messages.MODE)
        stopped = heartbeat is not None and heartbeat.mode in (Mode.HOLD, Mode.FAULT)
        if stopped or success_stamp_ns(states) is not None:
            break
    return observer.log()


def _report(log: Log, out: Path, inputs: list[str], console: Console) -> report.Written:
    """The report, with a bar while the video is rendered."""
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("rendering the video", total=1.0)
        return report.write(log, out, inputs, lambda share: progress.update(bar, completed=share))


def _check_folder(out: Path) -> None:
    """Before anything starts: a report that cannot be written would be noticed only after the episode."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").unlink(missing_ok=True)  # an old report must not pass for this one
    except OSError as error:
        raise AlohaError(
            f"no report can be written to {out} ({error.strerror}): choose another folder with --out"
        ) from None
