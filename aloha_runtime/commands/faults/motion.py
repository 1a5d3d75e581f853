"""Scenarios in which arms move, something fails, and the wire tells what the arms did."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from aloha_runtime.commands.faults.drivers import Fault
from aloha_runtime.commands.faults.rig import GAP_NS, LOOK_S, FaultRig, Look
from aloha_runtime.commands.faults.scenario import Scenario, Trial
from aloha_runtime.messages import MS
from aloha_runtime.robot import RAD_PER_TICK

FROZEN_MS = 70.0
TRAVEL_RAD = 0.27
"""What an arm joint may still travel after the last action: `limits.REACH_RATIO` of the lead, and what an unloaded arm
swings beyond; the wire tells it to a servo's tick."""
ARMS_TRAVEL_RAD = 0.30
"""The same after the death of the arms process: the lead, and what the joint goes until its servo's watchdog trips."""
CYCLE_MS = 5.0
"""Of the arms process: what it does after the last action is counted in its own cycles, of which a busy machine may
take some away."""
Inject = Callable[[Any, Random], tuple[int, str]]
"""Bring the fault about; returns when (monotonic), and what must be named as the cause (a pattern)."""


@dataclass(frozen=True)
class Motion:
    """How a fault is tried on moving arms, and what must come of it."""

    inject: Inject
    stops: bool = True
    """The arms must end in HOLD or FAULT, else stay in POLICY."""
    torque: bool = True
    fault: Fault = "none"
    """Of the policy itself."""
    figure: Callable[[Look], float | None] = lambda look: look.cycles * CYCLE_MS
    look_s: float = LOOK_S
    travel: bool = True
    """The way that joints still go is bounded; not while a servo says nothing of where it is."""
    pauses: bool = False
    """The fault itself keeps the arms process from running."""
    timeout_s: float = 2.0
    after: Callable[[Any, Look], str] | None = None
    """Undo the fault; returns what of the promise does not hold then."""

    def __call__(self, rig: FaultRig, chance: Random) -> Trial:
        """One trial. AlohaError when the arms cannot be moved, now or any more."""
        rig.move(chance, self.fault)
        fault_ns, cause = self.inject(rig, chance)
        look = rig.look(fault_ns, self.stops, self.timeout_s, self.look_s, self.pauses)
        broken = [*self._complaints(look, cause), self.after(rig, look) if self.after else ""]
        found = "; ".join(filter(None, broken))
        figure = self.figure(look)
        paused = look.pause_ms * MS > GAP_NS and not self.pauses
        apart = f"the arms process was not scheduled for {look.pause_ms:.0f} ms" if paused else ""
        return Trial(found, figure, look.travel_rad, look.hold_ms, apart)

    def _complaints(self, look: Look, cause: str) -> list[str]:
        found = []
        if self.stops != (look.hold_ms is not None):
            found.append(f"the mode is {look.mode} ({look.cause})")
        elif not re.search(cause, look.cause):
            found.append(f"{look.mode} does not name {cause!r}: {look.cause!r}")
        if look.outside:
            found.append(f"{look.outside} goals outside the envelope")
        if self.torque and not look.torque:
            found.append("a servo has lost its torque")
        if self.stops and self.travel and look.travel_rad > TRAVEL_RAD + RAD_PER_TICK:
            found.append(f"a joint travelled {look.travel_rad:.4f} rad, promised are {TRAVEL_RAD}")
        return found


def scenario(
    name: str, promise: str, unit: str, bound: float | None, motion: Motion, count: int = 1, soak: int = 0
) -> Scenario:
    return Scenario(name, promise, unit, bound, motion, count, soak)
