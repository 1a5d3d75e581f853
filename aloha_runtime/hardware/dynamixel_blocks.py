"""Blocks of registers of several servos, read and written in steps that wait for nothing."""

import time
from collections.abc import Iterable, Mapping, Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.hardware.dynamixel_exchange import BlockRead
from aloha_runtime.hardware.dynamixel_frames import write_register
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.steps import Steps

ASK_NS = 20_000_000
"""Pause between two pings of a servo that restarts; each of them feeds the watchdogs of its neighbours."""
RESTART_NS = 2_000_000_000
"""A servo that restarts is back in a quarter of a second; after this it will not come back."""


def rebooting(port: SerialPort, servo_id: int) -> Steps[None]:
    """Reboot a servo and wait until it answers again, or never will. Raises PortLostError."""
    port.flush()
    port.write(packets.reboot(servo_id))
    end_ns = time.monotonic_ns() + RESTART_NS
    yield time.monotonic_ns() + ASK_NS  # the answer to the reboot itself
    port.flush()
    parser = Parser()
    while (now := time.monotonic_ns()) < end_ns:
        port.write(packets.ping(servo_id))
        yield now + ASK_NS
        if any(packet.id == servo_id for packet in parser.feed(port.read())):
            return


def reading(port: SerialPort, ids: Sequence[int], address: int, size: int, patience_ns: int) -> Steps[BlockRead]:
    """One block of several servos. Who is missing is asked alone, again and again in turns; who stays silent, or has
    not answered within `patience_ns`, is absent. Raises PortLostError."""
    block = BlockRead(port, ids, address, size, patience_ns)
    while not block.poll():
        yield block.due_ns
    return block


def writing(port: SerialPort, writes: Iterable[tuple[Register, Mapping[int, int]]]) -> Steps[None]:
    """Registers of several servos, by Sync Writes right behind each other: nobody answers, so read them back. Raises
    PortLostError."""
    on_wire_ns = time.monotonic_ns()
    for register, values in writes:
        if values:
            packet = write_register(register, values)
            port.write(packet)
            on_wire_ns += len(packet) * port.byte_ns
    yield on_wire_ns
