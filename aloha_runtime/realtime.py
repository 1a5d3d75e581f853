"""Time: the clock interface, loops paced by absolute deadlines, and what the system grants a real-time process.

Every stamp is int nanoseconds of one monotonic clock. `WallClock` is one driver of the interface; the other is
`virtual_time.VirtualClock`, which runs the same processes in lock-step.
"""

import ctypes
import errno
import gc
import os
import resource
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
TRANSPORT_THREAD = "ZMQbg"
"""Name of the threads that carry the bus's messages; they get the same priority as the loop that waits for them."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_SYS_NICE, _CAP_IPC_LOCK = 23, 14


class Clock(Protocol):
    """What a loop needs to know about time. `virtual` is True where time is granted, not elapsed."""

    virtual: bool

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        ...

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at `deadline_ns` or as soon after it as possible; at once when it has passed."""
        ...


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class WallClock:
    """CLOCK_MONOTONIC. Sleeps to an absolute instant without the GIL, so a signal or a stall adds no drift."""

    virtual = False

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, deadline_ns: int) -> None:
        request = _Timespec(*divmod(deadline_ns, NS_PER_S))
        while deadline_ns > time.monotonic_ns():
            failure = _LIBC.clock_nanosleep(_CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(request), None)
            if failure not in (0, errno.EINTR):  # after EINTR Python's handlers have run: sleep the rest
                raise OSError(failure, os.strerror(failure))


class Histogram:
    """Counts of durations in 8 bins an octave: bounded memory however long a process runs, quantiles within 13 %."""

    _SUB_BITS = 3

    def __init__(self) -> None:
        self._bins = [0] * (64 << self._SUB_BITS)
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; a negative one counts as zero."""
        duration_ns = max(0, duration_ns)
        octave = max(0, duration_ns.bit_length() - 1 - self._SUB_BITS)
        self._bins[min((octave << self._SUB_BITS) + (duration_ns >> octave), len(self._bins) - 1)] += 1
        self.count += 1
        self.max_ns = max(self.max_ns, duration_ns)

    def quantile_ns(self, share: float) -> int:
        """Upper edge of the bin that holds the quantile, never above the maximum; 0 while empty."""
        rank, seen = share * self.count, 0
        for index, count in enumerate(self._bins):
            seen += count
            if count and seen >= rank:
                octave = max(0, (index >> self._SUB_BITS) - 1)
                mantissa = index - (octave << self._SUB_BITS)
                return min(((mantissa + 1) << octave) - 1, self.max_ns)
        return 0

    @property
    def p50_ns(self) -> int:
        return self.quantile_ns(0.50)

    @property
    def p99_ns(self) -> int:
        return self.quantile_ns(0.99)


@dataclass(frozen=True)
class Beat:
    """One turn of a loop. `index` is absolute: (deadline - phase) // period; `skipped`: slots lost just before it."""

    index: int
    deadline_ns: int
    lateness_ns: int
    skipped: int


class Pacer:
    """Beats at absolute multiples of `period_ns` (plus `phase_ns`), at most one in each slot.

    A beat that comes late within its own slot still takes place, its lateness recorded. Slots that passed entirely are
    skipped and counted, so after a stall there is never a burst, and the beat numbers stay those of the clock.
    """

    def __init__(self, clock: Clock, period_ns: int, phase_ns: int = 0) -> None:
        if period_ns <= 0:
            raise ValueError(f"period_ns must be positive, not {period_ns}")
        self._clock = clock
        self._period_ns = period_ns
        self._phase_ns = phase_ns
        self._last: int | None = None
        self.beats = 0
        self.skipped_total = 0
        self.lateness = Histogram()

    def _slot(self, now_ns: int) -> int:
        return (now_ns - self._phase_ns) // self._period_ns

    def wait(self) -> Beat:
        """Sleep to the next beat and return it."""
        if self._last is None:
            self._last = self._slot(self._clock.now_ns() - 1)  # an instant exactly on a beat takes that beat
        wanted = self._last + 1
        self._clock.sleep_until(wanted * self._period_ns + self._phase_ns)
        now_ns = self._clock.now_ns()
        index = max(wanted, self._slot(now_ns))  # the work before, or the sleep itself, may have lost slots
        deadline_ns = index * self._period_ns + self._phase_ns
        beat = Beat(index, deadline_ns, now_ns - deadline_ns, index - wanted)
        self._last = index
        self.beats += 1
        self.skipped_total += beat.skipped
        self.lateness.add(beat.lateness_ns)
        return beat

    def figures(self) -> dict[str, float]:
        """For the health report: beats, beats lost, and how long after each beat the loop woke (ms)."""
        return {
            "beats": self.beats,
            "skipped": self.skipped_total,
            "lateness_p50_ms": self.lateness.p50_ns / NS_PER_MS,
            "lateness_p99_ms": self.lateness.p99_ns / NS_PER_MS,
            "lateness_worst_ms": self.lateness.max_ns / NS_PER_MS,
        }


