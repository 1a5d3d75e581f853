"""The periodic cycle on one chain: send goals and ask for the state, later collect it. Packets in, raw units out.

Fast Sync Read is the normal way. A question stays open until it is answered or GIVE_UP_NS old: an adapter or machine
that is a few milliseconds late costs no reading, and no second question collides with the answer to the first. After a
failure a block of another size is asked for until no answer to the failed question can come (`late_answers.py`), so
a reading is never older than its stamp.

One servo that stays silent spoils a Fast Sync Read for all behind it, and on some firmware a Sync Read too. So after
two failures the servos are also asked one by one, which tells who is silent (`dynamixel_roll_call.py`).

The shadow servos of shoulder and elbow repeat their masters, so most reads skip them; every FULL_READ_NS one read takes
them in, because a shadow in overload must be heard of as fast as any other servo.

Temperature, torque and watchdog of each servo come from one further Read (`dynamixel_health.py`), one servo at a time,
sent when a cycle's reply is in and picked up by the next request: the bus is idle then, so nothing waits for it.
Folding them into the state read by indirect addressing would lengthen every cycle, and need setting up again after each
reboot.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum

from aloha_runtime.dynamixel.packets import BROADCAST_ID, Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware import dynamixel_health as health
from aloha_runtime.hardware.base import Unread
from aloha_runtime.hardware.dynamixel_exchange import QUIET_NS, Gathering, pause
from aloha_runtime.hardware.dynamixel_frames import BLOCKS, STATE_SIZE, StateRead
from aloha_runtime.hardware.dynamixel_roll_call import RollCall
from aloha_runtime.hardware.serial_port import WAIT_NS, SerialPort

FULL_READ_NS = 25_000_000
"""A shadow's alert is heard of within 30 ms (promise: HOLD within 40 ms)."""
GIVE_UP_NS = 9_000_000
"""An answer this late is no longer waited for: two cycles at 200 Hz, so a lost one costs two readings."""
FAST_DOUBTS = 3
FAST_PAUSE_NS = 1_000_000_000
"""Where Sync Read had to help this often in a row it takes over for a while: on a bad cable it loses less."""


class Ask(Enum):
    """Ways to ask for the state."""

    FAST = "Fast Sync Read"
    SYNC = "Sync Read"
    SINGLY = "one Read after the other"


DOUBTED = (Ask.SYNC, Ask.SINGLY, Ask.FAST, Ask.SINGLY)
"""Ways that take turns from the second failure in a row on."""


