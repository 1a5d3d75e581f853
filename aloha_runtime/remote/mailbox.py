"""One socket, read by a thread of its own, always: what waits is the newest of each sender, in a queue of ours.

libzmq stops reading a connection whose receive limit is reached. When that connection then breaks off, its next ping or
pong ends the whole process (`Assertion failed: !_io_error`, stream_engine_base.cpp of 4.3.5). So nothing waits there:
the socket has no receive limit, and this thread empties it. It drops the oldest message of a peer that sends too much.
"""

import contextlib
import os
import select
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import zmq

BATCH = 64
"""Messages read before a thread that wants to send gets the socket."""
LOOK_MS = 100
"""The socket's own signal is edge-triggered, and sending may take it: so often it is looked at anyway."""
MOST_PARTS = 3
"""Kept of a message; none of ours has more than two, and what has three is refused."""
Parts = list[zmq.Frame]


def _nobody(_parts: Parts) -> str:
    return ""


class Mailbox:
    """Reads and sends for any thread. Whoever made the socket hands it over: only `close` closes it."""

    def __init__(self, socket: "zmq.Socket[bytes]", kept: int, sender: Callable[[Parts], str] = _nobody) -> None:
        """`kept`: messages that wait for each sender, by the name that `sender` gives."""
        self._socket, self._kept, self._sender = socket, kept, sender
        self.dropped = 0
        """Messages that a newer one of the same sender has pushed out unread."""
        self._queues: OrderedDict[str, deque[Parts]] = OrderedDict()
        self._queues_lock, self._socket_lock = threading.Lock(), threading.Lock()
        self._arrived, self._wake = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="mailbox", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable while something waits, for pollers."""
        return self._arrived

    def wait(self, timeout_ms: int) -> bool:
        """Whether something waits, at the latest after this time."""
        poll = select.poll()
        poll.register(self._arrived, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def take(self) -> list[Parts]:
        """All that waits of one sender, oldest first; each call another sender, in the order in which they came."""
        with self._queues_lock:
            if not self._queues:
                return []
            _, taken = self._queues.popitem(last=False)
            if not self._queues:
                os.eventfd_read(self._arrived)
        return list(taken)

    def senders(self) -> int:
        """How many have something waiting."""
        return len(self._queues)

    def send(self, parts: Sequence[bytes]) -> None:
        """Send at once; zmq.ZMQError where it cannot be."""
        with self._socket_lock:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        os.eventfd_write(self._wake, 1)  # sending may have taken the signal of what arrived meanwhile

    def stop(self) -> None:
        """Read no more; twice is harmless. Then the socket belongs to the caller again."""
        self._ending = True
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()

    def close(self) -> None:
        """Stop, and close the socket; twice is harmless."""
        self.stop()
        if not self._socket.closed:
            self._socket.close(0)
            os.close(self._arrived)
            os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        for fd in (int(self._socket.get(zmq.FD)), self._wake):
            poll.register(fd, select.POLLIN)
        while not self._ending:
            poll.poll(LOOK_MS)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            while len(self._read()) == BATCH and not self._ending:
                pass

    def _read(self) -> list[Parts]:
        batch: list[Parts] = []
        with self._socket_lock:
            for _ in range(BATCH):
                try:
                    batch.append(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
                except zmq.Again:
                    break
        for parts in batch:
            self._keep(parts[:MOST_PARTS])
        return batch

    def _keep(self, parts: Parts) -> None:
        sender = self._sender(parts)
        with self._queues_lock:
            if not self._queues:
                os.eventfd_write(self._arrived, 1)
            queue = self._queues.setdefault(sender, deque(maxlen=self._kept))
            self.dropped += len(queue) == self._kept
            queue.append(parts)
