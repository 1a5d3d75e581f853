"""Every process of the whole simulated rig killed once, in virtual time; and the full policy process, in real time.

The simulated world, its cameras and the shipped policy take part: `commands/bench_kills.py` kills and judges.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Literal

from aloha_runtime.commands.bench_kills import FROZEN_MS, TRAVEL_RAD, VICTIMS, Outcome, outcomes
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.processes.table import Job

POLICY = "demo"
KILLS_A_RUN = 10
"""Of the full policy process in one running rig."""


def complaint(outcome: Outcome) -> str:
    """What of the promise did not hold after one kill; empty when all did."""
    found = [
        "" if outcome.driven or outcome.after_action_ms <= FROZEN_MS else f"goals for {outcome.after_action_ms:.0f} ms",
        "" if outcome.driven or outcome.travel_rad <= TRAVEL_RAD else f"travelled {outcome.travel_rad:.3f} rad",
        f"{outcome.outside} goals outside the envelope" if outcome.outside else "",
        "" if outcome.torque else "a servo has lost its torque",
        outcome.again,
    ]
    said = ", ".join(filter(None, found))
    return f"{outcome.victim} killed: {said}" if said else ""


def _kill(job: Job, victims: tuple[str, ...], clock: Literal["virtual", "wall"]) -> Callable[[None, Random], Trial]:
    def try_once(_rig: None, _chance: Random) -> Trial:
        found = outcomes(job, victims, POLICY if job is Job.DEPLOY else "", clock)
        ended = [outcome for outcome in found if not outcome.driven]
        return Trial(
            "; ".join(filter(None, map(complaint, found))),
            max((outcome.after_action_ms for outcome in ended), default=None),
            max((outcome.travel_rad for outcome in ended), default=None),
        )

    return try_once


@contextmanager
def no_rig() -> Iterator[None]:
    """Each trial starts a rig of its own."""
    yield


PROMISE = "goals frozen within 70 ms, torque on, nothing out of the envelope, armed and moved again"

WHOLE_RIG = Family(
    "whole rig",
    no_rig,
    (
        Scenario(
            "each process of teleoperation killed",
            PROMISE,
            "ms after the last action",
            FROZEN_MS,
            _kill(Job.DEMONSTRATE, VICTIMS, "virtual"),
        ),
        Scenario(
            f"full policy process killed {KILLS_A_RUN} times",
            PROMISE,
            "ms after the last action",
            FROZEN_MS,
            _kill(Job.DEPLOY, ("policy",) * KILLS_A_RUN, "wall"),
            soak=3,
        ),
    ),
)
