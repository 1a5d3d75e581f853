"""The batches of a run: which frames each step sees, prepared ahead by threads so that the step does not wait."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.augment import Augmentation, augmented
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.distributed import Processes
from aloha_runtime.act.train_config import TrainConfig

Batch = dict[str, Tensor]


def chosen_frames(config: TrainConfig, frames: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """The frames of a step's batch: every one once an epoch, in an order given by the seed."""
    places = step * config.batch_size + np.arange(config.batch_size)
    epochs, offsets = places // len(frames), places % len(frames)
    chosen = np.empty(config.batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng([config.seed, 1, int(epoch)]).permutation(len(frames))
        chosen[epochs == epoch] = frames[order[offsets[epochs == epoch]]]
    return chosen


def training_batch(
    config: TrainConfig, data: TrainingData, frames: NDArray[np.int64], chunk_size: int, step: int, processes: Processes
) -> Batch:
    """This process's share of the batch of a step, augmented, on its device. A function of the seed and the step."""
    rows = processes.rows(config.batch_size)
    chosen = chosen_frames(config, frames, step)[rows]
    batch = data.batch(chosen, chunk_size, Augmentation(), np.random.default_rng(0))
    batch = moved(batch, processes.device)
    random = np.random.default_rng([config.seed, 2, step])
    return augmented(batch, config.augment, random, rows, config.batch_size)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`; to a GPU through pinned memory, so that nothing waits for the copy."""
    if device.type != "cuda":
        return batch
    return {name: value.pin_memory().to(device, non_blocking=True) for name, value in batch.items()}


@contextmanager
def ahead(make: Callable[[int], Batch], first: int, last: int, workers: int) -> Iterator[Iterator[Batch]]:
    """`make(step)` for each step from `first` up to but not including `last`, in order, up to `workers` + 1 ahead.

    An error of a batch is raised when that batch is asked for.
    """
    if not workers:
        yield (make(step) for step in range(first, last))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        steps = iter(range(first, last))

        def fill() -> None:
            while len(waiting) <= workers and (step := next(steps, None)) is not None:
                waiting.append(pool.submit(make, step))

        def batches() -> Iterator[Batch]:
            fill()
            while waiting:
                batch = waiting.popleft().result()
                fill()
                yield batch

        try:
            yield batches()
        finally:
            for future in waiting:
                future.cancel()
