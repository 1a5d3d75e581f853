"""The server of virtual time: who runs next, in which order, and what must have reached it by then.

See `virtual_time` for the participants' side and the wire.
"""

import logging
import select
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from aloha_runtime.decoding import decoder
from aloha_runtime.run_directory import Lock, lock_holder, socket_path
from aloha_runtime.virtual_time import (
    EPOCH_NS,
    FOREVER_NS,
    PACKET_BYTES,
    TIME,
    Count,
    Grant,
    Join,
    Refusal,
    Wait,
    channel_topic,
    encode,
)

_STOP_POLL_S = 0.1
_decode = decoder(Join | Wait)
_log = logging.getLogger(__name__)


class _Participant:
    def __init__(self, connection: socket.socket, join: Join, now_ns: int) -> None:
        self.connection = connection
        self.name = join.name
        self.pid = join.pid
        self.priority = join.priority
        self.deadline_ns = now_ns
        self.wake: list[str] = []
        self.topics: set[str] = set()
        self.subscribed: dict[str, str] = {}
        self.news: dict[str, Count] = {}
        self.tokens_version = -1

    def order(self) -> tuple[int, int, str]:
        return self.deadline_ns, self.priority, self.name


class TimeServer:
    """Grants virtual time. `run` it in a process or thread of its own."""

    def __init__(self, run_dir: Path, expected: Collection[str] = (), stall_s: float = 120.0) -> None:
        """Time starts when every participant named in `expected` has joined; who joins later starts at the time it then
        is. A participant that keeps its grant for `stall_s` wall seconds is expelled, so it cannot stop time for ever.
        TransportError when another server runs in this run directory."""
        self.now_ns = EPOCH_NS
        self.grants = 0
        self._missing = set(expected)
        self._stall_s = stall_s
        self._participants: dict[int, _Participant] = {}
        self._strangers: dict[int, socket.socket] = {}
        self._running: _Participant | None = None
        self._granted_at = 0.0
        self._tokens_version = 0
        self._lock = Lock(
            run_dir / f"{TIME}.lock", f"virtual time is served in {run_dir} already: pid {{pid}} ({{command}})"
        )
        path = socket_path(run_dir, f"{TIME}.ipc")
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)

    @property
    def missing(self) -> set[str]:
        """Expected participants that have not joined yet; time stands still until this is empty."""
        return set(self._missing)

    def expect(self, name: str) -> None:
        """Let time stand still until this participant, which is being started again, has joined. From any thread."""
        self._missing.add(name)

    def forget(self, name: str) -> None:
        """Expect a participant no longer."""
        self._missing.discard(name)

    @property
    def participants(self) -> list[str]:
        """Names of those who take part now."""
        return sorted(participant.name for participant in self._participants.values())

    def run(self, stop: Callable[[], bool]) -> None:
        """Grant time until `stop()`, which is asked ten times a second."""
        next_check = 0.0
        while True:
            now = time.monotonic()
            if now >= next_check:
                next_check = now + _STOP_POLL_S
                if stop():
                    return
                self._expel_stalled(now)
            for fd, _ in self._poll.poll(_STOP_POLL_S):
                self._receive(fd)
            self._grant()

    def _receive(self, fd: int) -> None:
        if fd == self._listener.fileno():
            connection, _ = self._listener.accept()
            self._strangers[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)
            return
        participant = self._participants.get(fd)
        connection = participant.connection if participant else self._strangers[fd]
        try:
            data = connection.recv(PACKET_BYTES)
            packet = _decode(data) if data else None
        except (OSError, msgspec.DecodeError):
            packet = None
        if isinstance(packet, Wait) and participant is self._running and participant is not None:
            self._wait(participant, packet)
        elif isinstance(packet, Join) and participant is None:
            self._join(fd, packet)
        else:
            self._remove(fd)

    def _join(self, fd: int, join: Join) -> None:
        for other in self._participants.values():
            if other.name == join.name:
                reason = f"{join.name} takes part in virtual time already: pid {other.pid}; stop that process first"
                self._strangers[fd].send(encode(Refusal(reason)))
                self._remove(fd)
                return
        self._participants[fd] = _Participant(self._strangers.pop(fd), join, self.now_ns)
        self._missing.discard(join.name)

    def _wait(self, participant: _Participant, wait: Wait) -> None:
        participant.deadline_ns = wait.deadline_ns
        participant.wake = wait.wake
        if wait.subscribed is not None:
            participant.subscribed = wait.subscribed
            participant.topics = set(wait.subscribed.values())
            self._tokens_version += 1
        for channel, count in wait.published.items():
            topic = channel_topic(channel)
            for other in self._participants.values():
                if topic in other.topics:
                    other.news[channel] = count
                    if topic in other.wake:
                        other.deadline_ns = min(other.deadline_ns, self.now_ns)
        self._running = None

    def _grant(self) -> None:
        if self._running is not None or self._missing or not self._participants:
            return
        chosen = min(self._participants.values(), key=_Participant.order)
        if chosen.deadline_ns == FOREVER_NS:
            return
        self.now_ns = max(self.now_ns, chosen.deadline_ns)
        tokens = None
        if chosen.tokens_version != self._tokens_version:
            chosen.tokens_version = self._tokens_version
            tokens = {
                token: topic for other in self._participants.values() for token, topic in other.subscribed.items()
            }
        news, chosen.news = chosen.news, {}
        self._running = chosen
        self._granted_at = time.monotonic()
        self.grants += 1
        try:
            chosen.connection.send(encode(Grant(self.now_ns, news, tokens)))
        except OSError:
            self._remove(chosen.connection.fileno())

    def _remove(self, fd: int) -> None:
        participant = self._participants.pop(fd, None)
        connection = participant.connection if participant else self._strangers.pop(fd)
        self._poll.unregister(connection)
        connection.close()
        if participant is not None:
            self._tokens_version += 1
            if participant is self._running:
                self._running = None

    def _expel_stalled(self, now: float) -> None:
        if self._running is not None and now - self._granted_at > self._stall_s:
            name, pid = self._running.name, self._running.pid
            _log.error("%s (pid %d) kept virtual time for %.0f s: expelled; look at its log", name, pid, self._stall_s)
            self._remove(self._running.connection.fileno())

    def close(self) -> None:
        """End virtual time: every participant gets a TransportError at its next sleep."""
        for fd in [*self._participants, *self._strangers]:
            self._remove(fd)
        self._poll.close()
        self._listener.close()
        self._lock.release()


def time_served(run_dir: Path) -> bool:
    """Whether virtual time is served in this run directory by a live process."""
    return lock_holder(run_dir / f"{TIME}.lock") is not None
