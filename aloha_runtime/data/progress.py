"""Progress of a job of known length: a bar on a terminal, now and then a line elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0
"""Log files want a sign of life, not a line per frame."""


@contextmanager
def progress(what: str, total: int, report: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of steps just done."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, told = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told >= LINE_EVERY_S:
            told = time.monotonic()
            report(f"{what}: {done} of {total} ({100 * done / total:.0f} %)")

    yield advance
