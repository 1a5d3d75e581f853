"""Training of an ACT policy on a LeRobotDataset, as one plain story: data, model, optimiser, loop, checkpoints.

    OUTPUT/checkpoints/005000/{pretrained_model,training_state}, last, best    (act/training_state.py)
    OUTPUT/metrics.jsonl, curves.png, tensorboard/                             (act/metrics.py, act/curves.py)
    OUTPUT/frames                                                              decoded frames (act/dataset.py)

Every random draw is a function of the seed and the step, so a resumed run sees what an uninterrupted one would.
"""

import logging
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from aloha_runtime.act import batches, training_frames
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.distributed import Processes
from aloha_runtime.act.fit import refuse_unfit_data
from aloha_runtime.act.health import Health, out_of_memory_named
from aloha_runtime.act.metrics import check_loggers
from aloha_runtime.act.optimize import Stepper, running_mean, update_mean
from aloha_runtime.act.resumption import refuse_other_dataset, remarks
from aloha_runtime.act.start import load_data, make_policy
from aloha_runtime.act.stopping import StopRequest
from aloha_runtime.act.train_config import TrainConfig, TrainingError, TrainingStopped
from aloha_runtime.act.train_log import TrainLog
from aloha_runtime.act.training_state import Position, last_checkpoint, load_training_state, save_checkpoint
from aloha_runtime.act.validate import spread, validate
from aloha_runtime.data.reader import Dataset

log = logging.getLogger(__name__)


def train(config: TrainConfig, report: Callable[[str], None] = log.info, terminal: Console | None = None) -> Path:
    """Train, and return the directory of the best policy (`.../pretrained_model`).

    `report` gets lines of progress, or `terminal` a bar if it is one. Raises TrainingError when training cannot start
    or go on, and TrainingStopped after Ctrl-C or SIGTERM, with a checkpoint saved.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_loggers(config)
    last = last_checkpoint(config.output_dir)
    if last is not None and not config.resume:
        raise TrainingError(
            f"{config.output_dir} already holds checkpoints; go on with --resume, or choose another output directory"
        )
    processes = Processes(config)
    report = report if processes.is_first else _silent
    try:
        if last is not None:
            refuse_other_dataset(last, config, report)
        with processes.first_goes_first():
            data, source = load_data(config, report)
        policy = make_policy(config, data, source, pretrained=last is None).to(processes.device)
        with out_of_memory_named(config, processes.device):
            return Run(config, processes, data, Stepper(config, policy, processes)).go(last, report, terminal)
    finally:
        processes.close()


class Run:
    """The loop, and what it needs from step to step."""

    def __init__(self, config: TrainConfig, processes: Processes, data: TrainingData, stepper: Stepper) -> None:
        self.config, self.processes, self.data, self.stepper = config, processes, data, stepper
        self.training, held_out = data.split(config.validation_fraction, config.seed)
        self.validation = spread(held_out, config.validation_frames)
        self.averaged: dict[str, Tensor] = running_mean(stepper.policy, config.ema_decay)
        self.position = Position()

    def go(self, last: Path | None, report: Callable[[str], None], terminal: Console | None) -> Path:
        """From the checkpoint `last`, or from the beginning, to the last step."""
        if last is not None:
            self.position, averaged = load_training_state(last, self.stepper)
            policy = self.stepper.policy
            refuse_unfit_data(Dataset(self.config.dataset), policy.config, policy_stats=policy.normalizer.stats)
            self.averaged = averaged if self.config.ema_decay else self.averaged
        size = sum(parameter.numel() for parameter in self.stepper.policy.parameters()) / 1e6
        report(
            f"{len(self.training)} frames to train on, {len(self.validation)} to validate; {size:.2f} M parameters; "
            f"from step {self.position.step} on {self.processes.device}"
        )
        for remark in remarks(self.config, self.data, last):
            report(remark)
        log = TrainLog(self.config, self.position.step, report, terminal) if self.processes.is_first else None
        try:
            with StopRequest().listening() as stop:
                self._loop(stop, log)
        finally:
            if log is not None:
                log.close()
        root = self.config.output_dir / "checkpoints"
        best = (root / "best" if (root / "best").exists() else root / "last") / "pretrained_model"
        report(f"best policy: {best}")
        return best

    def _loop(self, stop: StopRequest, log: TrainLog | None) -> None:
        config, policy = self.config, self.stepper.policy
        health = Health(config, policy.config, log.say if log is not None else _silent)
        with batches.ahead(self._batch, self.position.step, config.steps, config.num_workers) as prepared:
            while self.position.step < config.steps:
                started = time.perf_counter()
                batch = next(prepared)
                waited = time.perf_counter() - started
                figures = self.stepper.step(batch, self.position.step)
                step = self.position.step = self.position.step + 1
                if config.ema_decay:
                    update_mean(self.averaged, policy, config.ema_decay, step)
                health.notice(step, figures)
                if log is not None:
                    log.step(step, figures, waited)
                stopping = self.processes.any(stop.asked)
                if log is not None:
                    with log.not_timed():
                        self._write_what_is_due(log, stopping)
                if stopping and step < config.steps:
                    self.processes.wait()
                    if log is None:  # only the first process speaks
                        raise SystemExit(TrainingStopped.exit_code)
                    raise TrainingStopped(
                        f"stopped at step {step} of {config.steps} and saved; go on with: "
                        f"aloha train --resume --output-dir {config.output_dir}"
                    )
        self.processes.wait()

    @cached_property
    def _frames(self) -> dict[str, list[bytes]]:
        """A few small pictures of what is learned from, for every checkpoint."""
        return training_frames.take(Dataset(self.config.dataset), list(self.stepper.policy.config.cameras))

    def _batch(self, step: int) -> batches.Batch:
        chunk_size = self.stepper.policy.config.chunk_size
        return batches.training_batch(self.config, self.data, self.training, chunk_size, step, self.processes)

    def _write_what_is_due(self, log: TrainLog, stopping: bool) -> None:
        """Validate at `eval_freq` steps; save at `save_freq` and when the policy is the best yet; both at the end."""
        config, position, step = self.config, self.position, self.position.step
        ends = step == config.steps
        save = step % config.save_freq == 0 or ends or stopping
        is_best = not len(self.validation)  # without validation the newest is the best
        if len(self.validation) and (step % config.eval_freq == 0 or ends):
            errors = validate(self.stepper.policy, self.averaged, self.data, self.validation, config.batch_size)
            error = errors[self.stepper.policy.config.action_loss]
            is_best = position.best_error is None or error < position.best_error
            position.best_error = error if is_best else position.best_error
            log.validated(step, errors, is_best=is_best)
            save = save or is_best
        if save:
            log.line(step)
            path = save_checkpoint(
                config,
                self.stepper,
                self.averaged,
                position,
                is_best=is_best,
                figures=log.figures,
                frames=self._frames,
            )
            log.saved(path)


def _silent(_line: str) -> None:
    """Only the first process speaks."""
