"""A LeRobotDataset frame by frame, as PyTorch's `DataLoader` takes it, with LeRobot's own meaning of every entry.

    dataset = LeRobotDataset("outputs/transfer_cube", delta_timestamps={"action": [i / 50 for i in range(100)]})
    dataset[0]["action"].shape      # (100, 14)

`aloha train` takes its batches from `act/dataset.py`, which is faster. This class is for loops of one's own, and for
code that was written for LeRobot: agreement is tested sample by sample (`tests/interop`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.frames import DecodedFrames, Frames, open_frames
from aloha_runtime.data.layout import COUNTERS, camera_name
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import DatasetError

log = logging.getLogger(__name__)

TOLERANCE_S = 1e-4
"""How far an offset may lie from a frame; LeRobot's default."""


class LeRobotDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples by frame number. Each is a dictionary of every feature of that frame:

    - images: float32 in 0..1, (3, H, W); with more than one offset (T, 3, H, W)
    - vectors: (D,), with offsets (T, D); a feature of one number: () or (T,)
    - `{feature}_is_pad`: (T,) bool for each feature with offsets, True before and after the episode, where its first or
      last frame is repeated
    - `timestamp` (s), `frame_index`, `episode_index`, `index`, `task_index`: (), and `task`: the text

    `delta_timestamps`: feature to offsets in seconds from the sample's frame. `episodes`: only these, all when None.
    `image_transforms` is applied to every image tensor. With `frame_cache`, a directory, frames are decoded once and
    mapped from there; without, each sample decodes its own. Raises `DatasetError` for what the dataset cannot give.
    """

    @reads_and_writes
    def __init__(
        self,
        path: str | Path,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        *,
        episodes: Sequence[int] | None = None,
        image_transforms: Callable[[Tensor], Tensor] | None = None,
        tolerance_s: float = TOLERANCE_S,
        frame_cache: Path | None = None,
        report: Callable[[str], None] = log.info,
    ) -> None:
        self._data = Dataset(path)
        self.fps, self.features, self.stats = self._data.fps, self._data.features, self._data.stats
        self.offsets = {
            key: _steps(self._data, key, seconds, tolerance_s) for key, seconds in (delta_timestamps or {}).items()
        }
        self._transforms = image_transforms
        self._frames = self._open(frame_cache, report)
        self._columns = {
            key: self._data.column(key) for key, feature in self.features.items() if feature.dtype not in _PICTURES
        }
        for key, count in (("task_index", len(self._data.tasks)), ("episode_index", len(self._data.episodes))):
            if (wrong := self._columns[key][(self._columns[key] < 0) | (self._columns[key] >= count)]).size:
                raise DatasetError(f"{path}: a frame has {key} {wrong[0]}, and there are {count}. Restore the dataset.")
        self._indices = self._chosen(episodes)
        self._spans = {episode.index: (episode.from_index, episode.to_index) for episode in self._data.episodes}

    def __len__(self) -> int:
        """Number of samples: one for each frame of the chosen episodes."""
        return len(self._indices)

    def __getitem__(self, sample: int) -> dict[str, Any]:
        if not -len(self) <= sample < len(self):
            raise IndexError(f"there are {len(self)} samples; {sample} is outside")
        index = int(self._indices[sample])
        first, end = self._spans[int(self._columns["episode_index"][index])]
        item: dict[str, Any] = {}
        for key in (*self._frames, *self._columns):
            frames = index if key not in self.offsets else np.clip(index + self.offsets[key], first, end - 1)
            item[key] = self._image(key, frames) if key in self._frames else _tensor(self._columns[key][frames])
        for key, offsets in self.offsets.items():
            places = index + offsets
            item[f"{key}_is_pad"] = torch.from_numpy((places < first) | (places >= end))
        item["task"] = self._data.tasks[int(item["task_index"])]
        return item

    def _image(self, key: str, frames: int | NDArray[np.int64]) -> Tensor:
        """float32 0..1, (3, H, W) or (T, 3, H, W); a single frame never has a time axis, as in LeRobot."""
        single = np.ndim(frames) == 0 or np.size(frames) == 1
        pixels = self._frames[key][np.atleast_1d(frames)]  # (T, H, W, 3)
        images = torch.from_numpy(np.asarray(pixels)).movedim(-1, 1).contiguous().float().div_(255)
        images = images[0] if single else images
        return images if self._transforms is None else self._transforms(images)

    def _open(self, cache: Path | None, report: Callable[[str], None]) -> dict[str, Frames]:
        keys = [key for key, feature in self.features.items() if feature.dtype in _PICTURES]
        cameras = [camera_name(key) for key in keys]
        if cache is None:
            return {key: DecodedFrames(self._data, camera) for key, camera in zip(keys, cameras, strict=True)}
        frames = open_frames(self._data, cameras, cache, report)
        return {key: frames[camera] for key, camera in zip(keys, cameras, strict=True)}

    def _chosen(self, episodes: Sequence[int] | None) -> NDArray[np.int64]:
        if episodes is None:
            return np.arange(len(self._data))
        count = len(self._data.episodes)
        if unknown := [episode for episode in episodes if not 0 <= episode < count]:
            raise DatasetError(f"{self._data.path} has episodes 0 to {count - 1}; {unknown[0]} is outside.")
        return np.flatnonzero(np.isin(self._columns["episode_index"], list(episodes)))


_PICTURES = ("video", "image")


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value))


def _steps(data: Dataset, key: str, seconds: Sequence[float], tolerance_s: float) -> NDArray[np.int64]:
    """Offsets in frames; DatasetError when they are not frames of this dataset or obviously not seconds."""
    if key not in data.features:
        known = ", ".join(name for name in data.features if name not in COUNTERS)
        raise DatasetError(f"delta_timestamps: {data.path} has no feature {key!r}; it has: {known}.")
    if not len(seconds):
        raise DatasetError(f"delta_timestamps: {key} has no offsets. Give at least [0], or leave {key} out.")
    if len(seconds) > 1 and data.fps != 1 and all(type(offset) is int for offset in seconds):
        first, last = seconds[0], seconds[-1]
        counts = f"range({last + 1})" if first == 0 else f"range({first}, {last + 1})"
        counts = counts if list(seconds) == list(range(int(first), int(last) + 1)) else str(tuple(seconds))
        raise DatasetError(
            f"delta_timestamps: {key} counts steps ({first}, {seconds[1]}, ... {last}), but offsets are in seconds:"
            f' {last} s is {last * data.fps:g} frames. Write "{key}": [i / {data.fps:g} for i in {counts}].'
        )
    for offset in seconds:
        if not np.isfinite(offset) or abs(offset - round(offset * data.fps) / data.fps) > tolerance_s:
            raise DatasetError(
                f"delta_timestamps: {key}: {offset} s is no multiple of {1 / data.fps:g} s, the time between frames of"
                f" {data.path} ({data.fps:g} fps), to within {tolerance_s:g} s. Write i / {data.fps:g}."
            )
    return np.array([round(offset * data.fps) for offset in seconds], dtype=np.int64)
