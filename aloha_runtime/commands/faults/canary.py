"""Whether the machine itself stood still: a process that does nothing but wake up, at the arms' own priority.

Where it is late, so are the arms and the emulated servos, and what they did then says nothing about the runtime.
"""

import contextlib
import multiprocessing
import os
import time
from typing import Any

from aloha_runtime.messages import MS

PRIORITY = 50
"""That of the arms process (`realtime.priority`)."""
PERIOD_S = 0.003
LATE_NS = 25 * MS
"""Five cycles of the arms; less than this no promise hangs on."""
KEPT = 256


def watch(gaps: Any, count: Any) -> None:
    """The child: note every wake-up that came late, as (from, to) in monotonic ns."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    before_ns = time.monotonic_ns()
    while True:
        time.sleep(PERIOD_S)
        now_ns = time.monotonic_ns()
        if now_ns - before_ns > LATE_NS:
            place = 2 * (count.value % KEPT)
            gaps[place : place + 2] = [before_ns, now_ns]
            count.value += 1
        before_ns = now_ns


class Canary:
    """A context."""

    def __enter__(self) -> "Canary":
        context: Any = multiprocessing.get_context("forkserver")
        self._gaps, self._count = context.Array("q", 2 * KEPT), context.Value("q", 0)
        self._child = context.Process(target=watch, args=(self._gaps, self._count), daemon=True)
        self._child.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.join()

    def longest_ms(self, since_ns: int, until_ns: int) -> float:
        """The longest time in a span in which this machine did not run it; 0 where it was never much too late."""
        found = self._gaps[:]
        spans = zip(found[::2], found[1::2], strict=True)
        return max((end - start for start, end in spans if end > since_ns and start < until_ns), default=0) / MS
