"""How the chunks of a checkpoint are carried out: as its author meant it, unless the operator says otherwise.

A checkpoint's `config.json` says it in LeRobot's words: `temporal_ensemble_coeff` c is the weighted mean of all chunks,
one predicted at every tick, with weights exp(-c i), i = 0 the oldest; without it `n_action_steps` actions of one chunk
go out before the next chunk counts.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from aloha_runtime.act.ensemble import PAPER_COEFFICIENT, Mode, TemporalEnsemble

CHECKPOINT = "checkpoint"
Wanted = Literal["checkpoint", "off", "paper", "newest"]
"""`checkpoint`: what its own configuration says; any other: that mode of `TemporalEnsemble`, whatever it says."""


class Says(Protocol):
    """What is asked of a checkpoint's configuration (`ACTConfig`)."""

    @property
    def temporal_ensemble_coeff(self) -> float | None: ...
    @property
    def n_action_steps(self) -> int: ...
    @property
    def chunk_size(self) -> int: ...


@dataclass(frozen=True)
class Execution:
    """What is used of a checkpoint's chunks. `coefficient` counts with an ensemble, `steps` without one."""

    mode: Mode
    coefficient: float
    steps: int
    by: str
    """Who says so, for people."""

    def ensemble(self, speed: float = 1.0) -> TemporalEnsemble:
        """For ticks of a motion at `speed` times its pace: weights and open-loop stretches count trained steps, of
        which a slower motion makes fewer in a tick."""
        return TemporalEnsemble(self.mode, self.coefficient * speed, math.ceil(self.steps / speed))

    def __str__(self) -> str:
        if self.mode == "off":
            return f"{self.steps} actions of each chunk, no ensembling ({self.by})"
        first = "oldest" if self.mode == "paper" else "newest"
        return f"temporal ensembling, coefficient {self.coefficient:g}, the {first} chunk first ({self.by})"


def execution_of(
    config: Says, wanted: Wanted = "checkpoint", coefficient: float | None = None, steps: int | None = None
) -> Execution:
    """What is used: `wanted`, `coefficient` and `steps` of the operator, and where those say nothing the checkpoint's
    own `temporal_ensemble_coeff` and `n_action_steps`."""
    own = config.temporal_ensemble_coeff
    # Ensembling has no open-loop stretch: its `n_action_steps` is 1, and a whole chunk is what there is to execute.
    own_steps = config.n_action_steps if own is None else config.chunk_size
    mode: Mode = wanted if wanted != "checkpoint" else "off" if own is None else "paper"
    used = coefficient if coefficient is not None else own if own is not None else PAPER_COEFFICIENT
    meant = f"temporal_ensemble_coeff {own:g}" if own is not None else f"n_action_steps {own_steps}"
    said = "as the checkpoint says" if wanted == "checkpoint" else f"the operator's choice; the checkpoint says {meant}"
    return Execution(mode, used, min(steps or own_steps, config.chunk_size), said)
