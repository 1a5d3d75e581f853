"""`aloha bench orders`: every sequence of pauses, restarts, late and lost messages: does an arm move unasked?"""

import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aloha_runtime.commands.order_search.search import BEGINNINGS, Found, search
from aloha_runtime.commands.order_search.system import HAPPENINGS, ROUND_NS
from aloha_runtime.messages import MS


def run(depth: int, json_path: Path | None = None) -> bool:
    """Search from every beginning, print a table; True when nothing moved unasked."""
    console = Console(highlight=False)
    console.print(f"{len(HAPPENINGS)} happenings in each of {depth} rounds of {ROUND_NS // MS} ms")
    results = {}
    for name, begin in BEGINNINGS.items():
        began = time.monotonic()

        def tell(found: Found, name: str = name, began: float = began) -> None:
            console.print(f"  {name}: depth {found.depth}, {found.states} states, {time.monotonic() - began:.0f} s")

        results[name] = search(depth, begin=begin, tell=tell)
    _show(results, console)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: asdict(found) | {"ways": _ways(found)} for name, found in results.items()}
        json_path.write_text(json.dumps({"depth": depth, "rows": rows}, indent=2) + "\n")
    return not any(found.violations for found in results.values())


def _show(results: dict[str, Found], console: Console) -> None:
    table = Table(
        title="motion without an order that is younger than the last HOLD, silence or restart", pad_edge=False
    )
    table.add_column("the arms are")
    for heading in ("rounds", "states", "moved as ordered", "moved unasked"):
        table.add_column(heading, justify="right")
    for name, found in results.items():
        table.add_row(name, *(str(n) for n in (found.rounds, found.states, found.moving, found.violations)))
    console.print(table)
    for name, found in results.items():
        for way in _ways(found):
            console.print(f"{name}: {way}")


def _ways(found: Found) -> list[str]:
    """The shortest ways to motion that nobody asked for, in words."""
    return [f"{', then '.join(map(str, way))}: {pairs} moved" for way, pairs in found.ways]
