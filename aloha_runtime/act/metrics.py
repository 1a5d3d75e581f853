"""What a run leaves to be plotted: `metrics.jsonl` always, TensorBoard and Weights & Biases when there."""

import importlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aloha_runtime.act.train_config import TrainConfig, TrainingError

FILE = "metrics.jsonl"
VALIDATION = "validation_"
"""Prefix of the names of validation errors."""


def check_loggers(config: TrainConfig) -> None:
    """Refuse a logger that is asked for and not installed, before anything is trained."""
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise TrainingError("--wandb: the package wandb is not installed here; pip install wandb, or leave it out")


class Metrics:
    """Rows of figures of one run, by step. Each row of `metrics.jsonl` is `{"step": 100, "loss": 0.3, ...}`."""

    def __init__(self, config: TrainConfig, step: int, settings: Mapping[str, Any]) -> None:
        """Rows after `step`, which a killed run may have left, are dropped: they will come again."""
        config.output_dir.mkdir(parents=True, exist_ok=True)
        path = config.output_dir / FILE
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        aside = path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(aside, path)
        self._file = path.open("a", buffering=1)  # a line at a time: a killed run keeps its lines
        self._board: Any = _tensorboard(config, step)
        self._wandb: Any = _wandb(config, settings)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        # fp16 overflows now and then, which its scaler takes care of; JSON has no word for infinity.
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        named = {
            f"validation/{name.removeprefix(VALIDATION)}" if name.startswith(VALIDATION) else f"train/{name}": value
            for name, value in figures.items()
        }
        if self._board is not None:
            for name, value in named.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(named, step=step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`; a last line that a killed run left half written is passed over."""
    rows: list[dict[str, float]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _tensorboard(config: TrainConfig, step: int) -> Any:
    if not config.tensorboard or importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(config.output_dir / "tensorboard"), purge_step=step + 1 if step else None)


def _wandb(config: TrainConfig, settings: Mapping[str, Any]) -> Any:
    if not config.wandb:
        return None
    wandb = importlib.import_module("wandb")
    known = config.output_dir / "wandb_run_id"  # a resumed run goes on in the same plot
    name = known.read_text().strip() if known.exists() else None
    run = wandb.init(
        project=config.wandb_project, name=config.output_dir.name, dir=str(config.output_dir), id=name,
        resume="allow", config=dict(settings),
    )  # fmt: skip
    known.write_text(run.id)
    return run
