"""What every `aloha bench ...` hands back: rows, one table on screen, one JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One measured figure. `peer`: the same work done by the peer, in the same unit; `goal`: what `value` is held
    against; `met`: whether it holds (None where there is no goal)."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    goal: float | None = None
    met: bool | None = None


def print_table(rows: Sequence[Row], title: str = "") -> None:
    """One line per row on standard output."""
    table = Table(title=title or None)
    table.add_column("what")
    for heading in ("measured", "peer", "goal"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("met")
    for row in rows:
        met = "" if row.met is None else "[green]yes[/]" if row.met else "[red]no[/]"
        table.add_row(row.name, _figure(row.value), _figure(row.peer), _figure(row.goal), row.unit, met)
    Console().print(table)


def write_json(rows: Sequence[Row], path: Path) -> None:
    """`{"rows": [{"name", "value", "unit", "peer", "goal", "met"}, ...]}`; parent directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=2) + "\n")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def finish(rows: Sequence[Row], path: Path | None) -> None:
    """Print the table, and write the JSON when a path is given."""
    print_table(rows)
    if path is not None:
        write_json(rows, path)
