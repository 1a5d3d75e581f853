"""Threads that keep a loop from its time: Python runs one thread at a time, whatever its priority.

A helper thread that never waits costs the loop beside it 5 ms at the median, even at real-time priority, and nothing
else tells why the loop comes late. So every process looks at its own threads and names the one that does it.
"""

import threading
import time
from collections.abc import Collection

SPAN_NS = 1_000_000_000
"""Shares of a core are taken over at least this long: a thread may well work hard for a moment."""
BUSY_SHARE = 0.5
"""Of a core. What a controller's helper threads do (take a frame, write a line) needs a few hundredths."""


class BusyThreads:
    """Of this process: which Python thread, other than the caller and its `workers`, hardly ever waits."""

    def __init__(self, workers: Collection[str] = ()) -> None:
        """`workers`: beginnings of the names of threads that are meant to work hard and give the interpreter away
        meanwhile (inference, decoding)."""
        self._workers = tuple(workers)
        self._began_ns = time.monotonic_ns()
        self._used_ns: dict[int, int] = {}
        self._trouble = ""

    def look(self) -> str:
        """What is wrong and what to do, empty when nothing is. Cheap: nothing happens within `SPAN_NS` of the last
        look, and a process of one thread has nothing to look at."""
        now_ns = time.monotonic_ns()
        elapsed_ns = now_ns - self._began_ns
        if elapsed_ns < SPAN_NS:
            return self._trouble
        threads = {thread.native_id or 0: thread for thread in threading.enumerate() if self._counts(thread)}
        used_ns = {ident: _used_ns(ident) for ident in threads}
        shares = {
            threads[ident].name: (used - self._used_ns.get(ident, used)) / elapsed_ns for ident, used in used_ns.items()
        }
        self._began_ns, self._used_ns = now_ns, used_ns
        name = max(shares, key=lambda each: shares[each], default="")
        self._trouble = ""
        if name and shares[name] > BUSY_SHARE:
            self._trouble = (
                f"thread {name!r} of this process uses {shares[name]:.0%} of a core and holds the loop up; "
                "make it wait for its work, or a process of its own"
            )
        return self._trouble

    def _counts(self, thread: threading.Thread) -> bool:
        return thread is not threading.current_thread() and not thread.name.startswith(self._workers or ("\0",))


def _used_ns(native_id: int) -> int:
    """CPU time of a thread since it began; 0 when it has ended. The clock's number is made from the thread's as the
    kernel does it (MAKE_THREAD_CPUCLOCK), which is harmless for one that ended; by `pthread_t` it would be a crash."""
    try:
        return time.clock_gettime_ns(~native_id << 3 | 6)
    except OSError:
        return 0
