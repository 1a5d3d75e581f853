"""What stands in for the operating system on the virtual rig: clock, serial ports, topics, and the kernel's echo."""

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aloha_runtime.hardware.late_answers import LateAnswers
from aloha_runtime.hardware.serial_port import WAIT_NS, WAKE_BYTES
from aloha_runtime.messages import MS, Message, Reply, Request, Topic
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import Role
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.faults import Reply as ChainReply
from aloha_runtime.sim.monitor import Monitor
from aloha_runtime.sim.servo import ServoPlant

EPOCH_NS = 1_000 * NS_PER_S
"""When virtual time begins."""
KEPT = 400
"""Messages that a topic keeps: 2 s of the fastest."""


class Time:
    """The time of the loop that has the turn; stands in for the module `time` in the driver and the arms process."""

    def __init__(self) -> None:
        self.now = EPOCH_NS

    def monotonic_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += max(0, int(seconds * 1e9))


class Wire:
    """One arm: its chain, its monitor, and what happens to its supply at which time."""

    def __init__(self, time: Time, name: str, role: Role, plant: ServoPlant, monitor: Monitor) -> None:
        self.time, self.name, self.role = time, name, role
        self.plant = plant
        self.chain = Chain(role, plant)
        self.monitor = monitor
        self.events: list[tuple[int, Callable[[int], None]]] = []
        """What is done to the chain, and when, in order of time."""
        self.sent: list[ChainReply] = []
        """Replies on their way to the driver."""

    def at(self, when_ns: int, what: Callable[[int], None]) -> None:
        """Do something to the chain at an instant, also while the driver waits for it."""
        self.events.append((when_ns, what))
        self.events.sort(key=lambda event: event[0])

    def cut(self, when_ns: int) -> None:
        """12 V away."""
        self.sent = [reply for reply in self.sent if reply.ready_at_ns <= when_ns]
        self.chain.cut_power(when_ns)

    def advance(self, now_ns: int) -> None:
        """Let the chain's time pass up to now."""
        while self.events and self.events[0][0] <= now_ns:
            when_ns, what = self.events.pop(0)
            self._advance_to(when_ns)
            what(when_ns)
        self._advance_to(now_ns)

    def _advance_to(self, now_ns: int) -> None:
        while (due_ns := self.chain.advance(now_ns)) is not None and due_ns <= now_ns:
            pass


class WirePort:
    """The bytes of an arm as `SerialPort` gives them."""

    def __init__(self, wire: Wire, baud: int) -> None:
        self.path, self.baud = wire.name, baud
        self.byte_ns = 10_000_000_000 // baud
        self.late = LateAnswers()
        self._wire, self._time = wire, wire.time
        self._here = b""

    def _take(self) -> None:
        """What has arrived by now."""
        now_ns = self._time.now
        self._wire.advance(now_ns)
        late = []
        for reply in self._wire.sent:
            if reply.ready_at_ns <= now_ns:
                self._here += reply.data
                self._wire.monitor.servo(reply.data, reply.ready_at_ns)
            else:
                late.append(reply)
        self._wire.sent = late

    def pending(self) -> int:
        self._take()
        return len(self._here)

    def read(self) -> bytes:
        self._take()
        data, self._here = self._here, b""
        return data

    def write(self, data: bytes) -> None:
        now_ns = self._time.now
        self._wire.advance(now_ns)
        self._wire.monitor.host(data, now_ns)
        self._wire.sent += self._wire.chain.receive(data, now_ns, self.baud)

    def wait_for_reply(self, deadline_ns: int) -> None:
        """Time passes until enough has arrived, or for the whole milliseconds up to the deadline."""
        last_ns = self._time.now + max(0, deadline_ns - self._time.now) // WAIT_NS * WAIT_NS
        while self.pending() < WAKE_BYTES and self._time.now < last_ns:
            due = min((reply.ready_at_ns for reply in self._wire.sent), default=last_ns)
            self._time.now = min(last_ns, max(due, self._time.now + 1))

    def flush(self) -> None:
        self.read()

    def close(self) -> None: ...


@dataclass
class Channel:
    """One topic: its newest messages, each with the time at which it was sent."""

    topic: Topic
    time: Time
    sent: deque[tuple[int, int, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    seq: int = 0

    def send(self, message: Message) -> None:
        self.seq += 1
        message = copy.copy(message)
        message.seq = self.seq
        self.sent.append((self.time.now, self.seq, message))


class Ear:
    """A subscriber."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self.topic = channel, channel.topic
        self._read = 0

    def latest(self) -> Any:
        now_ns = self._channel.time.now
        return next((message for sent, _, message in reversed(self._channel.sent) if sent <= now_ns), None)

    def drain(self) -> list[Any]:
        now_ns = self._channel.time.now
        found = [(seq, message) for sent, seq, message in self._channel.sent if sent <= now_ns and seq > self._read]
        self._read = found[-1][0] if found else self._read
        return [message for _, message in found]

    def fresh(self, now_ns: int) -> Any:
        newest = self.latest()
        old = newest is None or now_ns - newest.stamp_ns > self.topic.max_age_ms * MS
        return None if old or not newest.valid else newest

    def close(self) -> None: ...


class Bus:
    """Topics in memory, and the supervisor's socket."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._channels: dict[str, Channel] = {}
        self.requests: deque[Request] = deque()
        self.replies: list[Reply] = []

    def _channel(self, topic: Topic) -> Channel:
        return self._channels.setdefault(topic.name, Channel(topic, self._time))

    def publisher(self, topic: Topic) -> Channel:
        return self._channel(topic)

    def subscribe(self, topic: Topic, depth: int = 1) -> Ear:
        return Ear(self._channel(topic))

    def server(self) -> "Bus":
        return self

    def client(self) -> "Bus":
        return self

    def receive(self) -> Request | None:
        return self.requests.popleft() if self.requests else None

    def reply(self, reply: Reply) -> None:
        self.replies.append(reply)

    def request(self, request: Request) -> Reply:
        """A process asks the supervisor, and does not wait for what it says."""
        self.requests.append(request)
        return Reply(ok=True, text="")


class PromptEcho:
    """An echo that is never late (`hardware.echo.Echo`)."""

    def came_back(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""
