"""The operator's verbs: bring the system up, teleoperate, and single requests to a running system."""

import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from rich.console import Console

from aloha_runtime import config
from aloha_runtime.bus import SUPERVISOR, Bus
from aloha_runtime.commands.going_on import advice, refuse_killed
from aloha_runtime.commands.keyboard import STOP_KEY, Keyboard
from aloha_runtime.commands.stack import POLL_S, Stack
from aloha_runtime.commands.zero_question import ask_about_zeros
from aloha_runtime.config import RigConfig, TaskName, TeleopConfig
from aloha_runtime.control.modes import TIME_IS_OVER
from aloha_runtime.errors import AlohaError, ArmsStopped, ConfigError
from aloha_runtime.messages import MOVING, Health, Mode, ModeHeartbeat, Reply, Request
from aloha_runtime.processes.table import Job
from aloha_runtime.realtime import NS_PER_S, WallClock
from aloha_runtime.run_directory import RUN_LOCK, default_run_dir, lock_holder

RAMP_TIMEOUT_S = 60.0
"""A ramp of 3 rad at the lowest velocity limit there is (0.2 rad/s), twice over, and as long again for the stages of
arms that have to be raised first, one after the other."""
DOWN_TIMEOUT_S = 80.0
"""Parking takes 60 s at most, ending the processes 5 s."""
SUPERVISOR_LOCK = f"{SUPERVISOR}.requests.lock"
SQUEEZE_TIMEOUT_S = 3600.0
"""A person may take their time before they squeeze the grippers."""


def with_task(rig: RigConfig, seed: int | None, task: str | None, clock: str | None = None) -> RigConfig:
    """The rig with the simulated task, seed (None: drawn) and clock of the command line; ConfigError on a real rig."""
    if rig.sim is None:
        if seed is not None or task is not None:
            raise ConfigError(
                f"rig {rig.name} is a real one: --seed and --task belong to the simulated rig (--rig sim)"
            )
        return rig
    tasks = get_args(TaskName)
    if task is not None and task not in tasks:
        raise ConfigError(f"no task named {task!r}: choose one of {', '.join(tasks)}")
    chosen = {
        "task": task or rig.sim.task,
        "seed": seed if seed is not None else rig.sim.seed if rig.sim.seed is not None else secrets.randbelow(10_000),
        "clock": clock or rig.sim.clock,
    }
    return RigConfig.model_validate(rig.model_dump() | {"sim": chosen})


def up(rig_name: str, job: str, checkpoint: str, run_dir: Path | None) -> None:
    """Start a job's processes and watch them until Ctrl-C."""
    own = (Job.REPLAY, Job.LOOK, Job.CORRECT)  # `aloha replay`, `aloha preflight`, `aloha record`
    jobs = [name for name in Job if name not in own]
    if job not in jobs:
        raise ConfigError(f"no job named {job!r}: choose one of {', '.join(jobs)}")
    rig = with_task(config.load(rig_name), None, None)
    say = Console().print
    with Stack(rig, Job(job), run_dir, checkpoint, say=say) as stack:
        stack.say(
            f"{len(stack.table)} processes run in {stack.run_dir}; now `aloha arm` or `aloha status`; Ctrl-C ends all"
        )
        watch_until_interrupted(stack, None)


def teleop(
    rig_name: str,
    *,
    scripted: bool,
    seed: int | None,
    task: str | None,
    seconds: float | None,
    run_dir: Path | None,
    side: str | None = None,
) -> None:
    """Leaders move followers. With `scripted`, on the simulated rig, a demonstrator moves the leaders. `side`: left or
    right alone, the other stands still."""
    rig = with_task(config.load(rig_name), seed, task)
    if side is not None:
        rig = rig.model_copy(update={"teleop": TeleopConfig.model_validate({"sides": [side]})})
    if scripted and rig.sim is None:
        raise ConfigError(f"--scripted needs the simulated rig, and {rig.name} is a real one: use --rig sim")
    say = Console().print
    refuse_without_leaders(rig)
    with Stack(rig, Job.DEMONSTRATE if scripted else Job.TELEOP, run_dir, say=say) as stack:
        raise_arms(stack)
        stack.say("open both leader grippers wide, then squeeze them to start")
        stack.wait(lambda: mode_of(stack) is Mode.TELEOP, SQUEEZE_TIMEOUT_S, "the squeeze of both leader grippers")
        stack.say("teleoperation runs; space is STOP, Ctrl-C ends it and parks the arms")
        watch_until_interrupted(stack, seconds)
        report: Health | None = stack.health["teleop"].latest()
        if report is not None and report.figures.get("latency_p50_ms"):
            found = report.figures
            stack.say(
                f"leader moved to follower goal written: p50 {found['latency_p50_ms']:.1f} ms, p99"
                f" {found['latency_p99_ms']:.1f} ms; {found['rate_hz']:.0f} actions a second"
            )


def with_takeover(rig: RigConfig, takeover: bool) -> RigConfig:
    """The rig on which a person may take over from a policy, when asked for."""
    if not takeover:
        return rig
    refuse_without_leaders(rig)
    return rig.model_copy(update={"teleop": rig.teleop.model_copy(update={"takeover": True})})


