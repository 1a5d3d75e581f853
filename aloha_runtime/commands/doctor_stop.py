"""The physical STOP of a rig, tried as the supervisor reads it."""

import time
from collections.abc import Iterator

from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.config import RigConfig
from aloha_runtime.hardware.stop_input import StopInput

CHECK = "stop_input"


def check_stop_input(rig: RigConfig) -> Iterator[Finding]:
    """Whether it can be read, and what it says now. Not while a supervisor runs, which has a serial line to itself."""
    settings = rig.stop_input
    if settings is None:
        if rig.sim is None:
            yield ok(CHECK, "none: STOP is the space bar and `aloha stop` (docs/robot-pc.md: a physical STOP)")
        return
    stop = StopInput(settings)
    seen = stop.look(time.monotonic_ns())
    stop.close()
    if seen.missing:
        what, _, remedy = seen.missing.partition("; ")
        yield fail(CHECK, what, remedy)
    elif seen.held:
        what = "its circuit is open" if settings.port and settings.closed_runs else "it is pressed"
        yield warn(CHECK, f"{settings.name}: {what}, so arming is refused", "release it, or check its cable")
    else:
        yield ok(CHECK, f"{settings.name} is there and released; press it once while the arms are armed, to see HOLD")
