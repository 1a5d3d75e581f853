"""What a fault scenario is, and what came of trying it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from aloha_runtime.errors import AlohaError, ProcessError


@dataclass(frozen=True)
class Trial:
    """One fault, once. `broken`: what of the promise did not hold, empty when all did. `figure`: the number that is
    held against the scenario's bound. `hold_ms`: from the fault to HOLD or FAULT on the mode topic."""

    broken: str = ""
    figure: float | None = None
    travel_rad: float | None = None
    """Farthest way of a joint after the last action, by the wire."""
    hold_ms: float | None = None
    apart: str = ""
    """Why this trial says nothing about the runtime: the machine did not let a process run."""


@dataclass(frozen=True)
class Scenario:
    """A fault and the promise about it. `try_once` injects it and judges what happened."""

    name: str
    promise: str
    unit: str
    """Of the figure, and what it is."""
    bound: float | None
    """Most that the figure may be; None where it is only told."""
    try_once: Callable[[Any, Random], Trial]
    count: int = 1
    """Trials of a plain run."""
    soak: int = 0
    """Trials of a soak; 0: as many as `count`."""

    def why(self, trial: Trial) -> str:
        """Why a trial did not hold; empty when it did."""
        if not trial.broken and trial.figure is not None and self.bound is not None and trial.figure > self.bound:
            return f"{trial.figure:.4g} {self.unit}, promised are {self.bound:.4g}"
        return trial.broken

    def attempt(self, rig: Any, chance: Random) -> Trial:
        """One trial, listed apart when it did not hold while the machine kept the wire waiting (`rig.canary`)."""
        began_ns = time.monotonic_ns()
        try:
            trial = self.try_once(rig, chance)
        except ProcessError:
            raise  # the rig is at its end
        except AlohaError as error:
            trial = Trial(broken=str(error))
        why, canary = self.why(trial), getattr(rig, "canary", None)
        if why and canary is not None and not trial.apart:
            late_ms = canary.longest_ms(began_ns, time.monotonic_ns())
            if late_ms:
                trial = replace(trial, apart=f"the machine kept the wire waiting for {late_ms:.0f} ms: {why}")
        return trial


@dataclass(frozen=True)
class Family:
    """Scenarios that share one running rig."""

    name: str
    rig: Callable[[], AbstractContextManager[Any]]
    scenarios: Sequence[Scenario]


@dataclass
class Result:
    """A scenario's trials."""

    scenario: Scenario
    trials: list[Trial] = field(default_factory=list)

    @property
    def counted(self) -> list[Trial]:
        """Those that are not listed apart."""
        return [trial for trial in self.trials if not trial.apart]

    @property
    def held(self) -> int:
        return sum(not self.scenario.why(trial) for trial in self.counted)

    @property
    def met(self) -> bool:
        """Every trial that counts has held, and there is one."""
        return bool(self.counted) and self.held == len(self.counted)

    def reasons(self) -> Iterator[str]:
        """What did not hold, then why trials are listed apart."""
        yield from filter(None, map(self.scenario.why, self.counted))
        yield from (trial.apart for trial in self.trials if trial.apart)

    def as_json(self) -> dict[str, Any]:
        """The row of the table, with every trial."""
        item = self.scenario
        row = {"name": item.name, "promise": item.promise, "unit": item.unit, "bound": item.bound}
        row |= {"tried": len(self.counted), "held": self.held, "apart": len(self.trials) - len(self.counted)}
        return row | {"met": self.met, "trials": [asdict(trial) for trial in self.trials]}
