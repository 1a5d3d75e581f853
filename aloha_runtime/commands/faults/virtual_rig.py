"""A rig of four emulated arms in one process and in virtual time: the real loops of supervisor and arms, turn by turn.

`ArmsLoop`, `SupervisorLoop`, the driver and the chains are those of the real rig; what is replaced is the operating
system: bus, clock, and the bytes of a serial port. Each loop has a time of its own, which goes on while the driver
waits for a servo; messages are heard by others when they were sent, not earlier. So a trial takes as long as it
computes, and comes out the same every time.
"""

import contextlib
import heapq
import logging
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aloha_runtime import messages, witnesses
from aloha_runtime.commands.faults.virtual_parts import EPOCH_NS, Bus, PromptEcho, Time, Wire, WirePort
from aloha_runtime.config import RigConfig
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.hardware import dynamixel
from aloha_runtime.messages import MS, ModeHeartbeat, Reply, Request
from aloha_runtime.processes import arms as arms_process
from aloha_runtime.processes import supervisor as supervisor_process
from aloha_runtime.processes.arms import ArmsLoop
from aloha_runtime.processes.supervisor import OPERATOR, SupervisorLoop
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import ROLES, SIDES, Role
from aloha_runtime.sim.goal_track import envelope
from aloha_runtime.sim.monitor import Monitor
from aloha_runtime.sim.servo import ServoPlant

RUN_DIR = Path("/virtual")
TICK_NS = 20 * MS
JITTER_S = 0.004
"""Of the monitor: stamps are exact, but a loop that waits for a servo sends its goals late."""


@dataclass
class Loop:
    """Something that has a turn every `period_ns`, on a time of its own."""

    name: str
    period_ns: int
    turn: Callable[[int], None]
    due_ns: int = EPOCH_NS
    stopped_until_ns: int = 0


class VirtualRig:
    """A context. `run` lets time pass; `ask` is the operator."""

    def __init__(
        self, rig: RigConfig, plants: Callable[[str], ServoPlant], drive: Callable[[Bus, int], None] | None = None
    ) -> None:
        """`plants`: what stands behind each arm's servos. `drive`: called every 20 ms, sends actions and health."""
        self.rig = rig.model_copy(update={"guard": None, "flight": None})
        self.time = Time()
        self.bus = Bus(self.time)
        self.mode = self.bus.subscribe(messages.MODE)
        self.beats: list[ModeHeartbeat] = []
        self.wires = {f"{role}_{side}": self._wire(role, side, plants) for role in ROLES for side in SIDES}
        self._drive = drive
        self._loops: list[tuple[int, int, Loop]] = []

    def _wire(self, role: Role, side: Any, plants: Callable[[str], ServoPlant]) -> Wire:
        limits = rig_limits(self.rig.limits, self.rig.deploy, role)
        monitor = Monitor(envelope(role, limits, self.rig.gripper(role, side), side), JITTER_S)
        return Wire(self.time, f"{role}_{side}", role, plants(f"{role}_{side}"), monitor)

    def __enter__(self) -> "VirtualRig":
        with contextlib.ExitStack() as held:
            for module in _with_time():
                held.enter_context(mock.patch.object(module, "time", self.time))
            for module in (witnesses, supervisor_process):  # a real echo would be late for a time that runs faster
                held.enter_context(mock.patch.object(module, "Echo", PromptEcho))
            held.enter_context(mock.patch.object(dynamixel, "SerialPort", self._port))
            self.arms = {role: ArmsLoop(self.service(f"arms@{role}s")) for role in ROLES}
            for pair in self.arms.values():
                pair.connect()
            self.supervisor = SupervisorLoop(self.service("supervisor"))
            self._held = held.pop_all()
        start_ns = self.time.now // TICK_NS * TICK_NS + TICK_NS
        loops = [Loop(f"arms@{role}s", pair.period_ns, pair.cycle) for role, pair in self.arms.items()]
        loops += [Loop("supervisor", TICK_NS, self._supervise), Loop("driver", TICK_NS, self._send)]
        for order, loop in enumerate(loops):
            loop.due_ns = start_ns
            heapq.heappush(self._loops, (start_ns, order, loop))
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _port(self, path: str, baud: int) -> WirePort:
        return WirePort(self.wires[Path(path).name.removeprefix("ttyDXL_")], baud)

    def service(self, name: str) -> Any:
        clock = SimpleNamespace(virtual=False, now_ns=lambda: self.time.now)
        log = logging.getLogger(f"aloha.virtual.{name}")
        log.setLevel(logging.CRITICAL)
        service = SimpleNamespace(name=name, instance=name.partition("@")[2], rig=self.rig, run_dir=RUN_DIR)
        service.clock, service.bus, service.log, service.stopping = clock, self.bus, log, False
        service.stop = lambda: setattr(service, "stopping", True)
        return service

    def _supervise(self, _now_ns: int) -> None:
        self.supervisor.cycle()
        self.beats.append(self.mode.latest())

    def _send(self, now_ns: int) -> None:
        if self._drive is not None:
            self._drive(self.bus, now_ns)

    def add(self, loop: Loop) -> None:
        """Another loop, from now on."""
        loop.due_ns = self.now_ns
        heapq.heappush(self._loops, (loop.due_ns, len(self._loops), loop))

    @property
    def now_ns(self) -> int:
        """When the next turn is due: everything before has happened."""
        return self._loops[0][0]

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Let so much time pass; `each` is called after every turn of the supervisor."""
        end_ns = self.now_ns + int(seconds * NS_PER_S)
        while self._loops[0][0] < end_ns:
            due_ns, order, loop = heapq.heappop(self._loops)
            self.time.now = max(due_ns, loop.due_ns)
            if loop.stopped_until_ns <= self.time.now:
                loop.turn(self.time.now)
            # A turn that took longer than its period loses beats, as `realtime.Pacer` does.
            loop.due_ns = due_ns + loop.period_ns * max(1, -(-(self.time.now - due_ns) // loop.period_ns))
            heapq.heappush(self._loops, (loop.due_ns, order, loop))
            if each is not None and loop.name == "supervisor":
                each()
        for wire in self.wires.values():
            self.time.now = max(self.time.now, end_ns)
            wire.advance(end_ns)

    def stop_process(self, name: str, seconds: float) -> None:
        """A process gets no turn for a while."""
        for _, _, loop in self._loops:
            if loop.name == name:
                loop.stopped_until_ns = self.now_ns + int(seconds * NS_PER_S)

    def ask(self, verb: str, argument: str = "") -> Reply:
        """An operator's request, and the answer to it."""
        count = len(self.bus.replies)
        self.bus.requests.append(Request(verb=verb, argument=argument, sender=OPERATOR))
        while len(self.bus.replies) == count:
            self.run(TICK_NS / 1e9)
        return self.bus.replies[-1]

    @property
    def word(self) -> ModeHeartbeat:
        """The supervisor's last word."""
        return self.beats[-1]


def _with_time() -> Iterator[types.ModuleType]:
    """Modules of the driver and of the arms process that look at the clock themselves."""
    for name, module in list(sys.modules.items()):
        mine = name.startswith("aloha_runtime.hardware.") or module is arms_process
        if mine and getattr(module, "time", None) is sys.modules["time"]:
            yield module
