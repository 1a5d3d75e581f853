"""An emulated servo chain in a process of its own, with a wire to its controls: faults, errors, plug, hand, tables."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import Role
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.pty import ChainServer, Terminal
from aloha_runtime.sim.servo import ServoPlant
from aloha_runtime.sim.weight import Stiffness, weight_torques


def stands(role: Role, goals: Sequence[float]) -> NDArray[np.float64]:
    """Where an emulated arm (7, rad) comes to rest with these goals: each joint off its goal by weight / stiffness."""
    goal, stiffness = np.asarray(goals, dtype=np.float64), np.array(Stiffness(role).nm_per_rad)
    angles = goal
    for _ in range(20):
        angles = goal + np.array([*weight_torques(role, angles.tolist()), 0.0]) / stiffness
    return angles


class Emulated:
    """Controls of one emulated arm. `port`: stable name of its adapter."""

    def __init__(self, port: Path, wire: Connection) -> None:
        self.port = str(port)
        self._wire = wire

    def __call__(self, what: str, *arguments: Any, **named: Any) -> Any:
        """Run one of `_Controls` in the chain's process and wait for its answer."""
        self._wire.send((what, arguments, named))
        assert self._wire.poll(10), f"the emulated chain does not answer {what}"
        return self._wire.recv()


class NoMonitor:
    """Stands in for the goal monitor, whose envelope is the gate's: a driver alone may send any goal."""

    def host(self, data: bytes, now_ns: int) -> None: ...

    def servo(self, data: bytes, now_ns: int) -> None: ...


class _Controls:
    """What a test may do to the chain; runs in the chain's process."""

    def __init__(self, port: Path, role: Role, version: int) -> None:
        self._role, self._version = role, version
        self.plant = ServoPlant(role)
        self.server = ChainServer(Chain(role, self.plant, version), Terminal(port), NoMonitor(), None)  # type: ignore[arg-type]
        self.server.terminal.plug()

    @property
    def chain(self) -> Chain:
        return self.server.chain

    def reset(self) -> None:
        """A factory-fresh arm on a plugged adapter."""
        self.plant = ServoPlant(self._role)
        self.server.chain = Chain(self._role, self.plant, self._version)
        if not self.server.terminal.plugged:
            self.server.terminal.plug()

    def faults(self, **faults: Any) -> None:
        self.chain.set_faults(Faults(**faults))

    def error(self, servo_id: int, bits: int) -> None:
        self.chain.raise_error(servo_id, bits)

    def brown_out(self) -> None:
        self.chain.brown_out(self.server.now_ns())

    def cut_power(self) -> None:
        self.server.cut_power()

    def return_power(self) -> None:
        self.chain.return_power(self.server.now_ns())

    def packets(self) -> int:
        return self.chain.packets

    def unplug(self) -> None:
        self.server.unplug()

    def plug(self) -> None:
        self.server.terminal.plug()

    def hand(self, angles: list[float] | None) -> None:
        self.plant.hand = lambda: angles

    def place(self, joint: int, angle: float) -> None:
        self.plant.angles[joint] = angle

    def angles(self) -> list[float]:
        return list(self.plant.read(self.server.now_ns()).angles)

    def get(self, servo_id: int, address: int, size: int) -> int:
        table = self.chain.servos[servo_id - 1].table
        return int.from_bytes(table[address : address + size], "little")

    def set(self, servo_id: int, address: int, size: int, value: int) -> None:
        servo = self.chain.servos[servo_id - 1]
        servo.table[address : address + size] = value.to_bytes(size, "little", signed=value < 0)
        servo.refresh()

    def mount(self, servo_id: int, ticks: int) -> None:
        """Mount a servo's horn again, so far off."""
        servo = self.chain.servos[servo_id - 1]
        servo._mount = (servo._mount[0], ticks)
        servo.refresh()

    def model(self, servo_id: int, number: int) -> None:
        self.chain.servos[servo_id - 1].set(reg.MODEL_NUMBER, number)


def _serve(wire: Connection, port: Path, role: Role, version: int) -> None:
    controls = _Controls(port, role, version)
    stopping = False

    def obey() -> None:
        nonlocal stopping
        try:
            while not stopping and wire.poll():
                what, arguments, named = wire.recv()
                wire.send(getattr(controls, what)(*arguments, **named))
        except EOFError:
            stopping = True

    controls.server.watch(wire.fileno(), lambda: None)  # wakes the server, which then calls `obey`
    wire.send("ready")
    controls.server.serve(lambda: stopping, obey)
    controls.server.close()


@contextmanager
def emulated_chain(port: Path, role: Role, version: int = 46) -> Iterator[Emulated]:
    """A chain behind a pseudo-terminal named `port`, for as long as the context lasts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, port, role, version), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    yield Emulated(port, ours)
    ours.close()
    process.join(10)
    assert process.exitcode == 0
