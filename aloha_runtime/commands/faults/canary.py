"""Whether the machine kept the emulated wire waiting: a process at the arms' own priority that sends itself bytes.

The kernel hands on what is written to a terminal by a worker of ordinary priority. On a machine that is busy with other
work these bytes come up to 0.1 s late, whatever the priority of those who write and read. What the arms did meanwhile
says nothing about the runtime.
"""

import contextlib
import multiprocessing
import os
import time
import tty
from typing import Any

from aloha_runtime.messages import MS

PRIORITY = 50
"""That of the arms process (`realtime.priority`)."""
PERIOD_S = 0.005
BYTES = 100
"""A reply of an arm."""
LATE_NS = 12 * MS
"""Two cycles of the arms and the wire; an idle machine needs 5.2."""
WIRES = 4
"""Each has a worker of its own to wait for, as each arm has."""
KEPT = 256


def watch(late: Any, count: Any) -> None:
    """The child: note every turn that took too long, as (from, to) in monotonic ns."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    wires = [os.openpty() for _ in range(WIRES)]
    for _, driver in wires:
        tty.setraw(driver)
    while True:
        before_ns = time.monotonic_ns()
        time.sleep(PERIOD_S)
        for servos, _ in wires:
            os.write(servos, bytes(BYTES))
        for _, driver in wires:
            missing = BYTES
            while missing:
                missing -= len(os.read(driver, BYTES))
        now_ns = time.monotonic_ns()
        if now_ns - before_ns > LATE_NS:
            place = 2 * (count.value % KEPT)
            late[place : place + 2] = [before_ns, now_ns]
            count.value += 1


class Canary:
    """A context."""

    def __enter__(self) -> "Canary":
        context: Any = multiprocessing.get_context("forkserver")
        self._late, self._count = context.Array("q", 2 * KEPT), context.Value("q", 0)
        self._child = context.Process(target=watch, args=(self._late, self._count), daemon=True)
        self._child.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.join()

    def longest_ms(self, since_ns: int, until_ns: int) -> float:
        """The longest turn that reaches into a span; 0 where none was late."""
        found = self._late[:]
        turns = zip(found[::2], found[1::2], strict=True)
        return max((end - start for start, end in turns if end > since_ns and start < until_ns), default=0) / MS
