"""Blocks of registers of several servos, read and written in steps that wait for nothing."""

import time
from collections.abc import Iterable, Mapping, Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.packets import Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.hardware.dynamixel_exchange import QUIET_NS
from aloha_runtime.hardware.dynamixel_frames import STATUS_SIZE, write_register
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.steps import Steps

TRIES = 4
"""So often a servo that is missing in the answer to all is asked alone; then it is silent."""

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


def reading(
    port: SerialPort, ids: Sequence[int], address: int, size: int, patience_ns: int
) -> Steps[dict[int, Packet]]:
    """One block of several servos. Who is missing is asked alone, again and again in turns; who stays silent, or has
    not answered within `patience_ns`, is absent. Raises PortLostError."""
    port.flush()
    parser, answers = Parser(), dict[int, Packet]()
    question = packets.sync_read(ids, address, size)
    port.write(question)
    asked_ns = time.monotonic_ns()
    expected_ns = asked_ns + (len(question) + len(ids) * (STATUS_SIZE + size)) * port.byte_ns
    tries = dict.fromkeys(ids, 0)
    while True:
        for packet in parser.feed(port.read()):
            fits = packet.instruction == Instruction.STATUS and len(packet.params) == size + 1
            if fits and tries.pop(packet.id, None) is not None:
                answers[packet.id] = packet
        now = time.monotonic_ns()
        if not tries or now >= asked_ns + patience_ns:
            return answers
        if now >= expected_ns + QUIET_NS:
            servo_id = min(tries, key=tries.__getitem__)
            if tries[servo_id] == TRIES:
                return answers
            tries[servo_id] += 1
            parser.reset()
            question = packets.read(servo_id, address, size)
            port.write(question)
            expected_ns = now + (len(question) + STATUS_SIZE + size) * port.byte_ns
        yield expected_ns


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
