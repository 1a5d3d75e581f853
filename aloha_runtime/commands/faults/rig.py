"""The rig on which faults are tried in real time: two emulated follower arms, the real supervisor and arms processes.

A policy's loop (`drivers`) swings every joint. Nothing else runs, so that the machine has time for what is judged. The
judge is the wire: goals and positions as the monitor of each chain read them, with stamps of the same clock.
"""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from aloha_runtime import messages
from aloha_runtime.commands.faults.canary import Canary
from aloha_runtime.commands.faults.drivers import Drivers, Fault, Server, StartMethod
from aloha_runtime.commands.faults.wire import changes, longest_pause, travel
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MOVING, MS, Action, ArmsState, Health, Mode, ModeHeartbeat
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import SERVOS
from aloha_runtime.run_directory import RIG_FILE
from aloha_runtime.sim.chain_control import Answer, GetReport, GetWire, Peek, Request
from aloha_runtime.sim.monitor import Wire
from aloha_runtime.sim.standalone import EmulatedArm

ARMS = ("follower_left", "follower_right")
FOLLOWER = SERVOS["follower"]
JOINT_IDS = [servo.id for servo in FOLLOWER if servo.joint != "gripper"]
SERVO_PRIORITY = 51
"""Above the arms process: no real servo waits for what else this machine does."""
MOVED_S = (0.3, 0.9)
"""Motion before a fault, drawn for each: a whole swing, so that it comes at any phase."""
READY_S = 60.0
"""A busy machine needs long to import torch."""
LOOK_S = 0.35
"""After this the emulated servos (lag 60 ms) have arrived at their last goals."""
MOST_LOOK_S = 0.7
"""How far back the wire is asked for at once."""
GAP_NS = 10 * MS
"""Two cycles of the arms: a longer pause between their states means that the machine did not let them run."""
POLL_S = 0.02
MOST_HEARD = 4000
DRIVEN_NS = 100 * MS
"""Actions older than this have ended."""
AGREED_NS = 100 * MS
"""Arms that say HOLD for so long are not waiting for a supervisor who says it, too."""
BEFORE_NS = 30 * MS
"""So far before the fault the wire is asked for, too: six cycles."""


@dataclass(frozen=True)
class Look:
    """What was seen after a fault. Times in ms."""

    fault_ns: int
    mode: Mode
    cause: str
    hold_ms: float | None
    still_ms: float
    """From the fault to the last change of any goal on the wire; 0: none."""
    after_action_ms: float
    """The same from the last action."""
    cycles: int
    """Goals that still changed after the last action, in writes of the arms process."""
    travel_rad: float
    """Farthest way of an arm joint since the fault or, where that came later, the last action; by the wire."""
    outside: int
    """Goals outside the envelope since the motion began."""
    torque: bool
    driven: bool
    """Actions still come."""
    pause_ms: float
    """Longest pause between two cycles of the arms in the 70 ms after the last action; 0 where actions still come."""


