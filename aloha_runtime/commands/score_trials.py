"""The trials of a scored evaluation: their blinded order, their outcomes on disk, and what these say."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from aloha_runtime import durable
from aloha_runtime.commands.evaluate_figures import Paired, mcnemar, wilson
from aloha_runtime.errors import AlohaError

SESSION, TRIALS = "session.json", "trials.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is compared. Every policy meets every scene once; in which order is drawn for each scene, so that
    neither the operator nor a lamp that warms up can favour one. `seed` draws it."""

    policies: tuple[str, ...]
    scenes: int
    task: str
    seed: int

    def order(self) -> list[tuple[int, str]]:
        """(scene, policy) of every trial, in order."""
        draw = random.Random(self.seed)  # noqa: S311 (an order, no secret)
        return [
            (scene, policy)
            for scene in range(self.scenes)
            for policy in draw.sample(self.policies, k=len(self.policies))
        ]


@dataclass(frozen=True)
class Scored:
    """The outcome of one trial. `cause`: who or what decided; `seconds`: of motion until then."""

    scene: int
    policy: str
    success: bool
    seconds: float
    cause: str


@dataclass
class Trials:
    """A session in its folder. Each outcome is on disk before the next trial begins."""

    folder: Path
    plan: Plan
    done: list[Scored] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, plan: Plan, resume: bool) -> "Trials":
        """A new session, or (`resume`) one that goes on with the order that was drawn for it.

        Raises AlohaError for a folder that holds something else, or another comparison, naming the difference.
        """
        file = folder / SESSION
        if not file.exists():
            if folder.exists() and any(folder.iterdir()):
                raise AlohaError(f"{folder} is not empty and no scored evaluation: choose another folder with --out")
            durable.make_directory(folder.absolute())
            (folder / TRIALS).touch()
            aside = folder / f".{SESSION}"
            aside.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
            durable.publish(aside, file)
            return cls(folder, plan)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            there = Plan(tuple(found["policies"]), int(found["scenes"]), str(found["task"]), int(found["seed"]))
            done = [Scored(**json.loads(line)) for line in _whole_lines(folder / TRIALS)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AlohaError(f"{folder} cannot be continued ({error!r}): choose another folder with --out") from None
        if not resume:
            raise AlohaError(
                f"{folder} holds {len(done)} of {len(there.order())} trials: add --resume to go on, or choose another"
                " folder with --out"
            )
        differs = [
            f"{name} was {getattr(there, name)}, is {getattr(plan, name)}"
            for name in ("policies", "scenes", "task")
            if getattr(there, name) != getattr(plan, name)
        ]
        if differs:
            raise AlohaError(f"{folder} holds another comparison: {'; '.join(differs)}")
        return cls(folder, there, done)

    def left(self) -> list[tuple[int, str]]:
        """(scene, policy) of the trials that are still to come."""
        return self.plan.order()[len(self.done) :]

    def add(self, scored: Scored) -> None:
        """Keep an outcome. Raises AlohaError when the disk does not take it."""
        try:
            with (self.folder / TRIALS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(scored)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AlohaError(
                f"{self.folder / TRIALS} cannot be written ({error.strerror}); make room, then --resume"
            ) from None
        self.done.append(scored)

    def outcomes(self, policy: str) -> dict[int, bool]:
        """Success by scene, of the trials of one policy."""
        return {scored.scene: scored.success for scored in self.done if scored.policy == policy}

    def pairs(self) -> list[Paired]:
        """Every two policies on the scenes that both have met."""
        found = []
        for first, second in combinations(self.plan.policies, 2):
            one, two = self.outcomes(first), self.outcomes(second)
            met = [(one[scene], two[scene]) for scene in sorted(one.keys() & two.keys())]
            both, only_first, only_second, neither = (
                met.count(case) for case in ((True, True), (True, False), (False, True), (False, False))
            )
            p = mcnemar(only_first, only_second)
            found.append(Paired(first, second, both, only_first, only_second, neither, p))
        return found

    def as_json(self) -> dict[str, Any]:
        """The results so far."""
        return {
            "task": self.plan.task,
            "policies": [
                {
                    "policy": policy,
                    "trials": len(outcomes),
                    "solved": sum(outcomes.values()),
                    "interval": list(wilson(sum(outcomes.values()), len(outcomes))),
                }
                for policy in self.plan.policies
                for outcomes in (self.outcomes(policy),)
            ],
            "paired": [asdict(pair) for pair in self.pairs()],
            "trials": [asdict(scored) for scored in self.done],
        }


def _whole_lines(path: Path) -> Sequence[str]:
    """Lines of a file, without a last one that a kill cut short; that one is taken off the file, too."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(path, len(whole))
    return whole.decode("utf-8").splitlines()
