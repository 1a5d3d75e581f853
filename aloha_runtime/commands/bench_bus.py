"""The servo bus: the runtime's own cycle against dynamixel-sdk's group reads, on emulated arms, in one run.

Each arm is a process of its own that keeps the time of a 1 Mbps wire. A cycle is the same work for all: goals of seven
joints out, current, velocity and position of seven joints in, converted to rad, rad/s and mA. CPU is that of this
process alone, which runs one client at a time; the clients take turns, so that the machine's other work falls on all.
"""

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from dynamixel_sdk import COMM_SUCCESS, GroupSyncRead, GroupSyncWrite, PortHandler, Protocol2PacketHandler

from aloha_runtime.commands.bench import Row
from aloha_runtime.dynamixel.registers import (
    GOAL_POSITION,
    PRESENT_CURRENT,
    PRESENT_POSITION,
    PRESENT_VELOCITY,
    STATE_BLOCK,
    Register,
)
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock
from aloha_runtime.robot import (
    MA_PER_UNIT,
    RAD_S_PER_UNIT,
    ROLES,
    SERVOS,
    SIDES,
    START_POSE,
    Role,
    rad_to_ticks,
    ticks_to_rad,
)
from aloha_runtime.sim.standalone import EmulatedArm

PACE_HZ = 200
RATE_GOAL_HZ = 0.95 * PACE_HZ
"""Whole readings a second and arm; a machine too busy for that says nothing about the cost of 200 Hz."""
ROUNDS = 4
CPU_GOAL_PERCENT = 10.0
"""Four arms at 200 Hz, of one core (in production: two processes of two arms)."""
CPU_RATIO_GOAL = 7.0
REPLY_NS = 20 * 1_000_000
"""Patience of the free-running arm; the paced ones have their period."""
ARMS: tuple[tuple[str, Role], ...] = tuple((f"{role}_{side}", role) for role in ROLES for side in SIDES)
GOAL = (*START_POSE, 0.0)
"""Where the emulated arms stand, rad."""
WAYS = ("own", "sdk sync", "sdk fast")


_Drive: TypeAlias = Callable[[Sequence["Client"], int], tuple[int, int]]
"""(clients, end in monotonic ns) -> (arm cycles tried, arm cycles with a whole reading)."""


class Client(Protocol):
    """One arm, driven in one way. `send` and `receive` make a cycle; `receive` says whether the reply was whole."""

    def send(self) -> None: ...

    def receive(self, deadline_ns: int) -> bool: ...

    def close(self) -> None: ...


class OwnClient:
    """The runtime's driver."""

    def __init__(self, name: str, role: Role, port: Path) -> None:
        self._arm = DynamixelArm(name, role, str(port))
        self._arm.connect()
        self._arm.torque(True)
        self._goal = np.array(GOAL)

    def send(self) -> None:
        if self._arm.rearm_cause:  # another client had the bus, or the machine stalled: the watchdog has tripped
            self._arm.torque(True)
        self._arm.request(self._goal)

    def receive(self, deadline_ns: int) -> bool:
        return self._arm.collect(deadline_ns) is not None

    def close(self) -> None:
        self._arm.torque(False)
        self._arm.disconnect()


class SdkClient:
    """dynamixel-sdk as its examples use it."""

    def __init__(self, role: Role, port: Path, fast: bool) -> None:
        self._ids = [servo.id for servo in SERVOS[role] if servo.shadow_of is None]
        self._port = PortHandler(str(port))
        self._port.openPort()
        self._port.setBaudRate(1_000_000)
        handler = Protocol2PacketHandler()
        self._read = GroupSyncRead(self._port, handler, *STATE_BLOCK)
        self._write = GroupSyncWrite(self._port, handler, GOAL_POSITION.address, GOAL_POSITION.size)
        for servo_id in self._ids:
            self._read.addParam(servo_id)
        self._exchange: Callable[[], int] = self._read.fastSyncRead if fast else self._read.txRxPacket
        self._goals = dict(zip(self._ids, GOAL, strict=True))

    def send(self) -> None:
        for servo_id, angle in self._goals.items():
            self._write.addParam(servo_id, rad_to_ticks(angle).to_bytes(4, "little"))
        self._write.txPacket()
        self._write.clearParam()

    def receive(self, deadline_ns: int) -> bool:
        try:
            ok = bool(self._exchange() == COMM_SUCCESS)
        except IndexError:  # its fast read takes any late packet for the answer and runs off its end
            ok = False
        self.angles = [ticks_to_rad(tick) for tick in self._values(PRESENT_POSITION)]
        self.velocities = [raw * RAD_S_PER_UNIT for raw in self._values(PRESENT_VELOCITY)]
        self.currents_ma = [raw * MA_PER_UNIT for raw in self._values(PRESENT_CURRENT)]
        return ok

    def _values(self, register: Register) -> list[int]:
        sign = 1 << 8 * register.size - 1
        raw = (self._read.getData(servo_id, register.address, register.size) for servo_id in self._ids)
        return [(value ^ sign) - sign for value in raw]

    def close(self) -> None:
        self._port.closePort()


