"""`aloha bench faults`: every promise about failures tried on the simulated rig, as a table and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

from aloha_runtime.commands.faults.bus import BUS
from aloha_runtime.commands.faults.cameras import CAMERAS
from aloha_runtime.commands.faults.clocks import CLOCKS
from aloha_runtime.commands.faults.controllers import CONTROLLERS, REALTIME
from aloha_runtime.commands.faults.gripper_ranges import GRIPPER_RANGES
from aloha_runtime.commands.faults.grippers import GRIPPERS
from aloha_runtime.commands.faults.hostile import HOSTILE
from aloha_runtime.commands.faults.policies import POLICY
from aloha_runtime.commands.faults.power import POWER
from aloha_runtime.commands.faults.recorders import RECORDER
from aloha_runtime.commands.faults.remote_links import REMOTE_LINK
from aloha_runtime.commands.faults.scenario import Family, Result, Scenario
from aloha_runtime.commands.faults.servos import SERVOS
from aloha_runtime.commands.faults.setup import SETUP
from aloha_runtime.commands.faults.torque import TORQUE
from aloha_runtime.commands.faults.void_orders import VOID_ORDERS
from aloha_runtime.commands.faults.whole_rig import WHOLE_RIG
from aloha_runtime.errors import ConfigError

FAMILIES: tuple[Family, ...] = (
    POLICY,
    SERVOS,
    GRIPPERS,
    GRIPPER_RANGES,
    BUS,
    POWER,
    TORQUE,
    CONTROLLERS,
    VOID_ORDERS,
    REALTIME,
    SETUP,
    CAMERAS,
    RECORDER,
    REMOTE_LINK,
    CLOCKS,
    HOSTILE,
    WHOLE_RIG,
)
SHOWN_REASONS = 3
MOST_ATTEMPTS = 4
"""A trial that is listed apart is tried again, on a busy machine so many times as often as was asked for."""


def run(
    only: Sequence[str] = (), count: int | None = None, soak: bool = False, seed: int = 0, json_path: Path | None = None
) -> bool:
    """Try the scenarios whose family or name contains one of `only` (empty: all), `count` times each instead of as
    often as each says. Prints the table; True when every promise was held."""
    chosen = select(only)
    results = []
    for family, scenarios in chosen:
        results += try_family(family, scenarios, count, soak, seed)
    show(results)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(
            json.dumps({"seed": seed, "rows": [found.as_json() for found in results]}, indent=2) + "\n"
        )
    return all(result.met for result in results)


def select(only: Sequence[str]) -> list[tuple[Family, list[Scenario]]]:
    """Families with the scenarios that were asked for; ConfigError when there is none."""
    found = []
    for family in FAMILIES:
        wanted = [item for item in family.scenarios if _asked(only, family, item)]
        if wanted:
            found.append((family, wanted))
    if not found:
        names = "; ".join(f"{family.name}: {', '.join(item.name for item in family.scenarios)}" for family in FAMILIES)
        raise ConfigError(f"no scenario matches --only {' '.join(only)}; there are {names}")
    return found


def _asked(only: Sequence[str], family: Family, item: Scenario) -> bool:
    return not only or family.name in only or any(word in item.name for word in only)


def try_family(
    family: Family, scenarios: Sequence[Scenario], count: int | None = None, soak: bool = False, seed: int = 0
) -> list[Result]:
    """All trials of one family on one rig; progress on standard error."""
    say = Console(stderr=True, highlight=False).print
    results = [Result(item) for item in scenarios]
    say(f"{family.name}: starting its rig")
    with family.rig() as rig:
        for result in results:
            item = result.scenario
            chance = Random(f"{seed} {item.name}")  # noqa: S311 (instants and servos, no secrets)
            times = count or (item.soak if soak else 0) or item.count
            while len(result.counted) < times and len(result.trials) < MOST_ATTEMPTS * times:
                trial = item.attempt(rig, chance)
                result.trials.append(trial)
                if reason := trial.apart or item.why(trial):
                    say(f"  {item.name} {len(result.counted)}/{times}: {reason}", soft_wrap=True)
            say(f"  {item.name}: {result.held} of {len(result.counted)}", soft_wrap=True)
    return results


def show(results: Sequence[Result]) -> None:
    """The table within 100 columns, then what did not hold, and the times to HOLD."""
    table = Table(title="what must hold when something fails", box=None)
    for heading, justify in (("fault", "left"), ("tried", "right"), ("held", "right"), ("apart", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("worst", "allowed", "travel", "to HOLD p50", "worst"):
        table.add_column(heading, justify="right")
    table.add_column("what")
    for result in results:
        counted = result.counted
        figures = [trial.figure for trial in counted if trial.figure is not None]
        holds = [trial.hold_ms for trial in counted if trial.hold_ms is not None]
        travels = [trial.travel_rad for trial in counted if trial.travel_rad is not None]
        table.add_row(
            result.scenario.name,
            str(len(counted)),
            f"[{'green' if result.met else 'red'}]{result.held}[/]",
            str(len(result.trials) - len(counted)),
            f"{max(figures):.4g}" if figures else "",
            "" if result.scenario.bound is None else f"{result.scenario.bound:.4g}",
            f"{max(travels):.3f}" if travels else "",
            f"{np.median(holds):.0f}" if holds else "",
            f"{max(holds):.0f}" if holds else "",
            result.scenario.unit,
        )
    console = Console(width=max(130, Console().width))
    console.print(table)
    for result in results:
        for reason in list(result.reasons())[:SHOWN_REASONS]:
            console.print(f"{result.scenario.name}: {reason}", highlight=False)