class FaultRig:
    """A context. `move`, then a fault, then `look`."""

    def __init__(
        self,
        cameras: Mapping[str, str] | None = None,
        size: tuple[int, int] = (48, 64),
        start: StartMethod = "forkserver",
        server: Server | None = None,
        priority: int | None = 50,
    ) -> None:
        """`cameras`: URLs by name, each of `size` (height, width). `start`: of the policy's process.
        `server`: where its network runs instead of in it. `priority`: of the loops, None for ordinary processes."""
        self._priority = priority
        self._start: StartMethod = start
        self._server = server
        self._urls, self._size = dict(cameras or {}), size
        self.driver: BaseProcess | None = None
        self._spoilt = False
        self._at_kill: dict[str, Wire] = {}
        """What the wires had said when a process was last killed or stopped."""
        self.faulty = ""
        """Arm with a servo in error, which somebody must see to."""
        self.heard: list[ArmsState] = []
        self.beats: list[ModeHeartbeat] = []
        self.acted: list[Action] = []
        """States of the arms, words of the supervisor and actions of the policy since the motion began."""
        self.notes: list[str] = []
        """What the stack said."""

    def __enter__(self) -> "FaultRig":
        with contextlib.ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="aloha-faults-")))
            servos = folder / "servos"
            servos.mkdir()
            self.arms = {arm: held.enter_context(EmulatedArm(servos, arm)) for arm in ARMS}
            for arm in self.arms.values():
                with contextlib.suppress(OSError):  # without the right to it the figures are those of a busy machine
                    os.sched_setscheduler(arm.process.pid, os.SCHED_FIFO, os.sched_param(SERVO_PRIORITY))
            self.stack = held.enter_context(self._stack(folder / "run"))
            self.mode = self.stack.bus.subscribe(messages.MODE, depth=100)
            self.states = self.stack.bus.subscribe(messages.FOLLOWERS, depth=400)
            self.actions = self.stack.bus.subscribe(messages.ACTION_POLICY, depth=100)
            self.health = self.stack.bus.subscribe(messages.health_topic("policy"))
            sizes = dict.fromkeys(self._urls, self._size)
            self._drivers = Drivers(self.stack.run_dir / RIG_FILE, self.stack.run_dir, sizes, self._start, self._server)
            held.callback(self.end_driver)
            self.canary = held.enter_context(Canary())
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(AlohaError):  # emulated arms that could not be parked are nobody's loss
            self._held.close()

    def _stack(self, run_dir: Path) -> Stack:
        stack = Stack(self.config(), Job.TELEOP, run_dir, say=self.notes.append)
        stack.table = [process for process in stack.table if process.name != "teleop"]
        return stack

    def config(self) -> RigConfig:
        """A real rig, by its file, whose ports lead to the emulated arms."""
        height, width = self._size
        cameras = {
            name: {"type": "opencv", "device": url, "width": width, "height": height, "fps": 30}
            for name, url in self._urls.items()
        }
        arms = {arm: {"port": str(emulated.port)} for arm, emulated in self.arms.items()}
        plain: dict[str, Any] = {"name": "faults", "kit": "aloha", "arms": arms, "cameras": cameras}
        realtime = {"require": False, "priority": self._priority}
        plain |= {"realtime": realtime, "flight": None}  # its logs would fill the user's own folder
        return RigConfig.model_validate(plain)

    def ask(self, arm: str, request: Request) -> Answer:
        """Put a request to an emulated arm."""
        return self.arms[arm].ask(request)

    def pid(self, name: str) -> int:
        """Of a process of the rig, the policy included."""
        if name != "policy":
            return self.stack.pid(name)
        assert self.driver is not None
        assert self.driver.pid is not None
        return self.driver.pid

    def move(self, chance: Random, fault: Fault = "none") -> None:
        """Arms armed by the operator and moved by a policy for a while. Raises AlohaError when they cannot."""
        if self.driver is None or not self.driver.is_alive() or fault != "none" or self._spoilt:
            self.end_driver()
            self._spoilt = fault != "none"
            self.driver = self._drivers.start(fault)
        self.until(self._under_way, READY_S, "mode POLICY")
        for arm in self.arms:
            self.ask(arm, GetReport(reset=True))
        self.heard.clear()
        self.beats.clear()
        self.acted.clear()
        self.pause(chance.uniform(*MOVED_S))

    def _under_way(self) -> bool:
        heartbeat: ModeHeartbeat | None = self.mode.fresh(time.monotonic_ns())
        mode = None if heartbeat is None else Mode(heartbeat.mode)
        report: Health | None = self.health.fresh(time.monotonic_ns())
        assert self.driver is not None
        if report is None or report.pid != self.driver.pid:
            return False
        with contextlib.suppress(AlohaError):
            if mode is Mode.ARMED:
                self.stack.ask("policy")
            elif mode in MOVING:
                return self._action_ns() > heartbeat.order_ns if heartbeat else False
            elif mode is not None:
                self.stack.ask("arm", "start" if mode is Mode.IDLE else "here")
        return False

    def _action_ns(self) -> int:
        action: Action | None = self.actions.latest()
        return 0 if action is None else action.stamp_ns

    def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """AlohaError with the mode's cause when it does not happen. What died is started again meanwhile."""
        give_up = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > give_up:
                word = self.word()
                raise AlohaError(f"{what} did not happen within {timeout_s:.0f} s ({word.mode}: {word.cause})")
            self.stack.watch()
            self.pause(POLL_S)

    def pause(self, seconds: float) -> None:
        """Let time pass, listening; nothing is started again meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.stack.pause(min(left, POLL_S))
            self.heard += self.states.drain()
            self.beats += self.mode.drain()
            self.acted += self.actions.drain()
            del self.heard[:-MOST_HEARD], self.beats[:-MOST_HEARD], self.acted[:-MOST_HEARD]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process; returns when (monotonic)."""
        pid = self.pid(name)
        now_ns = time.monotonic_ns()
        os.kill(pid, number)
        self._at_kill = {arm: self._wire(arm, now_ns - BEFORE_NS) for arm in self.arms}
        if number == signal.SIGKILL:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) if name != "policy" else self.end_driver()
        return now_ns

    def failed_ns(self, within_s: float = 5.0) -> int:
        """When the policy's own fault began (monotonic). AlohaError when it does not."""
        self.until(lambda: self._drivers.failed_ns.value > 0, within_s, "the policy's fault")
        return int(self._drivers.failed_ns.value)

    def end_driver(self) -> None:
        """The policy is gone afterwards."""
        if self.driver is not None:
            self.driver.kill()
            self.driver.join()
            self.driver = None

    def await_stop(self, fault_ns: int, timeout_s: float) -> tuple[Mode, str, float | None]:
        """Mode, cause, and ms from the fault to HOLD or FAULT, as the supervisor or the arms themselves say it first;
        without one, the mode and cause at the end."""
        give_up, stopped = time.monotonic() + timeout_s, (Mode.HOLD, Mode.FAULT)
        while True:
            said = [beat for beat in self.beats if beat.stamp_ns >= fault_ns and beat.mode in stopped]
            done = [state for state in self.heard if state.stamp_ns >= fault_ns and state.mode in stopped]
            if said or (done and done[-1].stamp_ns - done[0].stamp_ns > AGREED_NS):
                stamps = [message.stamp_ns for message in (*said[:1], *done[:1])]
                cause = said[-1].cause if said else done[-1].hold_cause
                return Mode((said or done)[-1].mode), cause, (min(stamps) - fault_ns) / MS
            if time.monotonic() > give_up:
                return Mode(self.word().mode), self.word().cause, None
            self.pause(POLL_S)

    def look(
        self,
        fault_ns: int,
        stops: bool = True,
        timeout_s: float = 2.0,
        look_s: float = LOOK_S,
        from_fault: bool = False,
    ) -> Look:
        """What became of the motion. `timeout_s`: how long a HOLD may take to come; without `stops` none is waited
        for. `from_fault`: travel counts from the fault, since actions that come later move nobody."""
        self.pause(look_s - (time.monotonic_ns() - fault_ns) / 1e9)
        if stops and self.driven():  # the fault does not end the actions, only HOLD does
            self.await_stop(fault_ns, timeout_s)
            self.pause(LOOK_S)
        driven, last_ns = self.driven(), self._action_ns()
        since_ns = max(min(fault_ns, last_ns) - BEFORE_NS, time.monotonic_ns() - int(MOST_LOOK_S * 1e9))
        wires = {arm: self._wire(arm, since_ns) for arm in self.arms}
        if from_fault:
            for arm, wire in self._at_kill.items():
                wires[arm] = Wire(wire.goals + wires[arm].goals, wire.presents + wires[arm].presents)
        ends = {arm: self.positions(arm) for arm in self.arms}
        mode, cause, hold_ms = self.await_stop(fault_ns, timeout_s if stops else 0.0)
        changed = [changes(wire) for wire in wires.values()]
        latest_ns = max((stamp for stamps in changed for stamp in stamps), default=0)
        reports = [self.ask(arm, GetReport()).report for arm in self.arms]
        start_ns = fault_ns if driven or from_fault else max(fault_ns, last_ns)
        return Look(
            fault_ns,
            mode,
            cause,
            hold_ms,
            still_ms=max(0, latest_ns - fault_ns) / MS,
            after_action_ms=max(0, latest_ns - last_ns) / MS,
            cycles=max(sum(stamp > last_ns for stamp in stamps) for stamps in changed),
            travel_rad=max(travel(wires[arm], ends[arm], start_ns) for arm in self.arms),
            outside=sum(sum(report.counts.values()) for report in reports if report is not None),
            torque=all(self.ask(arm, Peek(servo.id, "Torque_Enable")).value for arm in ARMS for servo in FOLLOWER),
            driven=driven,
            pause_ms=0.0 if driven else longest_pause(self.heard, last_ns, last_ns + 70 * MS) / MS,
        )

    def word(self) -> ModeHeartbeat:
        """The supervisor's last word on the mode."""
        heartbeat: ModeHeartbeat | None = self.mode.latest()
        return heartbeat or ModeHeartbeat(stamp_ns=0, mode=Mode.IDLE, cause="the supervisor has not been heard")

    def _wire(self, arm: str, since_ns: int) -> Wire:
        return self.ask(arm, GetWire(since_ns)).wire or Wire()

    def driven(self) -> bool:
        """Whether actions still come."""
        return time.monotonic_ns() - self._action_ns() < DRIVEN_NS

    def positions(self, arm: str) -> dict[int, int]:
        """Ticks of the arm joints' servos by id, past the bus. A gripper is bounded by its current, not by its way."""
        return {servo: self.ask(arm, Peek(servo, "Present_Position")).value for servo in JOINT_IDS}
