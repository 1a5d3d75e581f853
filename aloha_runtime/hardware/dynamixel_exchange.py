"""Exchanges with a chain outside the SDK: one status packet per servo, asking again those that are missing.

Used where a Fast Sync Read failed or is not supported, and for the few block reads and writes that switch torque.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_frames import STATUS_SIZE, write_register
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.steps import STEP_NS, Steps

QUIET_NS = 1_500_000
"""A servo that said nothing for this long after its turn counts as silent: the adapter holds bytes back up to 1 ms."""


def pause(now_ns: int, expected_ns: int, deadline_ns: int) -> None:
    """Sleep until a reply is expected, or for one step when it is overdue, never past the deadline."""
    left = min(max(expected_ns - now_ns, STEP_NS), deadline_ns - now_ns)
    if left > 0:
        time.sleep(left / 1e9)


class Gathering:
    """Status packets with `size` bytes of data from `ids`, as they come in.

    `answers`: by servo id. `strays`: packets that belong to nothing asked here. `expected_ns`: when the answers should
    be complete, moved on with each question. Servos missing QUIET_NS later are asked one by one with `single(id)`, in
    the order of `ids`; `in_vain` of them where nobody has answered, because then the whole chain may be late, and more
    questions would make it later.
    """

    def __init__(
        self,
        parser: Parser,
        ids: Sequence[int],
        size: int,
        single: Callable[[int], bytes],
        expected_ns: int,
        in_vain: int = 1,
    ) -> None:
        self.answers: dict[int, Packet] = {}
        self.strays: list[Packet] = []
        self._parser = parser
        self._wanted = list(ids)
        self._size = size
        self._single = single
        self.expected_ns = expected_ns
        self._in_vain = in_vain

    def run(self, port: SerialPort, deadline_ns: int) -> bool:
        """Go on until all have answered (True) or `deadline_ns`. Raises PortLostError."""
        while not self.poll(port, deadline_ns):
            now = time.monotonic_ns()
            if now >= deadline_ns:
                return False
            pause(now, self.expected_ns, deadline_ns)
        return True

    def poll(self, port: SerialPort, deadline_ns: int) -> bool:
        """Take in what has arrived, ask again where that is due before `deadline_ns`; True when all have answered.
        Raises PortLostError."""
        for packet in self._parser.feed(port.read()):
            self._take(packet)
        now = time.monotonic_ns()
        overdue = self.expected_ns + QUIET_NS <= now < deadline_ns
        if self._wanted and overdue and (self.answers or self._in_vain > 0):
            self._ask_again(port, now)
        return not self._wanted

    def _take(self, packet: Packet) -> None:
        fits = packet.instruction == Instruction.STATUS and len(packet.params) == self._size + 1
        if fits and packet.id in self._wanted:
            self._wanted.remove(packet.id)
            self.answers[packet.id] = packet
        else:
            self.strays.append(packet)

    def _ask_again(self, port: SerialPort, now_ns: int) -> None:
        self._in_vain -= 1
        self._parser.reset()
        question = self._single(self._wanted[0])
        self._wanted.append(self._wanted.pop(0))
        port.write(question)
        self.expected_ns = now_ns + (len(question) + STATUS_SIZE + self._size) * port.byte_ns


def reading(
    port: SerialPort, ids: Sequence[int], address: int, size: int, patience_ns: int
) -> Steps[dict[int, Packet]]:
    """One block of several servos; those that do not answer within `patience_ns` are absent. Raises PortLostError.

    Each is asked once more by itself where nobody answers: a dead first servo must not hide the others.
    """
    port.flush()
    question = packets.sync_read(ids, address, size)
    port.write(question)
    now = time.monotonic_ns()
    expected = now + (len(question) + len(ids) * (STATUS_SIZE + size)) * port.byte_ns

    def single(servo_id: int) -> bytes:
        return packets.read(servo_id, address, size)

    gathering = Gathering(Parser(), ids, size, single, expected, in_vain=len(ids))
    while not gathering.poll(port, now + patience_ns) and time.monotonic_ns() < now + patience_ns:
        yield gathering.expected_ns
    return gathering.answers


def writing(port: SerialPort, writes: Iterable[tuple[registers.Register, Mapping[int, int]]]) -> Steps[None]:
    """Registers of several servos, by Sync Writes right behind each other: nobody answers, so read them back. Raises
    PortLostError."""
    on_wire_ns = time.monotonic_ns()
    for register, values in writes:
        if values:
            packet = write_register(register, values)
            port.write(packet)
            on_wire_ns += len(packet) * port.byte_ns
    yield on_wire_ns
