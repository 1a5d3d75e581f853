"""Blocking exchanges with a chain outside the SDK: one status packet per servo, asking again those that are missing.

Used where a Fast Sync Read failed or is not supported, and for the few block writes that switch torque.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_frames import STATUS_SIZE, write_register
from aloha_runtime.hardware.serial_port import SerialPort

QUIET_NS = 1_500_000
"""A servo that said nothing for this long after its turn counts as silent: the adapter holds bytes back up to 1 ms."""
STEP_NS = 200_000
"""Sleep between two looks at the port while a reply is overdue; each wake-up costs about 25 us of CPU."""
_EXCHANGE_NS = 100_000_000


def pause(now_ns: int, expected_ns: int, deadline_ns: int) -> None:
    """Sleep until a reply is expected, or for one step when it is overdue, never past the deadline."""
    left = min(max(expected_ns - now_ns, STEP_NS), deadline_ns - now_ns)
    if left > 0:
        time.sleep(left / 1e9)


class Gathering:
    """Status packets with `size` bytes of data from `ids`, as they come in.

    `answers`: by servo id. `strays`: packets that belong to nothing asked here. `expected_ns`: when the answers should
    be complete. Servos missing QUIET_NS later are asked one by one with `single(id)`, in the order of `ids`; one only
    where nobody has answered, because then the whole chain is late or gone, and more questions would make it later.
    """

    def __init__(
        self, parser: Parser, ids: Sequence[int], size: int, single: Callable[[int], bytes], expected_ns: int
    ) -> None:
        self.answers: dict[int, Packet] = {}
        self.strays: list[Packet] = []
        self._parser = parser
        self._wanted = list(ids)
        self._size = size
        self._single = single
        self._expected_ns = expected_ns
        self._asked_again = False

    def run(self, port: SerialPort, deadline_ns: int) -> bool:
        """Go on until all have answered (True) or `deadline_ns`. Raises PortLostError."""
        while True:
            for packet in self._parser.feed(port.read()):
                self._take(packet)
            now = time.monotonic_ns()
            if not self._wanted or now >= deadline_ns:
                return not self._wanted
            if now >= self._expected_ns + QUIET_NS and (self.answers or not self._asked_again):
                self._ask_again(port, now)
            pause(now, self._expected_ns, deadline_ns)

    def _take(self, packet: Packet) -> None:
        fits = packet.instruction == Instruction.STATUS and len(packet.params) == self._size + 1
        if fits and packet.id in self._wanted:
            self._wanted.remove(packet.id)
            self.answers[packet.id] = packet
        else:
            self.strays.append(packet)

    def _ask_again(self, port: SerialPort, now_ns: int) -> None:
        self._asked_again = True
        self._parser.reset()
        question = self._single(self._wanted[0])
        self._wanted.append(self._wanted.pop(0))
        port.write(question)
        self._expected_ns = now_ns + (len(question) + STATUS_SIZE + self._size) * port.byte_ns


def read_all(port: SerialPort, ids: Sequence[int], address: int, size: int) -> dict[int, Packet]:
    """One block of several servos; those that do not answer within 100 ms are absent. Raises PortLostError."""
    port.flush()
    question = packets.sync_read(ids, address, size)
    port.write(question)
    now = time.monotonic_ns()
    expected = now + (len(question) + len(ids) * (STATUS_SIZE + size)) * port.byte_ns
    gathering = Gathering(Parser(), ids, size, lambda servo_id: packets.read(servo_id, address, size), expected)
    gathering.run(port, now + _EXCHANGE_NS)
    return gathering.answers


def write_all(port: SerialPort, register: registers.Register, values: Mapping[int, int]) -> None:
    """One register of several servos, by Sync Write: nobody answers, so read it back. Raises PortLostError."""
    packet = write_register(register, values)
    port.write(packet)
    time.sleep(len(packet) * port.byte_ns / 1e9)
