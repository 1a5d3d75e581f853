"""What episodes say about a policy: success rate and its interval, stages, and whether one policy beats another."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from aloha_runtime.act.ensemble import Mode
from aloha_runtime.sim.model import Task

Z95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""

STAGES: dict[Task, tuple[tuple[str, int], ...]] = {
    "transfer_cube": (("touched", 1), ("lifted", 2), ("transferred", 4)),
    "insertion": (("grasp", 2), ("contact", 3), ("inserted", 4)),
}
"""Columns of the paper's table I, and the stage of `sim/tasks.py` that each stands for."""

PAPER: dict[Task, tuple[float, float, float]] = {
    "transfer_cube": (0.97, 0.90, 0.86),
    "insertion": (0.93, 0.90, 0.32),
}
"""The same columns for ACT with 50 scripted demonstrations (Zhao et al. 2023, https://arxiv.org/abs/2304.13705)."""


SCRIPTED = "scripted"
"""In place of a policy: the demonstrator, as an upper bound."""


@dataclass(frozen=True)
class Contender:
    """Who acts: a policy (directory, `demo` or `scripted`) and how its chunks become actions."""

    policy: str
    ensemble: Mode


@dataclass(frozen=True)
class Trial:
    """A contender (its place in the list), a seed, and where the video goes."""

    contender: int
    seed: int
    video: Path | None


@dataclass(frozen=True)
class Outcome:
    """One episode. `stage`: the furthest reached, 0..4; `steps`: until success, or all of them."""

    seed: int
    success: bool
    stage: int
    steps: int
    success_step: int | None


@dataclass(frozen=True)
class Result:
    """All episodes of one contender on one task, by seed."""

    label: str
    contender: Contender
    task: Task
    outcomes: tuple[Outcome, ...]

    @property
    def solved(self) -> int:
        return sum(outcome.success for outcome in self.outcomes)

    @property
    def success_rate(self) -> float:
        return self.solved / len(self.outcomes)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.solved, len(self.outcomes))

    @property
    def stages(self) -> dict[str, float]:
        """Share of the episodes that came as far as each stage of the paper's table, or further."""
        return {name: self.reached(stage) / len(self.outcomes) for name, stage in STAGES[self.task]}

    def reached(self, stage: int) -> int:
        """Episodes that came as far as `stage` (0..4) or further."""
        return sum(outcome.stage >= stage for outcome in self.outcomes)

    @property
    def median_steps(self) -> float | None:
        """Steps until success, of the episodes that have it."""
        steps = [outcome.success_step for outcome in self.outcomes if outcome.success_step is not None]
        return median(steps) if steps else None


@dataclass(frozen=True)
class Paired:
    """Two contenders on the same seeds: how often both, only one, or neither succeeded, and McNemar's exact p."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson 1927): right also for few trials and for rates near 0 and 1."""
    if not trials:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z95 * Z95
    centre = rate + z2 / (2 * trials)
    half = Z95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947; the sign test on the seeds where only one of two succeeded).

    If the two were equally good, each such seed would fall to either like a fair coin: p is twice the binomial tail.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    tail: float = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)


def compare(results: Sequence[Result]) -> list[Paired]:
    """Every pair of contenders; all must have played the same seeds."""
    pairs = []
    for first, second in combinations(results, 2):
        won = [(a.success, b.success) for a, b in zip(first.outcomes, second.outcomes, strict=True)]
        both, one, other, none = (
            won.count(case) for case in ((True, True), (True, False), (False, True), (False, False))
        )
        pairs.append(Paired(first.label, second.label, both, one, other, none, mcnemar(one, other)))
    return pairs


def as_json(task: str, results: Sequence[Result]) -> dict[str, Any]:
    """The report of one contender; of several the same for each under `policies`, and their comparison."""
    reports = [_report(task, result) for result in results]
    if len(reports) == 1:
        return reports[0]
    return {"task": task, "policies": reports, "paired": [asdict(pair) for pair in compare(results)]}


def _report(task: str, result: Result) -> dict[str, Any]:
    return {
        **asdict(result.contender),
        "task": task,
        "success_rate": result.success_rate,
        "interval": list(result.interval),
        "stages": result.stages,
        "stage_counts": [result.reached(stage) for stage in range(1, 5)],
        "episodes": [asdict(outcome) for outcome in result.outcomes],
    }


def labels(contenders: Sequence[Contender]) -> list[str]:
    """Short and different names: folders that every checkpoint has are left out, and so is what all have in common."""
    policies = {contender.policy for contender in contenders}
    short = {policy: _short(policy) for policy in policies}
    if len(set(short.values())) < len(policies):
        short = {policy: policy for policy in policies}
    played = {contender.ensemble for contender in contenders if contender.policy != SCRIPTED}
    if len(played) <= 1:
        return [short[contender.policy] for contender in contenders]
    return [
        SCRIPTED if contender.policy == SCRIPTED else f"{short[contender.policy]}, {contender.ensemble}"
        for contender in contenders
    ]


def _short(policy: str) -> str:
    parts = [part for part in policy.rstrip("/").split("/") if part not in ("", ".", "checkpoints", "pretrained_model")]
    return "/".join(parts[-2:]) or policy
