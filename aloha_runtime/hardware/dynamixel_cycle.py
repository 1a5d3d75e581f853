"""The periodic cycle on one chain: send goals and ask for the state, later collect it. Ticks in, raw units out.

Fast Sync Read is the normal way. One servo that stays silent spoils it for all behind it, so a failed one is followed
by Sync Reads, which ask missing servos again one by one and so tell who is silent, until all have answered.

The shadow servos of shoulder and elbow repeat their masters, so most reads skip them; every FULL_READ_NS one read takes
them in, because a shadow in overload must be heard of as fast as any other servo.

Temperature, torque and watchdog of each servo come from one further Read (`dynamixel_health.py`), one servo at a time,
sent when a cycle's reply is in and picked up by the next request: the bus is idle then, so nothing waits for it.
Folding them into the state read by indirect addressing would lengthen every cycle, and need setting up again after each
reboot.
"""

import time
from collections import Counter
from collections.abc import Sequence

from aloha_runtime.dynamixel.packets import BROADCAST_ID, Packet, Parser
from aloha_runtime.hardware import dynamixel_health as health
from aloha_runtime.hardware.dynamixel_exchange import STATUS_SIZE, gather, pause
from aloha_runtime.hardware.dynamixel_frames import STATE_SIZE, WIDE_SIZE, GoalWrite, StateRead
from aloha_runtime.hardware.serial_port import SerialPort

FULL_READ_NS = 25_000_000
"""A shadow's alert is heard of within 30 ms (promise: HOLD within 40 ms)."""
SILENT_NS = 40_000_000
"""A servo that answered nothing for this long while others were asked again is named as silent."""
FAST_FAILURES = 3
FAST_PAUSE_NS = 1_000_000_000
"""After this many failed Fast Sync Reads in a row, Sync Read for this long: on a bad cable it loses less."""


