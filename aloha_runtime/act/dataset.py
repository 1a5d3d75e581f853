"""Training data: every frame of a LeRobotDataset at hand, and batches of observations with the actions that follow.

Frames are decoded once, into a memory-mapped file of raw pixels (`data/frames.py`), so that training never decodes
video again and the operating system keeps in memory what fits.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.augment import Augmentation, augmented
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Shape
from aloha_runtime.act.fit import STD_FLOOR, refuse_untrainable_data
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.frames import open_frames
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.recorded import recorded_only
from aloha_runtime.errors import DatasetError


class TrainingData:
    """All frames of a dataset, and batches from them.

    Decoded frames are kept below `cache`, at most `cache_gb` GB of them; where they do not fit, every batch decodes its
    own. Raises `DatasetError` when the dataset lacks a feature that is asked for, or is not sound (`act/fit.py`).
    """

    @reads_and_writes
    def __init__(
        self,
        path: Path,
        cameras: Sequence[str] | None,
        cache: Path,
        report: Callable[[str], None],
        *,
        cache_gb: float | None = None,
    ) -> None:
        dataset = Dataset(path)
        chosen = _for_policies(dataset, report) if cameras is None else tuple(cameras)
        vectors = refuse_untrainable_data(dataset, chosen)
        self.cameras = {name: dataset.cameras[name] for name in chosen}
        self.vectors = {name: dataset.vectors(name) for name in vectors}
        self.starts = np.array([episode.from_index for episode in dataset.episodes])
        self.ends = np.array([episode.to_index for episode in dataset.episodes])
        self.stats = _normalization_stats(dataset, [*self.vectors, *(IMAGE_PREFIX + name for name in chosen)])
        self.images = open_frames(dataset, chosen, cache, report, cache_gb)

    def shapes(self, *, use_environment_state: bool) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """Input and output shapes of a policy for this dataset."""
        inputs: dict[str, Shape] = {IMAGE_PREFIX + name: (3, *size) for name, size in self.cameras.items()}
        inputs[STATE] = self.vectors[STATE].shape[1:]
        if use_environment_state and ENVIRONMENT_STATE not in self.vectors:
            raise DatasetError(f"the dataset has no {ENVIRONMENT_STATE}; train without it")
        if use_environment_state:
            inputs[ENVIRONMENT_STATE] = self.vectors[ENVIRONMENT_STATE].shape[1:]
        return inputs, {ACTION: self.vectors[ACTION].shape[1:]}

    def held_out(self, validation_fraction: float) -> int:
        """How many episodes are kept for validation, never the last one left; up to five episodes at a tenth: none."""
        return min(round(validation_fraction * len(self.starts)), len(self.starts) - 1)

    def split(self, validation_fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frame indices of training and validation, split by episode."""
        order = np.random.default_rng([seed, 0]).permutation(len(self.starts))
        held_out = np.zeros(len(order), dtype=bool)
        held_out[order[: self.held_out(validation_fraction)]] = True
        episode = np.repeat(np.arange(len(order)), self.ends - self.starts)
        frames = np.arange(len(episode))
        return frames[~held_out[episode]], frames[held_out[episode]]

    def batch(
        self, frames: NDArray[np.int64], chunk_size: int, augment: Augmentation, random: np.random.Generator
    ) -> dict[str, Tensor]:
        """The observations at `frames` (B,) and the `chunk_size` actions from each on, in raw units.

        Past the end of an episode its last action is repeated and `action_is_pad` is True.
        """
        last = self.ends[np.searchsorted(self.starts, frames, side="right") - 1] - 1  # (B,)
        steps = frames[:, None] + np.arange(chunk_size)  # (B, chunk)
        is_pad = steps > last[:, None]
        batch = {name: torch.from_numpy(values[frames]) for name, values in self.vectors.items() if name != ACTION}
        batch[ACTION] = torch.from_numpy(self.vectors[ACTION][np.minimum(steps, last[:, None])])
        batch[IS_PAD] = torch.from_numpy(is_pad)
        for name, pixels in self.images.items():
            batch[IMAGE_PREFIX + name] = torch.from_numpy(pixels[frames])
        return augmented(batch, augment, random)


def _for_policies(dataset: Dataset, report: Callable[[str], None]) -> tuple[str, ...]:
    """Every camera of a dataset but those that its rig only recorded."""
    hidden = recorded_only(dataset.path)
    if left_out := [name for name in dataset.cameras if name in hidden]:
        report(
            f"left out, because the rig only recorded them: {', '.join(left_out)} (name them in --cameras to use them)"
        )
    return tuple(name for name in dataset.cameras if name not in hidden)


def _normalization_stats(dataset: Dataset, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    stats: dict[str, dict[str, Tensor]] = {}
    for name in names:
        if name not in dataset.stats:
            raise DatasetError(f"{dataset.path}/meta/stats.json has no entry for {name}; compute the statistics again")
        values: Mapping[str, Any] = dataset.stats[name]
        stats[name] = {key: torch.tensor(np.asarray(values[key]), dtype=torch.float32) for key in _STATISTICS}
        if name in (STATE, ACTION):
            stats[name]["std"].clamp_(min=STD_FLOOR)
    return stats


_STATISTICS = ("mean", "std", "min", "max")
