"""Blocking exchanges with a chain outside the SDK: one status packet per servo, asking again those that are missing.

Used where a Fast Sync Read failed or is not supported, and for the block reads of switching torque.
"""

import time
from collections.abc import Callable, Sequence

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.packets import Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_frames import STATUS_SIZE
from aloha_runtime.hardware.dynamixel_roll_call import RollCall
from aloha_runtime.hardware.serial_port import SerialPort

QUIET_NS = 1_500_000
"""A servo that said nothing for this long after its turn counts as silent: the adapter holds bytes back up to 1 ms."""
STEP_NS = 200_000
"""Sleep between two looks at the port while a reply is overdue; each wake-up costs about 25 us of CPU."""
_EXCHANGE_NS = 100_000_000
"""A block read ends after this at the latest, on a line so bad that nothing is certain."""


def pause(now_ns: int, expected_ns: int, deadline_ns: int) -> None:
    """Sleep until a reply is expected, or for one step when it is overdue, never past the deadline."""
    left = min(max(expected_ns - now_ns, STEP_NS), deadline_ns - now_ns)
    if left > 0:
        time.sleep(left / 1e9)


class Gathering:
    """Status packets with `size` bytes of data from `ids`, as they come in.

    `answers`: by servo id. `strays`: packets that belong to nothing asked here. `expected_ns`: when the answers should
    be complete. Servos missing QUIET_NS later are asked with `single(id)`, one after the other, as `roll` says.
    `asked_again`: somebody was, so that an answer may come twice.
    """

    def __init__(
        self,
        parser: Parser,
        ids: Sequence[int],
        size: int,
        single: Callable[[int], bytes],
        expected_ns: int,
        roll: RollCall,
    ) -> None:
        self.answers: dict[int, Packet] = {}
        self.strays: list[Packet] = []
        self.asked_again = False
        self.late = False
        """Somebody answered when another servo's turn had come: who is missing may be late as well."""
        self.expected_ns = expected_ns
        self._parser = parser
        self._wanted = list(ids)
        self._size = size
        self._single = single
        self._roll = roll
        self._asked = 0
        """Who was asked alone last; 0: nobody."""

    def run(self, port: SerialPort, deadline_ns: int) -> bool:
        """Go on until all have answered (True) or `deadline_ns`. Raises PortLostError."""
        while True:
            now = self.poll(port)
            if not self._wanted or now >= deadline_ns:
                return not self._wanted
            pause(now, self.expected_ns, deadline_ns)

    def poll(self, port: SerialPort) -> int:
        """Take what has arrived, and ask the next servo when that is due; returns when that was (monotonic). Never
        waits. Raises PortLostError."""
        data = port.read()
        now = time.monotonic_ns()
        for packet in self._parser.feed(data):
            self._take(packet, now)
        if self._wanted and now >= self.expected_ns + QUIET_NS:
            self._ask_again(port, now)
        return now

    @property
    def complete(self) -> bool:
        """Whether all have answered."""
        return not self._wanted

    def given_up(self, now_ns: int) -> bool:
        """Whether everybody who is missing is silent."""
        return self._roll.silent(now_ns).keys() >= set(self._wanted)

    def _take(self, packet: Packet, now_ns: int) -> None:
        if packet.instruction != Instruction.STATUS:
            self.strays.append(packet)
            return
        self.late = self.late or (self.asked_again and packet.id != self._asked)
        fits = len(packet.params) == self._size + 1 and packet.id in self._wanted
        self._roll.heard(packet.id, now_ns, late=not fits)
        if not fits:
            self.strays.append(packet)
            return
        self._wanted.remove(packet.id)
        self.answers[packet.id] = packet
        if packet.id == self._asked:  # the next one's turn
            self.expected_ns = now_ns - QUIET_NS

    def _ask_again(self, port: SerialPort, now_ns: int) -> None:
        self.asked_again = True
        self._parser.reset()
        self._asked = self._roll.next(self._wanted)
        self._roll.asked(self._asked, now_ns)
        question = self._single(self._asked)
        port.write(question)
        self.expected_ns = now_ns + (len(question) + STATUS_SIZE + self._size) * port.byte_ns


class BlockRead:
    """One block of several servos, asked for now; `poll` from `due_ns` on, until True. Servos that are silent, or that
    have not answered within `patience_ns`, are missing in `found`; `late` says that these may live, because others
    answered late.

    So that no late answer to an earlier question is taken, it asks for a longer block where the size may still come.
    """

    def __init__(
        self, port: SerialPort, ids: Sequence[int], address: int, size: int, patience_ns: int = _EXCHANGE_NS
    ) -> None:
        """Raises PortLostError."""
        port.flush()
        now = time.monotonic_ns()
        self.found: dict[int, Packet] = {}
        self.late = False
        self._port = port
        self._size, self._wanted = size, size
        while not port.late.free(self._size, now):
            self._size += 1
        self._start = max(0, address - (self._size - size))
        self._offset = 1 + address - self._start
        question = packets.sync_read(ids, self._start, self._size)
        port.write(question)
        expected = now + (len(question) + len(ids) * (STATUS_SIZE + self._size)) * port.byte_ns
        self._gathering = Gathering(Parser(), ids, self._size, self._single, expected, RollCall(ids, now))
        self._give_up_ns = now + patience_ns

    def _single(self, servo_id: int) -> bytes:
        return packets.read(servo_id, self._start, self._size)

    def poll(self) -> bool:
        """True when all have answered or are silent. Never waits. Raises PortLostError."""
        gathering = self._gathering
        now = gathering.poll(self._port)
        complete = gathering.complete
        if not complete and not gathering.given_up(now) and now < self._give_up_ns:
            return False
        self.late = gathering.late and not gathering.given_up(now)
        if not complete or gathering.asked_again:
            self._port.late.expect(self._size, now)
        for servo_id, packet in gathering.answers.items():
            data = packet.params[:1] + packet.params[self._offset :][: self._wanted]
            self.found[servo_id] = Packet(packet.id, packet.instruction, data)
        return True

    @property
    def due_ns(self) -> int:
        """When it is worth while to poll again (monotonic)."""
        return self._gathering.expected_ns


def read_all(port: SerialPort, ids: Sequence[int], address: int, size: int) -> dict[int, Packet]:
    """One block of several servos; those that are silent, each asked alone several times, are absent: 60 ms, at most
    100. Raises PortLostError."""
    read = BlockRead(port, ids, address, size)
    while not read.poll():
        now = time.monotonic_ns()
        pause(now, read.due_ns, now + _EXCHANGE_NS)
    return read.found