class BusCycle:
    """State of the exchange with one chain. `counts` is shared with the owner. Not thread-safe."""

    def __init__(self, ids: Sequence[int], shadow_ids: Sequence[int], counts: Counter[str]) -> None:
        self._lean, self._full = StateRead(ids), StateRead((*ids, *shadow_ids))
        self._goals = GoalWrite(ids)
        self._counts = counts
        self._parser = Parser()
        self._port: SerialPort | None = None
        self.health = health.HealthRound((*ids, *shadow_ids))
        self.all_ids = (*ids, *shadow_ids)

    def attach(self, port: SerialPort, fast: bool) -> None:
        """Start afresh on an open port. `fast`: the firmware of every servo knows Fast Sync Read."""
        now = time.monotonic_ns()
        self._port = port
        self._fast_supported = fast
        self._fast_from_ns = 0  # no Fast Sync Read before this
        self._fast_failures = 0
        self._use_sync = not fast
        self._size = STATE_SIZE
        self._read = self._lean
        self._full_at_ns = now
        self._quiet_from_ns = now  # the bus carries a health reply until then
        self._answered = True
        self._outstanding = False
        self._heard_all_ns = now
        self._heard_ns = dict.fromkeys(self.all_ids, now)
        self._parser.reset()

    def detach(self) -> None:
        """Use the port no longer; closing it is the owner's business."""
        self._port = None

    @property
    def attached(self) -> bool:
        """True while there is a port."""
        return self._port is not None

    def request(self, goal_ticks: Sequence[int] | None) -> None:
        """Send goals (ticks in the order of the ids; None: none) and the state request. Raises PortLostError."""
        port = self._port
        if port is None:
            return
        self._drain(port)
        now = time.monotonic_ns()
        if now < self._quiet_from_ns:  # only when cycling faster than the bus allows with a health read between
            time.sleep((self._quiet_from_ns - now) / 1e9)
            now = time.monotonic_ns()
        self._read = self._full if now >= self._full_at_ns else self._lean
        if self._use_sync:
            self._size = STATE_SIZE if self._size == WIDE_SIZE else WIDE_SIZE
            question = self._read.sync(self._size)
            reply = len(self._read.ids) * (STATUS_SIZE + self._size)
        else:
            question, reply = self._read.fast, self._read.length
        if goal_ticks is not None:
            question = self._goals.packet(goal_ticks) + question
        port.write(question)
        self._expected_ns = now + (len(question) + reply) * port.byte_ns
        self._outstanding = True

    def collect(self, deadline_ns: int) -> tuple[int, ...] | None:
        """The flat state asked for, or None when it is not whole by `deadline_ns`. Raises PortLostError."""
        port = self._port
        if port is None or not self._outstanding:
            return None
        self._outstanding = False
        state = self._collect_sync(port, deadline_ns) if self._use_sync else self._collect_fast(port, deadline_ns)
        self._answered = state is not None
        if state is None:
            self._counts["incomplete"] += 1
            return None
        now = time.monotonic_ns()
        self._heard_all_ns = now
        if self._read is self._full:
            self._full_at_ns = now + FULL_READ_NS
        question = self.health.due(now)
        if question:
            port.write(question)
            self._quiet_from_ns = now + (len(question) + health.REPLY_BYTES) * port.byte_ns
        return state

    def _collect_fast(self, port: SerialPort, deadline_ns: int) -> tuple[int, ...] | None:
        port.wait_for_reply(deadline_ns)
        data = port.read()
        state = self._read.decode_fast(data)
        if state is None:
            state = self._parse_fast(port, data, deadline_ns)
        if state is not None:
            self._fast_failures = 0
            return state
        self._fast_failures += 1
        self._use_sync = True
        if self._fast_failures >= FAST_FAILURES:
            self._fast_from_ns = time.monotonic_ns() + FAST_PAUSE_NS
            self._counts["fast_read_paused"] += 1
        return None

    def _parse_fast(self, port: SerialPort, data: bytes, deadline_ns: int) -> tuple[int, ...] | None:
        """The reply when it comes in pieces, stuffed, or behind something else; of several the last is fresh."""
        state: tuple[int, ...] | None = None
        while True:
            for packet in self._feed(data):
                found = self._read.decode_fast_packet(packet)
                if found is None:
                    self._stray(packet)
                elif state is not None:
                    self._counts["duplicate"] += 1
                state = found or state
            now = time.monotonic_ns()
            if state is not None or now >= deadline_ns:
                return state
            pause(now, self._expected_ns, deadline_ns)
            data = port.read()

    def _collect_sync(self, port: SerialPort, deadline_ns: int) -> tuple[int, ...] | None:
        ids, size = self._read.ids, self._size
        port.wait_for_reply(min(deadline_ns, self._expected_ns))
        errors = self._parser.crc_errors
        answers, strays = gather(
            port,
            self._parser,
            sorted(ids, key=self._heard_ns.__getitem__),
            size,
            lambda servo_id: self._read.single(servo_id, size),
            expected_ns=self._expected_ns,
            deadline_ns=deadline_ns,
        )
        self._counts["corrupt"] += self._parser.crc_errors - errors
        now = time.monotonic_ns()
        self._heard_ns.update(dict.fromkeys(answers, now))
        for packet in strays:
            self._stray(packet)
        if len(answers) < len(ids):
            self._parser.reset()
            return None
        self._use_sync = not self._fast_supported or now < self._fast_from_ns
        return self._read.decode_sync(answers)

    def silent(self, now_ns: int) -> dict[int, int]:
        """Servo id -> ns since it last answered, for those that are silent now."""
        if self._port is None or self._answered:
            return {}
        ages = {servo_id: now_ns - max(heard, self._heard_all_ns) for servo_id, heard in self._heard_ns.items()}
        return {servo_id: age for servo_id, age in ages.items() if age >= SILENT_NS}

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
        if self.health.take(packet, time.monotonic_ns()):
            return
        ours = packet.id in self.all_ids or packet.id == BROADCAST_ID
        if not ours or not packet.params:
            self._counts["foreign"] += 1
        else:
            self._counts["duplicate" if self._answered else "late"] += 1
