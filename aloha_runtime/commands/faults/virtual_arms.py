"""Emulated arms of one role on virtual wires, in one process and in virtual time: driver, pair, chains."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.commands.faults.virtual_parts import Time, Wire, WirePort
from aloha_runtime.config_parts import ARM_LEAD_RAD
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.hardware import dynamixel
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.hardware.dynamixel_torque import PATIENCE_NS, TorqueSwitch
from aloha_runtime.hardware.goal_memory import GoalMemory
from aloha_runtime.hardware.pair import ArmPair, PairReading
from aloha_runtime.robot import (
    CENTRE_TICK,
    KITS,
    RAD_PER_TICK,
    SERVOS,
    SIDES,
    START_POSE,
    Role,
    Side,
    Vector,
    pose_vector,
)
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.servo import ServoPlant

MS = 1_000_000
CYCLE_NS = 5 * MS
LEAD_RAD = ARM_LEAD_RAD
MASTER_IDS = [servo.id for servo in SERVOS["follower"] if servo.shadow_of is None]


@contextlib.contextmanager
def virtual_time(time: Time) -> Iterator[None]:
    """The driver's modules look at this clock."""
    real = sys.modules["time"]
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("aloha_runtime.hardware.")]
    with contextlib.ExitStack() as held:
        for module in modules:
            if getattr(module, "time", None) is real:
                held.enter_context(mock.patch.object(module, "time", time))
        yield


class NoMonitor:
    """Stands in for the goal monitor, whose envelope is the gate's: a driver alone may send any goal."""

    def host(self, data: bytes, now_ns: int) -> None: ...

    def servo(self, data: bytes, now_ns: int) -> None: ...


class SingleArm:
    """One chain, whose pairs are mounted exactly, and the switch that gives it torque."""

    def __init__(self, role: Role, faults: Faults | None = None, plant: ServoPlant | None = None) -> None:
        self.role, self.time = role, Time()
        self.plant = plant or ServoPlant(role)
        self.wire = Wire(self.time, role, role, self.plant, NoMonitor())  # type: ignore[arg-type]
        self.chain = self.wire.chain = Chain(role, self.plant, mounts={})
        self.chain.set_faults(faults or Faults())
        port: Any = WirePort(self.wire, 1_000_000)
        told = GoalMemory(MASTER_IDS)
        self.switch = TorqueSwitch(port, role, SERVOS[role], 538.0, LEAD_RAD, PATIENCE_NS, told)

    def get(self, servo_id: int, register: reg.Register) -> int:
        return self.chain.peek(servo_id, register, self.time.now)

    def turn(self, joint: int, ticks: int) -> None:
        """A hand turns a joint without torque until its master's encoder has counted this far."""
        self.plant.angles[joint] = (ticks - CENTRE_TICK) * RAD_PER_TICK

    def pass_ms(self, ms: float) -> None:
        """Let time pass with something on the bus that keeps the watchdogs quiet."""
        for _ in range(round(ms / 5)):
            self.time.now += CYCLE_NS
            self.wire.advance(self.time.now)
            self.chain.receive(dynamixel.FEED, self.time.now)


class Pair:
    """Both arms of a role under a pair. A context."""

    def __init__(self, role: Role, faults: Faults | None = None) -> None:
        self.role, self.time = role, Time()
        self.wires: dict[Side, Wire] = {
            side: Wire(self.time, f"{role}_{side}", role, ServoPlant(role), NoMonitor())  # type: ignore[arg-type]
            for side in ("left", "right")
        }
        for wire in self.wires.values():
            wire.chain.set_faults(faults or Faults())

    def __enter__(self) -> "Pair":
        with contextlib.ExitStack() as held:
            self._folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="aloha-faults-")))
            held.enter_context(virtual_time(self.time))
            held.enter_context(mock.patch.object(dynamixel, "SerialPort", self._port))
            self.connect()
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _port(self, path: str, baud: int) -> WirePort:
        return WirePort(self.wires["left" if "left" in path else "right"], baud)

    def connect(self) -> None:
        """New drivers, as of a program that has just started."""
        now = self.time.monotonic_ns
        arms = {
            side: DynamixelArm(
                f"{self.role}_{side}", self.role, f"/{side}", memory=self._folder / f"{side}.goals", now=now
            )
            for side in self.wires
        }
        self.pair = ArmPair(arms, dict.fromkeys(SIDES, KITS["aloha"].gripper(self.role)), pose_vector(START_POSE, 0.0))
        self.pair.connect()

    def cycle(self, goal: Vector | None = None, count: int = 1) -> PairReading | None:
        """Cycles of 5 ms."""
        reading = None
        for _ in range(count):
            start_ns = self.time.now
            reading = self.pair.cycle(goal, start_ns + 4 * MS)
            self.time.now = max(self.time.now, start_ns + CYCLE_NS)
            for wire in self.wires.values():
                wire.advance(self.time.now)
        return reading

    def leave(self, ms: float) -> None:
        """Let time pass with nothing on the wires, as when the program is gone."""
        for _ in range(round(ms / 5)):
            self.time.now += CYCLE_NS
            for wire in self.wires.values():
                wire.advance(self.time.now)

    def angles(self, side: Side) -> NDArray[np.float64]:
        return np.array(self.wires[side].plant.read(self.time.now).angles)

    def registers(self, side: Side, register: reg.Register, ids: Sequence[int] = range(1, 10)) -> list[int]:
        """A register of every servo of an arm."""
        return [self.wires[side].chain.peek(i, register, self.time.now) for i in ids]
