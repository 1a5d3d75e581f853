"""What `aloha status` knows: the topics and processes of a running system, heard from outside."""

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import psutil

from aloha_runtime import messages
from aloha_runtime.bus import Bus
from aloha_runtime.config import RigConfig
from aloha_runtime.messages import MS, Health, Topic
from aloha_runtime.processes.table import every_process
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.run_directory import lock_holder

WINDOW_NS = 2 * NS_PER_S
"""Rates and jitter are those of the last two seconds."""
DEPTH = 1000
"""Messages that may wait between two polls: 5 s of the fastest topic."""


class TopicWatch:
    """One topic: how often, how regularly and how long ago its messages come."""

    def __init__(self, bus: Bus, topic: Topic) -> None:
        self.topic = topic
        self.reader = bus.subscribe(topic, depth=DEPTH)
        self._stamps_ns: deque[int] = deque()

    def poll(self, now_ns: int) -> None:
        """Take what came; forget what left the window."""
        self._stamps_ns.extend(message.stamp_ns for message in self.reader.drain())
        while self._stamps_ns and self._stamps_ns[0] < now_ns - WINDOW_NS:
            self._stamps_ns.popleft()

    @property
    def rate_hz(self) -> float:
        """Messages a second, from the first to the last one in the window; 0 with fewer than two."""
        if len(self._stamps_ns) < 2 or self._stamps_ns[-1] == self._stamps_ns[0]:
            return 0.0
        return (len(self._stamps_ns) - 1) * NS_PER_S / (self._stamps_ns[-1] - self._stamps_ns[0])

    @property
    def jitter_ms(self) -> float | None:
        """How far 99 of 100 pauses between messages stay within their median; None with too few messages."""
        if len(self._stamps_ns) < 3:
            return None
        pauses = np.diff(self._stamps_ns)
        return float(np.percentile(np.abs(pauses - np.median(pauses)), 99)) / MS

    def age_ms(self, now_ns: int) -> float | None:
        """Age of the newest message; None before the first."""
        age_ns = self.reader.age_ns(now_ns)
        return None if age_ns is None else age_ns / MS


class System:
    """Everything that `status` listens to."""

    def __init__(self, bus: Bus, rig: RigConfig) -> None:
        cameras = [messages.camera_topic(name, camera.fps) for name, camera in rig.cameras.items()]
        self.rig = rig
        self.run_dir = bus.run_dir
        self.topics = [TopicWatch(bus, topic) for topic in (*messages.TOPICS, *cameras)]
        self.mode = next(watch for watch in self.topics if watch.topic is messages.MODE)
        self.health = {name: TopicWatch(bus, messages.health_topic(name)) for name in every_process(rig)}
        self._processes: dict[int, psutil.Process] = {}

    def poll(self, now_ns: int) -> None:
        """Take every message that came."""
        for watch in (*self.topics, *self.health.values()):
            watch.poll(now_ns)

    @property
    def heard(self) -> bool:
        """Whether anything at all was received."""
        return any(watch.reader.received for watch in (*self.topics, *self.health.values()))

    def reports(self) -> Iterator[tuple[str, Health | None, float | None]]:
        """Every process of the running job: name, newest health report, its age (ms). One that has ended without giving
        its topic back is among them, without a report."""
        now_ns = time.monotonic_ns()
        for name, watch in self.health.items():
            report: Health | None = watch.reader.latest()
            if report is not None or (self.run_dir / f"health.{name}.lock").exists():
                yield name, report, watch.age_ms(now_ns)

    def alive(self, name: str) -> bool:
        """Whether a process holds its health topic."""
        return lock_holder(self.run_dir / f"health.{name}.lock") is not None

    def usage(self, pid: int) -> tuple[float, float] | None:
        """CPU (percent of one core since the last look) and resident memory (MB) of a process; None when it is gone."""
        try:
            if pid not in self._processes:
                self._processes[pid] = psutil.Process(pid)
            process = self._processes[pid]
            return process.cpu_percent(), process.memory_info().rss / 1e6
        except psutil.Error:
            return None
