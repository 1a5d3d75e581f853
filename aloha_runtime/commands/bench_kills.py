"""`aloha bench kills`: every process of the simulated rig killed once while the arms move, judged on the servos' wire.

In virtual time unless asked otherwise, so that the figures do not depend on the machine: what is measured is what the
other processes decide, in their own cycles. The judge is the goal monitor of the emulated chains, which knows nothing
of the gate.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from aloha_runtime import config, messages
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.operate import with_task
from aloha_runtime.commands.stack import Stack
from aloha_runtime.errors import AlohaError, ProcessError
from aloha_runtime.messages import MOVING, MS, Action, ArmsState, Health, Mode, ModeHeartbeat
from aloha_runtime.processes.table import Job
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import RAD_PER_TICK, SERVOS
from aloha_runtime.sim.chain_control import GetReport, Peek, ask
from aloha_runtime.sim.monitor import Report

FOLLOWERS = ("follower_left", "follower_right")
VICTIMS = (
    "camera@cam_high",
    "demonstrator",
    "supervisor",
    "teleop",
    "arms@followers",
    "arms@leaders",
    "chain@leader_left",
    "chain@follower_left",
    "world",
)
"""Of the teleoperation job, one process of each kind."""
MOVE_S = 1.2
"""Motion before a kill: the demonstration's first reach, at its fastest."""
LOOK_S = 0.9
"""How long the arms are watched after a kill, before the stack starts the process again."""
AGAIN_S = 30.0
"""Starting again, the ramp to the start pose and the squeeze, in virtual time, which a slow import lets run away."""
FROZEN_MS = 70.0
TRAVEL_RAD = 0.27
"""From the last action; and from the death of the arms process:"""
ARMS_TRAVEL_RAD = 0.30
SEED = 3
DRIVEN_NS = 100 * MS
"""Actions older than this have ended."""


@dataclass(frozen=True)
class Outcome:
    """What happened when one process was killed. Times on the rig's clock."""

    victim: str
    mode: Mode
    """Of the follower arms `LOOK_S` later; of the supervisor, when the arms were killed."""
    cause: str
    driven: bool
    """Actions still come at the end of the look: this death does not end the motion."""
    after_kill_ms: float
    """Last change of any follower's goal after the kill (0: none)."""
    after_action_ms: float
    """The same after the last action."""
    travel_rad: float
    """Farthest way of a follower's joint since the kill; since the last action, where that came later."""
    outside: int
    """Goals outside the envelope, from the motion before to the end of the look."""
    torque: bool
    """Every servo of the followers has torque."""
    again: str
    """Why the arms could not be armed and moved once more after the restart; empty when they could."""

    @property
    def allowed_rad(self) -> float:
        """How far a joint may travel."""
        return ARMS_TRAVEL_RAD if self.victim == "arms@followers" else TRAVEL_RAD

    @property
    def stopped(self) -> bool:
        """No joint travelled further than it may."""
        return self.travel_rad <= self.allowed_rad


def run(checkpoint: str = "demo", clock: Literal["virtual", "wall"] = "virtual") -> list[Row]:
    """Every process of the teleoperation job, then the policy of a deploy job. Prints a table of its own."""
    found = [
        *outcomes(Job.DEMONSTRATE, VICTIMS, clock=clock),
        *outcomes(Job.DEPLOY, ("policy",), checkpoint, clock),
    ]
    Console().print(table(found))
    return [row for outcome in found for row in rows(outcome)]


def outcomes(
    job: Job, victims: Sequence[str], checkpoint: str = "", clock: Literal["virtual", "wall"] = "virtual"
) -> list[Outcome]:
    """Kill these one after the other in one running system."""
    rig = with_task(config.load("sim"), SEED, None, clock)
    rig = rig.model_copy(update={"flight": None})  # its logs would fill the user's own folder
    say = Console(stderr=True).print
    with (
        tempfile.TemporaryDirectory(prefix="aloha-kills-") as folder,
        Stack(rig, job, Path(folder) / "run", checkpoint, say=say) as stack,
    ):
        system = _System(stack, Mode.POLICY if job is Job.DEPLOY else Mode.TELEOP)
        system.move()
        return [system.kill(victim) for victim in victims]


