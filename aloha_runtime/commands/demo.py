"""`aloha demo`: the whole runtime on the simulated rig, one episode of a policy, and a report of it.

Where this computer is too busy for real time, the same episode is run again in virtual time, and the report says so.
"""

import json
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from aloha_runtime import config, messages
from aloha_runtime.commands import busy_computer, report
from aloha_runtime.commands.figures import figures, success_stamp_ns
from aloha_runtime.commands.observe import Log, Observer
from aloha_runtime.commands.operate import raise_arms, with_task
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.health import DEGRADED_BELOW
from aloha_runtime.errors import AlohaError, CheckpointError, ConfigError
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.realtime import NS_PER_S

EPISODE_S = 12.0
"""Twice as long as a demonstration takes; a policy that has not solved the task by then will not."""
LOOK_EVERY_S = 0.1
PATIENCE_S = 120.0
"""For the processes to start in real time: a quiet computer needs 10, a busy one long for PyTorch."""
VIRTUAL_PATIENCE_S = 3600.0
"""In virtual time nobody is late; a process that ends is noticed at once."""


def demo(seed: int | None, policy: str, out: Path, run_dir: Path | None, rig_name: str = "sim") -> None:
    """One episode of transfer cube; report.html and report.json go to `out`. An episode without success is no error,
    and neither is a computer that is too busy for real time.

    Raises AlohaError when something broke: a process gave up, the arms went into HOLD, the report cannot be written.
    """
    console = Console(highlight=False)
    rig = with_task(config.load(rig_name), seed, None)
    if rig.sim is None:
        raise ConfigError(f"rig {rig.name} is a real one; the demo runs on a simulated rig, such as `sim`")
    inputs = policy_inputs(config.policy_path(policy))
    _check_folder(out)
    console.print(f"[bold]task {rig.sim.task}, seed {rig.sim.seed}, policy {policy}[/] ({', '.join(inputs)})")
    log, busy = _in_real_time(Stack(rig, Job.DEPLOY, run_dir, policy, console.print, patience_s=PATIENCE_S), console)
    if log is None:
        console.print(f"[yellow]this computer is too busy for real time ({escape(busy)})[/]")
        console.print("the same episode again in virtual time, in which nobody is late: it takes as long as it takes")
        rig = with_task(rig, None, None, clock="virtual")
        log = _run(Stack(rig, Job.DEPLOY, run_dir, policy, console.print, patience_s=VIRTUAL_PATIENCE_S), console)
    written = _report(log, out, inputs, console, busy)
    report.print_summary(written, console)
    if cause := written.figures["hold_cause"]:
        raise AlohaError(f"the arms stopped by themselves: {cause}")


def _in_real_time(stack: Stack, console: Console) -> tuple[Log | None, str]:
    """The episode, or None and why this computer was too busy for it. Raises AlohaError for everything else."""
    with busy_computer.Watch() as watch:
        try:
            log = _run(stack, console)
        except AlohaError as error:
            if busy_computer.excuses_error(error, watch.lost_share(time.monotonic_ns())):
                return None, str(error)
            raise
        stop = next((said for said in log.modes if said.mode in (Mode.HOLD, Mode.FAULT)), None)
        if stop is not None:
            return (
                (None, stop.cause) if busy_computer.excuses(stop.cause, watch.lost_share(stop.stamp_ns)) else (log, "")
            )
    found = figures(log)
    on_time = found["ticks_on_time"]
    if not found["success"] and isinstance(on_time, float) and on_time < DEGRADED_BELOW:
        return None, f"only {on_time:.0%} of the policy's ticks were on time, and the task was not solved"
    return log, ""


def _run(stack: Stack, console: Console) -> Log:
    """Every process up, the episode, every process gone."""
    console.print(f"starting {len(stack.table)} processes: {', '.join(process.name for process in stack.table)}")
    with stack, Observer(stack, stack.checkpoint) as observer:
        console.print("all report; the arms rise to the start pose")
        raise_arms(stack)
        return _episode(stack, observer, console)


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
    shown, deadline_ns = 0, stack.clock.now_ns() + int(EPISODE_S * NS_PER_S)
    while stack.clock.now_ns() < deadline_ns:
        stack.watch()
        stack.pause(LOOK_EVERY_S)
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


def _report(log: Log, out: Path, inputs: list[str], console: Console, busy: str) -> report.Written:
    """The report, with a bar while the video is rendered."""
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("rendering the video", total=1.0)
        return report.write(log, out, inputs, lambda share: progress.update(bar, completed=share), busy)


def _check_folder(out: Path) -> None:
    """Before anything starts: a report that cannot be written would be noticed only after the episode."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").unlink(missing_ok=True)  # an old report must not pass for this one
    except OSError as error:
        raise AlohaError(
            f"no report can be written to {out} ({error.strerror}): choose another folder with --out"
        ) from None
