"""Faults of the processes that stand between a policy and the motors: arms and supervisor killed and stopped, two
controllers on one port, and no real-time priority."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from aloha_runtime.commands.faults.motion import ARMS_TRAVEL_RAD, Motion, scenario
from aloha_runtime.commands.faults.policies import STILL_S, moved_since
from aloha_runtime.commands.faults.rig import ARMS, FOLLOWER, READY_S, FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MS, Health, Mode
from aloha_runtime.robot import RAD_PER_TICK
from aloha_runtime.sim.chain_control import Peek

ARMS_PROCESS = "arms@followers"
STOP_S = 0.3
"""Three times what the servos' watchdog waits."""
TRIP_MS = 130.0
"""100 ms, which a servo counts in steps of 20 ms, and the time to look."""
STOOD_RAD = 0.01
"""Less than that a held arm moves when it is taken over: two ticks of reading and rounding, and the last of the lag."""
SAG_RAD = 0.05
"""A servo whose watchdog trips makes the place where it stands its goal, so that its joint sags under the arm's weight
(2 degrees on a raised arm, and the rounding of two readings). The next program gives it the goal of before, which
brings the joint back by as much."""
SECOND_WITHIN_S = 60.0


def supervisor_killed(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.kill("supervisor"), "supervisor is silent"


def supervisor_stopped(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.kill("supervisor", signal.SIGSTOP), "supervisor is silent"


def supervisor_goes_on(rig: FaultRig, _look: Look) -> str:
    """It still believes in POLICY; the arms have not been armed since."""
    os.kill(rig.pid("supervisor"), signal.SIGCONT)
    rig.pause(STILL_S)
    return moved_since(rig, int(STILL_S * 1e9))


def arms_killed(rig: FaultRig, chance: Random) -> Trial:
    """The servos stop by themselves and hold; a new arms process takes them at their goals of before: what has sagged
    since comes back, and nothing else moves."""
    rig.move(chance)
    before = process_id(rig)
    fault_ns = rig.kill(ARMS_PROCESS)
    tripped_ms = _until_tripped(rig, fault_ns)
    look = rig.look(fault_ns, from_fault=True)
    stood = {arm: rig.positions(arm) for arm in ARMS}
    rig.until(lambda: process_id(rig) != before, READY_S, f"the return of {ARMS_PROCESS}")
    rig.pause(STILL_S)
    now = {arm: rig.positions(arm) for arm in ARMS}
    moved = max(abs(now[arm][servo] - ticks) for arm in ARMS for servo, ticks in stood[arm].items()) * RAD_PER_TICK
    heartbeat = rig.word()
    broken = [
        "" if ARMS_PROCESS in heartbeat.cause else f"the mode is {heartbeat.mode} ({heartbeat.cause})",
        "" if look.torque else "a servo has lost its torque",
        f"a joint travelled {look.travel_rad:.3f} rad" if look.travel_rad > ARMS_TRAVEL_RAD + RAD_PER_TICK else "",
        f"a joint moved {moved:.3f} rad when the process came back" if moved > SAG_RAD else "",
    ]
    return Trial("; ".join(filter(None, broken)), tripped_ms, look.travel_rad, look.hold_ms)


def process_id(rig: FaultRig) -> int:
    """Of the arms process as it says itself, so that a new one is known by it."""
    report: Health | None = rig.stack.health[ARMS_PROCESS].latest()
    return 0 if report is None else report.pid


def _until_tripped(rig: FaultRig, fault_ns: int) -> float:
    """ms until the Bus Watchdog of every follower servo has tripped, past the bus."""
    waiting = [(arm, servo.id) for arm in ARMS for servo in FOLLOWER]
    while waiting and time.monotonic_ns() - fault_ns < 1000 * MS:
        waiting = [(arm, servo) for arm, servo in waiting if rig.ask(arm, Peek(servo, "Bus_Watchdog")).value != -1]
    return (time.monotonic_ns() - fault_ns) / MS


def arms_stopped(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    """Stopped in the middle of a motion, and on after the servos' watchdog has tripped."""
    fault_ns = rig.kill(ARMS_PROCESS, signal.SIGSTOP)
    rig.pause(STOP_S)
    os.kill(rig.pid(ARMS_PROCESS), signal.SIGCONT)
    return fault_ns, "watchdog|was sent for|joint state is"


def arms_go_on(rig: FaultRig, _look: Look) -> str:
    rig.pause(STILL_S)
    return moved_since(rig, int(STILL_S * 1e9))


def second_controller(rig: FaultRig, chance: Random) -> Trial:
    """Another arms process for the same ports, in a run directory of its own; then one in the same directory."""
    rig.move(chance)
    holder = rig.pid(ARMS_PROCESS)
    other = rig.stack.run_dir.parent / "other"
    other.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "aloha_runtime.processes.arms", ARMS_PROCESS]
    command += ["--rig", str(rig.stack.run_dir / "rig.yaml")]
    began = time.monotonic()
    broken = []
    for run_dir in (other, rig.stack.run_dir):
        found = subprocess.run(
            [*command, "--run-dir", str(run_dir)],
            capture_output=True,
            text=True,
            timeout=SECOND_WITHIN_S,
            check=False,
        )
        if found.returncode == 0 or str(holder) not in found.stderr:
            broken.append(f"in {run_dir.name} it ended with {found.returncode}: {found.stderr.strip()[-200:]}")
    elapsed = time.monotonic() - began
    rig.pause(0.1)
    heartbeat = rig.word()
    if heartbeat.mode is not Mode.POLICY:
        broken.append(f"the first one was disturbed: {heartbeat.mode} ({heartbeat.cause})")
    return Trial("; ".join(broken), elapsed / 2)


CONTROLLERS = Family(
    "controllers",
    FaultRig,
    (
        scenario(
            "supervisor killed",
            "its word counts for 200 ms; then HOLD, torque on",
            "ms to still goals",
            270.0,
            Motion(supervisor_killed, figure=lambda look: look.still_ms),
            count=2,
            soak=30,
        ),
        scenario(
            "supervisor stopped",
            "as killed; when it goes on, nothing moves",
            "ms to still goals",
            270.0,
            Motion(supervisor_stopped, figure=lambda look: look.still_ms, after=supervisor_goes_on),
            count=2,
            soak=30,
        ),
        Scenario(
            "arms process killed",
            "every servo's watchdog trips after 100 ms, torque stays on; the new process moves nothing",
            "ms to the last trip",
            TRIP_MS,
            arms_killed,
            count=2,
            soak=30,
        ),
        scenario(
            "arms process stopped for 0.3 s",
            "the watchdog trips; HOLD, and nothing moves when it goes on",
            "rad travelled",
            ARMS_TRAVEL_RAD + RAD_PER_TICK,
            Motion(arms_stopped, figure=lambda look: look.travel_rad, after=arms_go_on, pauses=True),
            count=2,
            soak=30,
        ),
        Scenario(
            "two controllers on one port",
            "the second exits non-zero, naming the holder",
            "s to its end",
            None,
            second_controller,
        ),
    ),
)


class _Strict(FaultRig):
    """Says nothing of `require`, and asks for no priority: as on a machine that grants none."""

    def config(self) -> RigConfig:
        plain = super().config().model_dump(mode="json")
        return RigConfig.model_validate(plain | {"realtime": {"priority": None}})


@contextmanager
def _strict() -> Iterator[FaultRig]:
    with _Strict() as rig:
        yield rig


def not_realtime(rig: FaultRig, _chance: Random) -> Trial:
    rig.pause(0.5)  # a health report of the arms has been heard
    try:
        rig.stack.ask("arm", "start")
    except AlohaError as refusal:
        named = ARMS_PROCESS in str(refusal) and "no real-time priority" in str(refusal)
        return Trial("" if named else f"the refusal does not say why: {refusal}")
    return Trial("the arms were armed without real-time priority")


REALTIME = Family(
    "realtime",
    _strict,
    (
        Scenario(
            "no real-time priority",
            "refused to arm, unless the rig's configuration says otherwise",
            "",
            None,
            not_realtime,
        ),
    ),
)
