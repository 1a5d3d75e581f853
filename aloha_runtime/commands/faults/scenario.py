"""What a fault scenario is, and what came of trying it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any


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


@dataclass(frozen=True)
class Family:
    """Scenarios that share one running rig."""

    name: str
    rig: Callable[[], AbstractContextManager[Any]]
    scenarios: Sequence[Scenario]


@dataclass
class Result:
    """A scenario's trials. A trial with a figure above the bound has not held."""

    name: str
    promise: str
    unit: str
    bound: float | None
    trials: list[Trial] = field(default_factory=list)

    @property
    def counted(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.apart]

    @property
    def held(self) -> int:
        return sum(not self.why(trial) for trial in self.counted)

    @property
    def met(self) -> bool:
        """Every trial that counts has held, and there is one."""
        return bool(self.counted) and self.held == len(self.counted)

    def why(self, trial: Trial) -> str:
        """Why a trial did not hold; empty when it did."""
        if not trial.broken and trial.figure is not None and self.bound is not None and trial.figure > self.bound:
            return f"{trial.figure:.4g} {self.unit}, promised are {self.bound:.4g}"
        return trial.broken

    def reasons(self) -> Iterator[str]:
        """What did not hold, and why trials are listed apart."""
        for trial in self.trials:
            if reason := trial.apart or self.why(trial):
                yield reason

    def as_json(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("name", "promise", "unit", "bound", "held", "met")}
        return found | {"tried": len(self.counted), "trials": [asdict(trial) for trial in self.trials]}