def refuse_without_leaders(rig: RigConfig) -> None:
    """Raise ConfigError when nobody could lead anything on this rig."""
    if not rig.led_sides:
        raise ConfigError(
            f"rig {rig.name} has no leader with a follower on its side (arms: {', '.join(rig.arms)}; teleop.sides:"
            f" {', '.join(rig.teleop.sides)}): name one under `arms`, or run a policy with `aloha deploy`"
        )


def raise_arms(stack: Stack) -> None:
    """Arm, and wait for the ramp to the start pose."""
    stack.ask("arm", "start")
    asked_ns = stack.clock.now_ns()

    def settled() -> bool:
        heartbeat = stack.mode.latest()
        if heartbeat is not None and heartbeat.stamp_ns > asked_ns and mode_of(stack) in MOVING:
            return True  # a person may squeeze the grippers before this look
        states = [arm.latest() for arm in stack.arms.values()]
        return all(state is not None and state.mode is Mode.ARMED and state.settled for state in states)

    stack.wait(settled, RAMP_TIMEOUT_S, "the ramp of all arms to the start pose")
    if mode_of(stack) is Mode.ARMED:
        ask_about_zeros(stack, lambda: mode_of(stack) is Mode.ARMED)


def mode_of(stack: Stack) -> Mode | None:
    """The mode as the supervisor says it now; raises AlohaError with the cause when it is HOLD or FAULT."""
    heartbeat = stack.mode.latest()
    if heartbeat is None:
        return None
    if heartbeat.mode in (Mode.HOLD, Mode.FAULT):
        raise ArmsStopped(f"{heartbeat.mode.upper()}: {heartbeat.cause}")
    return Mode(heartbeat.mode)


def refuse_stopped(stack: Stack) -> None:
    """Raise ArmsStopped with the cause when the arms have stopped by themselves: not on anybody's stop, not because a
    policy's time is over."""
    heartbeat = stack.mode.latest()
    if heartbeat is not None and not re.match(rf"(\w+ )?stop by |{TIME_IS_OVER}", heartbeat.cause):
        mode_of(stack)


def ask(verb: str, run_dir: Path | None, argument: str = "") -> None:
    """One request to a running system."""
    Console().print(_request(verb, run_dir or default_run_dir(), argument).text)


def down(run_dir: Path | None) -> None:
    """Park the arms, end every process, and wait until nothing of the system is left."""
    run_dir = run_dir or default_run_dir()
    reply = _request("shutdown", run_dir)
    say = Console().print
    say("parking the arms, then ending every process" if reply.mode is Mode.PARK else reply.text)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    locks = [run_dir / SUPERVISOR_LOCK, run_dir / RUN_LOCK]  # where systemd runs the rig, there is only the first
    while holders := [holder for lock in locks if (holder := lock_holder(lock)) is not None]:
        if time.monotonic() > deadline:
            raise AlohaError(
                f"the system in {run_dir} (pid {holders[0]}) has not ended within {DOWN_TIMEOUT_S:.0f} s; "
                "see `aloha status` and what it printed"
            )
        time.sleep(POLL_S)
    say("ended")


def _request(verb: str, run_dir: Path, argument: str = "") -> Reply:
    """Ask the supervisor of a running system; raises AlohaError with its reason when it refuses."""
    refuse_killed(run_dir)
    with Bus(run_dir, WallClock()) as bus:
        reply = bus.client().request(Request(verb=verb, argument=argument, sender="operator"))
    if not reply.ok:
        raise AlohaError(reply.text)
    return reply


def watch_until_interrupted(
    stack: Stack, seconds: float | None, meanwhile: Callable[[], object] = lambda: None, *, deploys: bool = False
) -> None:
    """Until Ctrl-C or the time is over; the space bar is STOP; says when the arms were stopped. `meanwhile` runs at
    every look. `deploys`: also when the supervisor says that the policy has moved the arms for its time."""
    end_ns = stack.clock.now_ns() + int(seconds * NS_PER_S) if seconds else None
    shown: tuple[Mode, str] | None = None
    keyboard = Keyboard()
    try:
        with keyboard:
            while end_ns is None or stack.clock.now_ns() < end_ns:
                stack.watch()
                meanwhile()
                if STOP_KEY in keyboard.pressed():
                    stack.ask("stop")
                if deploys and _time_is_over(stack):
                    return
                shown = _say_change(stack, shown)
                stack.pause()
    except KeyboardInterrupt:
        stack.say("")


def _time_is_over(stack: Stack) -> bool:
    """Whether the supervisor has ended the policy's motion because its time is over; says so."""
    heartbeat: ModeHeartbeat | None = stack.mode.latest()
    if heartbeat is None or heartbeat.mode is not Mode.HOLD or not heartbeat.cause.startswith(TIME_IS_OVER):
        return False
    stack.say(f"HOLD: {heartbeat.cause}")
    return True


def _say_change(stack: Stack, shown: tuple[Mode, str] | None) -> tuple[Mode, str] | None:
    """Mode and cause as they are now; says so when the arms were stopped, and each further cause once it is known."""
    heartbeat: ModeHeartbeat | None = stack.mode.latest()
    if heartbeat is None:
        return shown
    now = Mode(heartbeat.mode), heartbeat.cause
    if shown is not None and now != shown and now[0] in (Mode.HOLD, Mode.FAULT):
        stack.say(advice(heartbeat, [process.name for process in stack.table], stack.run_dir))
    return now
