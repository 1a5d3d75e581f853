"""The ZeroMQ sockets of one process: a context, their limits, and their places in the run directory."""

import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import zmq

from aloha_runtime.messages import Topic
from aloha_runtime.realtime import TRANSPORT_THREAD, Clock
from aloha_runtime.run_directory import Lock, check_run_dir, socket_path

QUEUE_LIMIT = 1000
"""Messages the socket of a deep reader (`depth`) keeps while its process stands still: 5 s of the fastest topic. A
message that comes alone occupies 8 kB there (libzmq's buffer), so 8 MB a topic at most."""
KEPT_S = 2.0
"""What a publisher keeps for a reader that does not read, in seconds of its topic's rate; what reaches the reader's
socket comes on top."""
KEPT_LEAST = 32
"""... and never fewer messages: 6 s of health reports."""
KEPT_BYTES = 1 << 19
"""... nor more bytes for each reader: 2 s of arm states (0.9 kB, 200 Hz) are 0.36 MB."""
VIRTUAL_QUEUE_LIMIT = 100_000
"""The same under virtual time, where a queue must hold whatever comes between two turns of its reader."""
MAX_MESSAGE_BYTES = 1 << 20
"""A peer that sends more is disconnected for good (libzmq's default is no limit); publishers refuse to."""
RECONNECT_MS, RECONNECT_MAX_MS = 10, 100
"""First and largest pause between attempts to reach an absent publisher; the larger bounds what a restart costs."""
PROMISED_MS = 5000
"""Wall time after which a message or subscription that virtual time promised is taken for lost with its process."""

THREAD_START_S = 5.0
"""A thread that has not begun by then belongs to a machine with other troubles."""


def kept(topic: Topic) -> int:
    """How many messages of a topic its publisher keeps for a reader that does not read."""
    return max(KEPT_LEAST, math.ceil(topic.rate_hz * KEPT_S))


class Closeable(ABC):
    """Something that holds a socket or a mapping. As a context manager it is closed at the end; twice is harmless."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Closes(Protocol):
    def close(self) -> None: ...


Opened = TypeVar("Opened", bound=_Closes)


class Sockets(Closeable):
    """Makes the sockets that the classes of this room use, and closes those that are still open."""

    def __init__(self, run_dir: Path, clock: Clock) -> None:
        check_run_dir(run_dir)
        self.run_dir = run_dir.absolute()
        self.clock = clock
        self._open: list[_Closes] = []
        self._context = _started_context()

    def own(self, opened: Opened) -> Opened:
        """Close `opened` together with this bus, unless it is closed before (`forget`)."""
        self._open.append(opened)
        return opened

    def forget(self, closed: _Closes) -> None:
        """`closed` is closed: nothing of it is kept."""
        self._open = [opened for opened in self._open if opened is not closed]

    @property
    def opened(self) -> int:
        """How many publishers, subscribers, servers, clients and rings are open."""
        return len(self._open)

    def socket(self, kind: int, queue_limit: int) -> "zmq.Socket[bytes]":
        """A socket that keeps at most `queue_limit` messages for a peer, and drops them when it is closed."""
        socket = self._context.socket(kind)
        if self.clock.virtual:
            queue_limit = VIRTUAL_QUEUE_LIMIT
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, queue_limit)
        socket.setsockopt(zmq.RCVHWM, queue_limit)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        return socket

    def ipc(self, name: str) -> str:
        """Endpoint NAME.ipc in the run directory."""
        return f"ipc://{socket_path(self.run_dir, f'{name}.ipc')}"

    def take(self, name: str, taken: str) -> Lock:
        """The right to bind NAME.ipc, which libzmq would otherwise steal in silence from a live process."""
        return Lock(self.run_dir / f"{name}.lock", taken)

    def close(self) -> None:
        """Close everything, also the sockets of a constructor that failed; removes this process's sockets and locks
        from the run directory."""
        for opened in reversed(self._open):
            opened.close()
        self._context.destroy(linger=0)


def _started_context() -> "zmq.Context[zmq.Socket[bytes]]":
    """A context whose threads run: each sets its own scheduling and then its name, which must be over before
    `realtime.prepare` gives it a priority, or libzmq aborts the process."""
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.socket(zmq.PAIR).close()  # the threads start with the first socket
    give_up = time.monotonic() + THREAD_START_S
    for thread in set(tasks.iterdir()) - before:
        while not (thread / "comm").read_text().startswith(TRANSPORT_THREAD) and time.monotonic() < give_up:
            time.sleep(0.001)
    return context
