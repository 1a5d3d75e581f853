"""The ZeroMQ sockets of one process: a context, their limits, and their places in the run directory."""

import time
from pathlib import Path

import zmq

from aloha_runtime.realtime import TRANSPORT_THREAD, Clock
from aloha_runtime.run_directory import Lock, check_run_dir, socket_path

QUEUE_LIMIT = 1000
"""Messages a socket keeps for a stalled peer: 5 s of the fastest topic, so that the newest survive a stall."""
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


class Sockets:
    """Makes the sockets that the classes of this room use."""

    def __init__(self, run_dir: Path, clock: Clock) -> None:
        check_run_dir(run_dir)
        self.run_dir = run_dir.absolute()
        self.clock = clock
        self._context = _started_context()

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
        """Close every socket, also those of a constructor that failed."""
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
