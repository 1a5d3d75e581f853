"""Watches a running stack: every topic into memory, CPU and memory of every process. Reports and benchmarks read it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psutil

from aloha_runtime import messages
from aloha_runtime.bus import Bus, Subscriber
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.messages import Action, ArmsState, Message, ModeHeartbeat, PolicyTick, SimState, Topic
from aloha_runtime.realtime import NS_PER_S, WallClock

POLL_S = 0.1
"""Seldom, so that the observer costs the other processes nothing; 20 messages of the fastest topic wait meanwhile."""
DEPTH = 4000
"""Messages of one topic that may wait for a poll: 20 s of the fastest topic."""
USAGE_EVERY = 5
"""Polls between two looks at CPU and memory."""
MB = 1e6


@dataclass(frozen=True)
class Usage:
    """One process over the span: CPU in percent of one core, and the most resident memory it had."""

    cpu_percent: float
    rss_mb: float


@dataclass(frozen=True)
class Flow:
    """One topic over the span, as this observer received it."""

    nominal_hz: float
    rate_hz: float
    received: int
    dropped: int


@dataclass(frozen=True)
class Log:
    """Everything that happened between two instants (monotonic ns). `messages`: by topic name, in order of arrival."""

    rig: RigConfig
    policy: str
    start_ns: int
    end_ns: int
    messages: Mapping[str, list[Any]]
    flows: Mapping[str, Flow] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)

    @property
    def span_s(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S

    @property
    def task(self) -> str:
        return self.rig.sim.task if self.rig.sim else ""

    @property
    def seed(self) -> int | None:
        return self.rig.sim.seed if self.rig.sim else None

    @property
    def followers(self) -> list[ArmsState]:
        return self.of(messages.FOLLOWERS)

    @property
    def ticks(self) -> list[PolicyTick]:
        return self.of(messages.POLICY_TICK)

    @property
    def sim(self) -> list[SimState]:
        return self.of(messages.SIM_STATE)

    @property
    def modes(self) -> list[ModeHeartbeat]:
        return self.of(messages.MODE)

    @property
    def actions(self) -> list[Action]:
        """Actions of every source."""
        return [action for topic in messages.ACTION_TOPIC.values() for action in self.of(topic)]

    def of(self, topic: Topic) -> list[Any]:
        return self.messages.get(topic.name, [])

    def health(self, process: str) -> dict[str, float]:
        """The newest figures that a process gave of itself; empty when it reported none."""
        reports = self.of(messages.health_topic(process))
        return dict(reports[-1].figures) if reports else {}


class Observer:
    """Observes a stack from a thread of its own until it is closed. `mark` begins a span, `log` ends it.

    The thread sleeps nearly always; the processes of the stack notice it only as one more reader of each topic.
    """

    def __init__(self, stack: Stack, policy: str = "") -> None:
        self._stack = stack
        self._policy = policy
        self._clock = stack.clock
        self._bus = Bus(stack.run_dir, WallClock())  # no participant of virtual time: it takes what comes
        self._subscribers = {topic.name: self._bus.subscribe(topic, depth=DEPTH) for topic in observed_topics(stack)}
        self._meters = {process.name: _Meter() for process in stack.table}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._newest: dict[str, Message] = {}
        self._measure()
        self._begin()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._thread.start()

    def mark(self) -> None:
        """Forget what was collected so far: the span of the next `log` begins now."""
        with self._lock:
            self._poll()
            self._measure()
            self._begin()

    def log(self) -> Log:
        """What was collected from the last `mark` to now."""
        with self._lock:
            self._poll()
            self._measure()
            end_ns = self._clock.now_ns()
            span_s = (end_ns - self._start_ns) / NS_PER_S
            wall_s = time.monotonic() - self._start_s
            return Log(
                rig=self._stack.rig,
                policy=self._policy,
                start_ns=self._start_ns,
                end_ns=end_ns,
                messages={name: list(kept) for name, kept in self._kept.items()},
                flows={name: self._flow(name, reader, span_s) for name, reader in self._subscribers.items()},
                usage={name: meter.usage(wall_s) for name, meter in self._meters.items()},
            )

    def latest(self, topic: Topic) -> Any | None:
        """The newest message of a topic, at most `POLL_S` old; None before the first."""
        return self._newest.get(topic.name)

    def so_far(self, topic: Topic) -> list[Any]:
        """Every message of a topic since the last `mark`."""
        with self._lock:
            return list(self._kept[topic.name])

    def close(self) -> None:
        """Stop observing; twice is harmless."""
        self._closing.set()
        self._thread.join()
        self._bus.close()

    def __enter__(self) -> "Observer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self._start_ns, self._start_s = self._clock.now_ns(), time.monotonic()
        self._kept: dict[str, list[Message]] = {name: [] for name in self._subscribers}
        self._before = {name: (reader.received, reader.dropped) for name, reader in self._subscribers.items()}
        for meter in self._meters.values():
            meter.begin()

    def _run(self) -> None:
        polls = 0
        while not self._closing.wait(POLL_S):
            with self._lock:
                self._poll()
                polls += 1
                if polls % USAGE_EVERY == 0:
                    self._measure()

    def _poll(self) -> None:
        for name, reader in self._subscribers.items():
            arrived = reader.drain()
            if arrived:
                self._kept[name] += arrived
                self._newest[name] = arrived[-1]

    def _measure(self) -> None:
        for name, meter in self._meters.items():
            meter.look(self._stack.pid(name))

    def _flow(self, name: str, reader: Subscriber, span_s: float) -> Flow:
        received = reader.received - self._before[name][0]
        dropped = reader.dropped - self._before[name][1]
        return Flow(reader.topic.rate_hz, received / span_s if span_s else 0.0, received, dropped)


def observed_topics(stack: Stack) -> list[Topic]:
    """Every topic that a process of this stack publishes."""
    cameras = [messages.camera_topic(name, camera.fps) for name, camera in stack.rig.cameras.items()]
    health = [messages.health_topic(process.name) for process in stack.table]
    running = {process.name for process in stack.table}
    return [topic for topic in (*messages.TOPICS, *cameras, *health) if topic.publisher in running]


class _Meter:
    """CPU and memory of one process of the table, which may be a new operating-system process after a restart."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None
        self._cpu_s = self._rss = self._base_s = self._earlier_s = 0.0

    def begin(self) -> None:
        self._base_s, self._earlier_s, self._rss = self._cpu_s, 0.0, 0.0

    def look(self, pid: int) -> None:
        try:
            if self._process is None or self._process.pid != pid:
                self._earlier_s += self._cpu_s - self._base_s
                self._process, self._base_s, self._cpu_s = psutil.Process(pid), 0.0, 0.0
            times = self._process.cpu_times()
            self._cpu_s = times.user + times.system
            self._rss = max(self._rss, float(self._process.memory_info().rss))
        except psutil.Error:
            return  # it has just died; the stack starts it again

    def usage(self, span_s: float) -> Usage:
        used_s = self._earlier_s + self._cpu_s - self._base_s
        return Usage(100 * used_s / span_s if span_s else 0.0, self._rss / MB)