class BusCycle:
    """State of the exchange with one chain. `counts` is shared with the owner. `now`: the clock of the health round,
    virtual in lock-step; all else is wall time. Not thread-safe."""

    def __init__(
        self,
        ids: Sequence[int],
        shadow_ids: Sequence[int],
        counts: Counter[str],
        now: Callable[[], int] | None = None,
    ) -> None:
        self._lean, self._full = StateRead(ids), StateRead((*ids, *shadow_ids))
        self._counts = counts
        self._parser = Parser()
        self._port: SerialPort | None = None
        self.health = health.HealthRound((*ids, *shadow_ids))
        self.all_ids = (*ids, *shadow_ids)
        self._now = now or time.monotonic_ns

    def attach(self, port: SerialPort, fast: bool) -> None:
        """Start afresh on an open port. `fast`: the firmware of every servo knows Fast Sync Read."""
        now = time.monotonic_ns()
        self._port = port
        self._fast_supported = fast
        self._fast_from_ns = 0  # no Fast Sync Read before this
        self._doubts = 0
        self._failures = 0
        self._gathering: Gathering | None = None
        self._block = 0
        self._read = self._lean
        self._open = False
        self._asked_ns = self._expected_ns = self._full_at_ns = now
        self._quiet_from_ns = now  # the bus carries a health reply until then
        self._heard_all_ns = now
        self._roll = RollCall(self.all_ids, now)
        self.health.begin(self._now())
        self._parser.reset()

    @property
    def attached(self) -> bool:
        """True while there is a port."""
        return self._port is not None

    def detach(self) -> None:
        """Use the port no longer; closing it is the owner's business."""
        self._port = None

    def request(self, goals: bytes) -> bool:
        """Send goals (a packet that nobody answers; empty: none), and ask for the state unless an answer is still due.

        True when it was asked now. Raises PortLostError.
        """
        port = self._port
        if port is None:
            return False
        now = time.monotonic_ns()
        if self._open and now - self._asked_ns < GIVE_UP_NS:
            if goals:
                port.write(goals)
            if self._gathering:
                self._gathering.poll(port)
            return False
        if self._open:
            self._fail()
        self._drain(port)
        if now < self._quiet_from_ns:  # only when cycling faster than the bus allows with a single read between
            time.sleep((self._quiet_from_ns - now) / 1e9)
            now = time.monotonic_ns()
        if port.late.free(STATE_SIZE, now):
            self._block = 0
        else:
            free = [number for number, (_, size) in enumerate(BLOCKS) if port.late.free(size, now)]
            if not free:  # every size may still come late
                if goals:
                    port.write(goals)
                return False
            self._block = free[0]
        self._ask(port, goals, now)
        return True

    def _ask(self, port: SerialPort, goals: bytes, now: int) -> None:
        self._read = self._full if now >= self._full_at_ns or self._failures >= 2 else self._lean
        way = DOUBTED[(self._failures - 2) % len(DOUBTED)] if self._failures >= 2 else Ask.FAST
        if way is Ask.FAST and (not self._fast_supported or now < self._fast_from_ns):
            way = Ask.SYNC
        self._asked_ns = now
        self._open = True
        if way is Ask.SINGLY:
            if goals:
                port.write(goals)
            self._expected_ns = now + len(goals) * port.byte_ns
            self._gathering = self._gather(self._expected_ns - QUIET_NS)
            self._gathering.poll(port)
            return
        question = goals + self._read.question(way is Ask.SYNC, self._block)
        port.write(question)
        sync = way is Ask.SYNC
        self._expected_ns = now + (len(question) + self._read.reply_size(sync, self._block)) * port.byte_ns
        self._gathering = self._gather(self._expected_ns) if sync else None

    def _gather(self, expected_ns: int) -> Gathering:
        read, block = self._read, self._block
        return Gathering(
            self._parser,
            read.ids,
            BLOCKS[block][1],
            lambda servo_id: read.single(servo_id, block),
            expected_ns,
            self._roll,
        )

    def collect(self, deadline_ns: int) -> tuple[int, ...] | None:
        """The flat state asked for, or None when it is not whole by `deadline_ns`. Raises PortLostError."""
        port = self._port
        if port is None or not self._open:
            return None
        if time.monotonic_ns() < self._expected_ns:  # of several arms, only the first is waited for
            port.wait_for_reply(min(deadline_ns, self._expected_ns) if self._gathering else deadline_ns)
        if self._gathering:
            state = self._collect_sync(port, self._gathering, deadline_ns)
        else:
            state = self._collect_fast(port, deadline_ns)
        if state is None:
            self._counts["incomplete"] += 1
            return None
        now = time.monotonic_ns()
        self._open = False
        self._failures = 0
        self._heard_all_ns = now
        if self._read is self._full:
            self._full_at_ns = now + FULL_READ_NS
        if self._gathering and self._gathering.asked_again:  # the answer to the one or the other question may come yet
            port.late.expect(BLOCKS[self._block][1], now)
        question = self.health.due(self._now())
        if question:
            port.late.expect(health.SIZE, now)
            port.write(question)
            self._quiet_from_ns = now + (len(question) + health.REPLY_BYTES) * port.byte_ns
        return state

    def _collect_fast(self, port: SerialPort, deadline_ns: int) -> tuple[int, ...] | None:
        data = port.read()
        state = None if self._block or self._parser.pending else self._read.decode_fast(data)
        if state is None:
            damaged = self._parser.crc_errors
            state = self._parse_fast(port, data, deadline_ns)
            spoilt = self._parser.pending or self._parser.crc_errors != damaged
            if state is None and spoilt and time.monotonic_ns() > self._expected_ns + QUIET_NS:
                self._fail()  # damaged, or cut short by a silent servo: nothing more will come
        if state is not None:
            self._doubts = 0
        return state

    def _parse_fast(self, port: SerialPort, data: bytes, deadline_ns: int) -> tuple[int, ...] | None:
        """The reply when it comes in pieces, stuffed, or behind something else; of several the last is fresh."""
        state: tuple[int, ...] | None = None
        while True:
            for packet in self._feed(data):
                found = self._read.decode_fast_packet(packet, self._block)
                if found is None:
                    self._stray(packet)
                elif state is not None:
                    self._counts["duplicate"] += 1
                state = found or state
            now = time.monotonic_ns()
            if state is not None or now >= deadline_ns:
                return state
            if self._parser.pending or deadline_ns - now < WAIT_NS:
                pause(now, self._expected_ns, deadline_ns)
            else:
                port.wait_for_reply(deadline_ns)
            data = port.read()

    def _collect_sync(self, port: SerialPort, gathering: Gathering, deadline_ns: int) -> tuple[int, ...] | None:
        errors = self._parser.crc_errors
        complete = gathering.run(port, deadline_ns)
        self._counts["corrupt"] += self._parser.crc_errors - errors
        self._quiet_from_ns = gathering.expected_ns
        for packet in gathering.strays:
            self._stray(packet)
        gathering.strays.clear()
        if not complete:
            if gathering.answers:  # the others are silent, not late
                self._fail()
            return None
        if self._failures and self._fast_supported:
            self._doubts += 1
            if self._doubts >= FAST_DOUBTS:
                self._doubts, self._fast_from_ns = 0, time.monotonic_ns() + FAST_PAUSE_NS
                self._counts["fast_read_paused"] += 1
        return self._read.decode_sync(gathering.answers, self._block)

    def _fail(self) -> None:
        """The open question stays without a whole answer. What still comes has another size than the next answer."""
        if not self._failures:
            self._roll = RollCall(self.all_ids, self._heard_all_ns)
        self._open = False
        self._failures += 1
        self._expect_late()
        self._parser.reset()

    def give_up(self) -> None:
        """Somebody else asks on this port now: an answer that is still due must not be taken for theirs."""
        if self._open:
            self._open = False
            self._expect_late()

    def _expect_late(self) -> None:
        """The answer to the last question may still come."""
        if self._port is not None:
            self._port.late.expect(BLOCKS[self._block][1], time.monotonic_ns())

    def silent(self, now_ns: int) -> dict[int, int]:
        """Servo id -> ns since it last answered, for those that are silent now."""
        return self._roll.silent(now_ns) if self._port is not None and self._failures else {}

    def unread(self, now_ns: int) -> Unread:
        """How long there has been no whole reading; 0 while there are."""
        if self._port is None or not self._failures:
            return Unread(0, certain=True)
        return Unread(now_ns - self._heard_all_ns, self._roll.complete(now_ns))

    def _drain(self, port: SerialPort) -> None:
        """Take in what arrived since the last collect: a health reply, or replies that nobody waits for any more."""
        if port.pending():
            for packet in self._feed(port.read()):
                self._stray(packet)
        if self._parser.pending:
            self._parser.reset()

    def _feed(self, data: bytes) -> list[Packet]:
        errors = self._parser.crc_errors
        found = self._parser.feed(data)
        if self._parser.crc_errors != errors:
            self._counts["corrupt"] += self._parser.crc_errors - errors
        return found

    def _stray(self, packet: Packet) -> None:
        """A packet that is no answer to the present state request: a health reply, or something to count."""
        if packet.instruction == Instruction.STATUS:
            self._roll.heard(packet.id, time.monotonic_ns(), late=True)
        if self.health.take(packet):
            return
        ours = packet.id in self.all_ids or packet.id == BROADCAST_ID
        if not ours or not packet.params:
            self._counts["foreign"] += 1
        else:
            self._counts["late" if self._failures else "duplicate"] += 1