class _System:
    """One running system, disturbed again and again."""

    def __init__(self, stack: Stack, mode: Mode) -> None:
        self.stack = stack
        self.mode = mode
        self.actions = stack.bus.subscribe(messages.ACTION_TOPIC[mode])
        self.followers = stack.bus.subscribe(messages.FOLLOWERS)
        self._arms: Sequence[str] = FOLLOWERS
        self._killed = 0

    def move(self) -> None:
        """Arms and objects to where they start, then in motion for a while. Raises AlohaError when they cannot."""
        if self._supervisor() in MOVING:
            self.stack.ask("stop")
        self.stack.ask("reset", str(SEED))
        self.stack.wait(self._under_way, AGAIN_S, f"mode {self.mode}")
        for arm in FOLLOWERS:
            ask(self.stack.run_dir, arm, GetReport(reset=True))
        self.stack.pause(MOVE_S)

    def kill(self, victim: str) -> Outcome:
        """Kill a process while the arms move, and look; then let it start again, and move once more."""
        self._arms = [arm for arm in FOLLOWERS if victim != f"chain@{arm}"]  # whose monitor lives on
        kill_ns = self.stack.clock.now_ns()
        self._killed = _kill(self.stack.pid(victim))
        ways = self._ways()
        end_ns = self.stack.clock.now_ns()
        reports = [ask(self.stack.run_dir, arm, GetReport()).report or Report() for arm in self._arms]
        change_ns = max(stamp_ns for report in reports for stamp_ns in report.last_change_ns.values())
        action: Action | None = self.actions.latest()
        assert action is not None
        driven = end_ns - action.stamp_ns < DRIVEN_NS
        mode, cause = self._mode(victim)
        return Outcome(
            victim=victim,
            mode=mode,
            cause=cause,
            driven=driven,
            after_kill_ms=max(0, change_ns - kill_ns) / MS,
            after_action_ms=max(0, change_ns - action.stamp_ns) / MS,
            travel_rad=_travel(ways, kill_ns if driven else max(kill_ns, action.stamp_ns)),
            outside=sum(sum(report.counts.values()) for report in reports),
            torque=all(self._look("Torque_Enable")),
            again=self._again(victim),
        )

    def _ways(self) -> list[tuple[int, list[int]]]:
        """Stamps and positions of every servo from now on for `LOOK_S`. Nothing is started again meanwhile."""
        end_ns = self.stack.clock.now_ns() + int(LOOK_S * NS_PER_S)
        ways = [(self.stack.clock.now_ns(), self._look("Present_Position"))]
        while ways[-1][0] < end_ns:
            self.stack.pause()
            self._hear()
            ways.append((self.stack.clock.now_ns(), self._look("Present_Position")))
        return ways

    def _look(self, register: str) -> list[int]:
        """A register of every servo of the followers, past the bus."""
        run_dir, servos = self.stack.run_dir, SERVOS["follower"]
        return [ask(run_dir, arm, Peek(servo.id, register)).value for arm in self._arms for servo in servos]

    def _again(self, victim: str) -> str:
        """Why the arms do not move again once the process is back; empty when they do."""
        try:
            self.stack.wait(lambda: self._is_back(victim), AGAIN_S, f"the return of {victim}")
            self.move()
        except ProcessError:
            raise  # the system is at its end
        except AlohaError as error:
            return str(error)
        return ""

    def _is_back(self, victim: str) -> bool:
        self._hear()
        report: Health | None = self.stack.health[victim].latest()
        return report is not None and report.pid != self._killed

    def _hear(self) -> None:
        """Read everything: in virtual time a publisher that starts again waits until its subscribers have looked."""
        for subscriber in (self.actions, self.followers):
            subscriber.latest()

    def _supervisor(self) -> Mode | None:
        heartbeat: ModeHeartbeat | None = self.stack.mode.fresh(self.stack.clock.now_ns())
        return None if heartbeat is None else Mode(heartbeat.mode)

    def _mode(self, victim: str) -> tuple[Mode, str]:
        heartbeat: ModeHeartbeat | None = self.stack.mode.latest()
        arms: ArmsState | None = self.followers.latest()
        assert heartbeat is not None
        assert arms is not None
        if victim == "arms@followers":
            return Mode(heartbeat.mode), heartbeat.cause
        return Mode(arms.mode), arms.hold_cause or heartbeat.cause

    def _under_way(self) -> bool:
        """Whether the arms follow; asks for the next step, as often as it is refused or the arms go back to HOLD."""
        self._hear()
        mode = self._supervisor()
        with contextlib.suppress(AlohaError):
            if mode is Mode.ARMED and self.mode is Mode.POLICY:
                self.stack.ask("policy")
            elif mode not in (Mode.ARMED, self.mode):  # from ARMED the squeeze of the leaders goes on to TELEOP
                self.stack.ask("arm", "start")
        return mode is self.mode


def _kill(pid: int) -> int:
    """SIGKILL, and wait until the kernel has closed everything it had: virtual time then goes on without it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def _travel(ways: Sequence[tuple[int, list[int]]], since_ns: int) -> float:
    """Farthest way of a servo between an instant and the end (rad)."""
    start = max((way for way in ways if way[0] <= since_ns), key=lambda way: way[0], default=ways[0])[1]
    return max(abs(now - then) for now, then in zip(ways[-1][1], start, strict=True)) * RAD_PER_TICK


def rows(outcome: Outcome) -> list[Row]:
    """The figures of one kill. No time is promised where the motion may go on."""
    name = f"{outcome.victim} killed"
    frozen = (
        []
        if outcome.driven
        else [
            Row(
                f"{name}: goals still after the last action",
                outcome.after_action_ms,
                "ms",
                None,
                FROZEN_MS,
                outcome.after_action_ms <= FROZEN_MS,
            ),
            Row(f"{name}: travel", outcome.travel_rad, "rad", None, outcome.allowed_rad, outcome.stopped),
        ]
    )
    return [
        *frozen,
        Row(f"{name}: goals outside the envelope", outcome.outside, "", None, 0, outcome.outside == 0),
        Row(f"{name}: armed and moved again", float(not outcome.again), "", None, 1, not outcome.again),
    ]


def table(found: Iterable[Outcome]) -> Table:
    """One line for each kill, within 80 columns."""
    drawn = Table(
        title="killed while the arms move",
        caption="still: ms from the kill (from the last action) to the last change of a follower's goal; "
        "travel: farthest way of a joint since then, rad",
        box=None,
    )
    for heading in ("process", "arms", "still", "(action)", "travel", "outside", "torque", "moved again"):
        drawn.add_column(heading)
    for one in found:
        drawn.add_row(
            one.victim,
            str(one.mode),
            "no" if one.driven else f"{one.after_kill_ms:.0f}",
            "" if one.driven else f"{one.after_action_ms:.0f}",
            f"{one.travel_rad:.3f}",
            str(one.outside),
            "on" if one.torque else "off",
            one.again or "yes",
        )
    return drawn
