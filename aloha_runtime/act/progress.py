"""What a person reads while a policy trains."""

import time
from collections.abc import Callable, Mapping


class Progress:
    """Lines of plain text: mean losses since the last line, speed, share of time spent on data, time left."""

    def __init__(self, steps: int, log_freq: int, step: int, report: Callable[[str], None]) -> None:
        self._steps, self._log_freq, self._report = steps, log_freq, report
        self._sums: dict[str, float] = {}
        self._since_step, self._since, self._waited = step, time.perf_counter(), 0.0
        self._speed = 0.0

    def add(self, step: int, losses: Mapping[str, float], lr: float, waited: float) -> None:
        self._waited += waited
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self._log_freq and step != self._steps:
            return
        count, elapsed = step - self._since_step, time.perf_counter() - self._since
        self._speed = count / elapsed
        parts = "  ".join(f"{name.removesuffix('_loss')} {total / count:.4f}" for name, total in self._sums.items())
        left = (self._steps - step) / self._speed / 60
        self._report(
            f"step {step}/{self._steps}  {parts}  lr {lr:.1e}  {self._speed:.2f} steps/s  "
            f"data {100 * self._waited / elapsed:.0f} %  {left:.0f} min left"
        )
        self._sums, self._since_step, self._since, self._waited = {}, step, time.perf_counter(), 0.0

    def validated(self, step: int, errors: Mapping[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4f}" for name, value in errors.items()) or "no validation episodes"
        self._report(f"step {step}/{self._steps}  validation  {text}; checkpoint saved")
