"""Everything that a run says and writes about itself, in one place for the loop to call."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from aloha_runtime.act.metrics import VALIDATION, Metrics
from aloha_runtime.act.progress import Progress
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.act.training_state import as_settings


class TrainLog:
    """Progress for the person watching, `metrics.jsonl` and its kin, and the curves."""

    def __init__(self, config: TrainConfig, step: int, report: Callable[[str], None], terminal: Console | None) -> None:
        self._config, self._draws = config, config.curves
        self._metrics = Metrics(config, step, as_settings(config))
        self._progress = Progress(config.steps, step, report, terminal)
        self.figures: dict[str, float] = {}
        """The newest of each name."""
        self._open = False  # whether steps have been added since the last line
        self.say, self.not_timed = self._progress.say, self._progress.not_timed

    def step(self, step: int, figures: Mapping[str, float], waited: float) -> None:
        self._progress.add(step, figures, waited)
        self._open = True
        if step % self._config.log_freq == 0 or step == self._config.steps:
            self.line(step)

    def line(self, step: int) -> None:
        """Close the present stretch of steps: its means become a line. Always done before a checkpoint, so that a
        resumed run has the same stretches as an uninterrupted one."""
        if self._open:
            self._add(step, self._progress.line())
            self._open = False

    def _add(self, step: int, figures: Mapping[str, float]) -> None:
        self.figures.update(figures)
        self._metrics.add(step, figures)

    def validated(self, step: int, errors: Mapping[str, float], *, is_best: bool) -> None:
        self._add(step, {VALIDATION + name: value for name, value in errors.items()})
        text = "  ".join(f"{name} {value:.4f}" for name, value in errors.items())
        self.say(f"step {step}/{self._config.steps}  validation  {text}{'  (best so far)' if is_best else ''}")

    def saved(self, path: Path) -> None:
        if self._draws:
            self._draw()
        self.say(f"saved {path}")

    def _draw(self) -> None:
        try:
            from aloha_runtime.act.curves import draw_curves

            draw_curves(self._config.output_dir)
        except ModuleNotFoundError as error:
            self.say(f"no curves.png: {error}; pip install 'aloha-runtime[train]', or leave it with --curves false")
            self._draws = False

    def close(self) -> None:
        self._progress.close()
        self._metrics.close()
