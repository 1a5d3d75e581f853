"""What a person reads while a policy trains: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

_NOT_SHOWN = ("grad_norm", "kl_weight", "lr")


class Progress:
    """Means of the figures since the last line, speed, share of the time spent waiting for data, time left."""

    def __init__(self, steps: int, step: int, report: Callable[[str], None], terminal: Console | None) -> None:
        """`terminal` gets a bar if it is one; otherwise `report` gets a line at a time."""
        self._steps, self._report = steps, report
        self._bar: Bar | None = None
        if terminal is not None and terminal.is_terminal:
            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=terminal, refresh_per_second=2)
            self._task = self._bar.add_task("starting", total=steps, completed=step)
            self._bar.start()
        self._sums: dict[str, float] = {}
        self._latest: Mapping[str, float] = {}
        self._waited = 0.0
        self._forget(step)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, step: int, figures: Mapping[str, float], waited: float) -> None:
        """The figures of one step, and how long it waited for its batch, s."""
        self._waited += waited
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._step, self._latest = step, figures
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=self._text(self.means()))

    @contextmanager
    def not_timed(self) -> Iterator[None]:
        """What happens inside (validating, saving) is no part of a step's time."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    def means(self) -> dict[str, float]:
        """Means since the last line; the learning rate and the KL weight as they are now."""
        count = self._step - self._since_step
        means = {name: total / count for name, total in self._sums.items()}
        return {**means, **{name: self._latest[name] for name in ("lr", "kl_weight") if name in self._latest}}

    def speed(self) -> dict[str, float]:
        """Steps per second since the last line, and the share of that time spent waiting for data."""
        elapsed = time.perf_counter() - self._since
        return {"steps_per_s": (self._step - self._since_step) / elapsed, "data_wait": self._waited / elapsed}

    def line(self) -> dict[str, float]:
        """Report the means since the last line, and return them with the speed."""
        means, speed = self.means(), self.speed()
        if self._bar is None:
            self._report(f"step {self._step}/{self._steps}  {self._text(means)}")
        self._forget(self._step)
        return {**means, **speed}

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._bar is None:
            self._report(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _text(self, means: Mapping[str, float]) -> str:
        speed = self.speed()
        parts = [f"{name.removesuffix('_loss')} {mean:.4f}" for name, mean in means.items() if name not in _NOT_SHOWN]
        left = (self._steps - self._step) / speed["steps_per_s"]
        return (
            f"{'  '.join(parts)}  lr {means['lr']:.1e}  {speed['steps_per_s']:.2f} steps/s  "
            f"data {100 * speed['data_wait']:.0f} %  {_duration(left)} left"
        )

    def _forget(self, step: int) -> None:
        self._sums, self._latest = {}, {}
        self._step = self._since_step = step
        self._since, self._waited = time.perf_counter(), 0.0


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
