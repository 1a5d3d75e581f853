"""Whether an episode on the simulated rig ended because this computer was busy with other work.

Emulated servos and cameras are processes of this computer, and starve with it. What counts is the cause (a stall, late
ticks, or a silence of any kind) and, for a silence, what an ordinary loop of this very process has seen meanwhile.
"""

import contextlib
import re
import threading
import time
from types import TracebackType

from aloha_runtime.errors import AlohaError, ArmsStopped, CheckpointError, ConfigError, ProcessError, ShutDown
from aloha_runtime.hardware.echo import Echo
from aloha_runtime.messages import MS
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.stillness import Stillness, is_stall

PERIOD_S = 0.01
LATE_NS = 30 * MS
"""A loop of ordinary priority wakes within 15 ms on a computer that only runs the rig."""
LOOKS_BACK_NS = 10 * NS_PER_S
"""Processes and arms give up, and are parked, at most so long after they were kept waiting."""
BUSY_SHARE = 0.02
"""Share of that time in which an ordinary loop had no turn. On a quiet computer it is 0."""
LATE_TICKS = re.compile(r"ticks were on time")
NOT_UP = re.compile(r"did not report within \d+ s of starting")
"""Processes that live and have not set themselves up yet: in virtual time they get as long as they need."""
SILENCES = re.compile(
    r"is silent|been silent|no servo answers|silent for|no action for|did not (report|happen|answer)|\d ms (old|ago)"
    r"|no frame|stale|stuck for|took longer|no (observation|joint state)|not been heard|\d ms, allowed"
)
"""What somebody says who waited in vain; anything else is a defect, or an order."""
NEVER = (ProcessError, ConfigError, CheckpointError, ShutDown)


class Watch:
    """A loop of ordinary priority and an echo, from a thread of this process. A context."""

    def __init__(self) -> None:
        self._stillness, self._closing = Stillness(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="busy watch", daemon=True)

    def _run(self) -> None:
        echo: Echo | None = None
        with contextlib.suppress(OSError):
            echo = Echo()
        while not self._closing.wait(PERIOD_S):
            now_ns = time.monotonic_ns()
            self._stillness.turn("ordinary loop", now_ns, LATE_NS)
            if echo is not None and echo.came_back():
                self._stillness.turn("echo", now_ns, LATE_NS)
        if echo is not None:
            echo.close()

    def lost_share(self, until_ns: int) -> float:
        """Share of the seconds before an instant (monotonic) in which this computer had no turn for ordinary work."""
        return self._stillness.lost_ns(until_ns - LOOKS_BACK_NS, until_ns) / LOOKS_BACK_NS

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()


def excuses(cause: str, lost_share: float) -> bool:
    """Whether a computer that had no turn for ordinary work in such a share of the time is to blame for a cause."""
    if is_stall(cause) or LATE_TICKS.search(cause) or NOT_UP.search(cause):
        return True
    return lost_share >= BUSY_SHARE and SILENCES.search(cause) is not None


def excuses_error(error: AlohaError, lost_share: float) -> bool:
    """The same for an error; one that a process gave up with is its own."""
    known = isinstance(error, ArmsStopped) or not isinstance(error, NEVER)
    return known and excuses(str(error), lost_share)