@dataclass
class RealtimeReport:
    """What was granted. `problems`: one sentence for each thing that was not, with the exact remedy."""

    priority: int | None = None
    cores: tuple[int, ...] = ()
    memory_locked: bool = False
    objects_frozen: int = 0
    problems: list[str] = field(default_factory=list)


def prepare(priority: int | None, cores: Iterable[int] | None, lock_memory: bool) -> RealtimeReport:
    """Make the calling thread real-time as far as the system permits; call after the imports and `Bus`.

    `priority`: SCHED_FIFO 1..99 for this thread and the bus's, None for an ordinary process; threads started later
    are ordinary ones. `cores`: CPUs for the whole process, empty or None for all. The garbage collector is frozen and
    switched off in any case (a full collection behind `import torch` takes 0.15 s): the loop collects while disarmed.
    Nothing here raises for want of a permission: it is in the report.
    """
    report = RealtimeReport()
    if priority is not None:
        _set_priority(priority, report)
    if cores:
        _set_cores(tuple(cores), report)
    if lock_memory:
        _lock_memory(report)
    gc.collect()
    gc.freeze()
    gc.disable()
    report.objects_frozen = gc.get_freeze_count()
    return report


def _threads(prefix: str) -> list[int]:
    """Ids of this process's threads whose name begins with `prefix`."""
    names = {task: (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()}
    return [int(task.name) for task, name in names.items() if name.startswith(prefix)]


def _remedy(limit: str, value: str, unit_line: str) -> str:
    return (
        f"add the line '{os.environ.get('USER', '@aloha')} - {limit} {value}' to /etc/security/limits.d/aloha.conf and "
        f"log in again, or '{unit_line}' to the systemd unit"
    )


def _has_capability(bit: int) -> bool:
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> bit & 1)


def _set_priority(priority: int, report: RealtimeReport) -> None:
    try:
        for thread in [threading.get_native_id(), *_threads(TRANSPORT_THREAD)]:
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        report.priority = priority
    except OSError as error:
        cause = error.strerror or str(error)
        if _has_capability(_CAP_SYS_NICE):
            cause += " although CAP_SYS_NICE is held: the container or cgroup has no real-time share"
        report.problems.append(
            f"no real-time priority (SCHED_FIFO {priority}: {cause}): "
            + _remedy("rtprio", str(priority), f"CPUSchedulingPolicy=fifo, CPUSchedulingPriority={priority}")
        )


def _set_cores(cores: tuple[int, ...], report: RealtimeReport) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        for thread in _threads(""):
            os.sched_setaffinity(thread, cores)
        report.cores = tuple(sorted(os.sched_getaffinity(0)))
    except OSError as error:
        report.problems.append(
            f"not bound to cores {list(cores)} ({error.strerror}): this process may use {sorted(allowed)}; "
            "name some of these in the rig's configuration"
        )


def _lock_memory(report: RealtimeReport) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = hard == resource.RLIM_INFINITY or _has_capability(_CAP_IPC_LOCK)
    remedy = _remedy("memlock", "unlimited", "LimitMEMLOCK=infinity")
    if not unlimited:
        # Locking under a finite limit would make a later allocation fail, in the middle of a motion.
        report.problems.append(f"memory is not locked (limit {hard // 1024} KiB): {remedy}")
        return
    if soft != hard and hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    # ONFAULT: pages are locked once touched, so thread stacks and reservations nobody uses cost no memory.
    if _LIBC.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        report.memory_locked = True
    else:
        report.problems.append(f"memory is not locked ({os.strerror(ctypes.get_errno())}): {remedy}")