@dataclass
class Sums:
    """What one case took in all rounds. `cycles`: arm cycles that ended with a whole reading."""

    cycles: int = 0
    tried: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def hz(self, arms: int) -> float:
        return self.cycles / self.wall_s / arms

    def cpu_ms_per_cycle(self) -> float:
        return 1000 * self.cpu_s / self.tried

    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.wall_s


def run(seconds: float) -> list[Row]:
    """Measure every client for `seconds`, with one arm free running and again with four arms paced; six times that."""
    gc.collect()
    gc.freeze()  # as every process of the runtime does
    free = {way: Sums() for way in WAYS}
    paced = {way: Sums() for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="aloha-bench-") as directory, ExitStack() as stack:
        ports = {arm: stack.enter_context(EmulatedArm(Path(directory), arm)).port for arm, _ in ARMS}
        for _ in range(ROUNDS):
            for way in WAYS:
                _measure(free[way], _free, way, dict([*ports.items()][:1]), seconds)
                drive = _paced_in_one_thread if way == "own" else _paced_in_threads
                _measure(paced[way], drive, way, ports, seconds)
    return _rows(free, paced)


def _measure(sums: Sums, drive: _Drive, way: str, ports: dict[str, Path], seconds: float) -> None:
    roles = dict(ARMS)
    clients = [_client(way, arm, roles[arm], port) for arm, port in ports.items()]
    cpu, wall = time.process_time(), time.monotonic()
    tried, cycles = drive(clients, time.monotonic_ns() + int(seconds / ROUNDS * NS_PER_S))
    sums.cpu_s += time.process_time() - cpu
    sums.wall_s += time.monotonic() - wall
    sums.tried += tried
    sums.cycles += cycles
    for client in clients:
        client.close()


def _client(way: str, arm: str, role: Role, port: Path) -> Client:
    return OwnClient(arm, role, port) if way == "own" else SdkClient(role, port, fast=way == "sdk fast")


def _free(clients: Sequence[Client], end_ns: int) -> tuple[int, int]:
    """One arm as fast as the bus allows: (cycles tried, cycles with a whole reading)."""
    (client,) = clients
    tried = whole = 0
    while (now := time.monotonic_ns()) < end_ns:
        client.send()
        whole += client.receive(now + REPLY_NS)
        tried += 1
    return tried, whole


def _paced_in_one_thread(clients: Sequence[Client], end_ns: int) -> tuple[int, int]:
    """All requests, then all replies, 200 times a second: how the arms process does it."""
    clock = WallClock()
    pacer = Pacer(clock, NS_PER_S // PACE_HZ)
    tried = whole = 0
    while clock.now_ns() < end_ns:
        pacer.wait()
        deadline_ns = clock.now_ns() + NS_PER_S // PACE_HZ
        for client in clients:
            client.send()
        for client in reversed(clients):  # when the last one asked has answered, so have the others
            whole += client.receive(deadline_ns)
        tried += len(clients)
    return tried, whole


def _paced_in_threads(clients: Sequence[Client], end_ns: int) -> tuple[int, int]:
    """One thread an arm, since the SDK's read blocks."""
    counts: list[tuple[int, int]] = []
    threads = [
        threading.Thread(target=lambda client=client: counts.append(_paced_in_one_thread([client], end_ns)))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(tried for tried, _ in counts), sum(whole for _, whole in counts)


def _rows(free: dict[str, Sums], paced: dict[str, Sums]) -> list[Row]:
    rows = []
    for peer in WAYS[1:]:
        own, theirs = free["own"], free[peer]
        rows += [
            Row(f"one arm free running, against {peer} read", own.hz(1), "Hz", theirs.hz(1)),
            Row(f"CPU of its cycle, against {peer} read", own.cpu_ms_per_cycle(), "ms", theirs.cpu_ms_per_cycle()),
        ]
    for peer in WAYS[1:]:
        own, theirs = paced["own"], paced[peer]
        hz, cpu = own.hz(len(ARMS)), own.cpu_percent()
        kept = hz >= RATE_GOAL_HZ  # a client that cannot keep its pace must not look cheap
        met = kept and cpu <= CPU_GOAL_PERCENT
        rows += [
            Row(f"four arms paced, against {peer} read", hz, "Hz", theirs.hz(len(ARMS)), RATE_GOAL_HZ, kept),
            Row(f"CPU of them, against {peer} read", cpu, "% of a core", theirs.cpu_percent(), CPU_GOAL_PERCENT, met),
        ]
    ratio = paced["sdk fast"].cpu_ms_per_cycle() / paced["own"].cpu_ms_per_cycle()
    name = "CPU a paced cycle, sdk fast read over own"
    return [*rows, Row(name, ratio, "times", None, CPU_RATIO_GOAL, ratio >= CPU_RATIO_GOAL)]
