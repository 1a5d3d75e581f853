"""A LeRobot dataset as ALOHA's own files, `episode_{i}.hdf5`, for programs that read those (`hdf5.py` has the layout).

What that format has no place for is left out, and said.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from aloha_runtime import durable
from aloha_runtime.data import reports
from aloha_runtime.data.hdf5 import BASE_ACTION, VECTORS, ChannelOrder
from aloha_runtime.data.reader import Dataset, Episode
from aloha_runtime.data.units import flat_names, refuse_other_order
from aloha_runtime.data.video import Image
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF

JPEG_QUALITY = 50
"""What ALOHA 2's recorder takes (`cv2.IMWRITE_JPEG_QUALITY, 50`)."""
FPS = 50
"""The format does not say its rate; everything that reads it takes it for this."""


def export_hdf5(
    path: Path,
    out: Path,
    *,
    channel_order: ChannelOrder | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> str:
    """Write every episode of the dataset into `out`; returns what the format could not hold, in words.

    `channel_order`: JPEG frames as ALOHA 2 writes them, "swapped" as its recorder does or "rgb"; None keeps plain
    frames as the original does. Raises DatasetError for a dataset that is not of two ALOHA arms, or files in the way.
    """
    dataset = Dataset(path)
    _refuse_others(dataset)
    out.mkdir(parents=True, exist_ok=True)
    if there := sorted(out.glob("episode_*.hdf5")):
        raise DatasetError(f"{out} holds {there[0].name} already. Choose another folder.")
    for episode in dataset.episodes:
        aside = out / f".episode_{episode.index}.hdf5"
        try:
            _write(dataset, episode, aside, channel_order)
            durable.publish(aside, out / f"episode_{episode.index}.hdf5")
        finally:
            aside.unlink(missing_ok=True)
        advance(1)
    return _left_out(dataset, channel_order)


def _refuse_others(dataset: Dataset) -> None:
    for key in ("observation.state", "action"):
        if dataset.info.vectors.get(key) != DOF:
            raise DatasetError(f"{dataset.path}: {key} has {dataset.info.vectors.get(key, 'no')} numbers, not {DOF}.")
        if names := flat_names(dataset.features[key].names):
            refuse_other_order(f"{dataset.path}: {key}", names)
    if dataset.fps != FPS:
        raise DatasetError(
            f"{dataset.path} has {dataset.fps:g} frames a second; ALOHA's files are taken for {FPS} and cannot say"
            " otherwise."
        )


def _write(dataset: Dataset, episode: Episode, target: Path, channel_order: ChannelOrder | None) -> None:
    span = slice(episode.from_index, episode.to_index)
    with h5py.File(target, "w", rdcc_nbytes=2 << 20) as file:
        file.attrs["sim"] = "observation.environment_state" in dataset.info.vectors
        for key, inside in {**VECTORS, BASE_ACTION: BASE_ACTION}.items():
            if key in dataset.info.vectors:
                file[inside] = dataset.vectors(key)[span]
            elif key != BASE_ACTION:  # every reader of the original takes them for granted
                file[inside] = np.zeros((episode.length, DOF), np.float32)
        if channel_order is not None:
            file.attrs["compress"] = True
        lengths = [_images(dataset, episode, camera, file, channel_order) for camera in dataset.cameras]
        if channel_order is not None:
            file["compress_len"] = np.array(lengths, dtype=np.float32)


def _images(
    dataset: Dataset, episode: Episode, camera: str, file: h5py.File, channel_order: ChannelOrder | None
) -> list[int]:
    """One camera's frames into the file; returns the bytes of each JPEG, nothing for plain frames."""
    name, (height, width) = f"observations/images/{camera}", dataset.cameras[camera]
    frames = (dataset.frame(camera, index) for index in range(episode.from_index, episode.to_index))
    if channel_order is None:
        shape = (episode.length, height, width, 3)
        stored = file.create_dataset(name, shape, dtype="uint8", chunks=(1, height, width, 3))
        for index, image in enumerate(frames):
            stored[index] = image
        return []
    encoded = [_jpeg(image, channel_order) for image in frames]
    padded = np.zeros((episode.length, max(map(len, encoded))), dtype=np.uint8)
    for row, data in zip(padded, encoded, strict=True):
        row[: len(data)] = data
    file.create_dataset(name, data=padded, chunks=(1, padded.shape[1]))
    return [len(data) for data in encoded]


def _jpeg(image: Image, channel_order: ChannelOrder) -> NDArray[Any]:
    given = image if channel_order == "swapped" else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", given, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done, "OpenCV has no JPEG encoder"
    return data.ravel()


def _left_out(dataset: Dataset, channel_order: ChannelOrder | None) -> str:
    lost = [key for key in dataset.info.vectors if key not in VECTORS and key != BASE_ACTION]
    lost += ["tasks"] + (["reports of the episodes"] if reports.listed(dataset.path) else [])
    zero = [key for key in VECTORS if key not in dataset.info.vectors]
    said = f"no place for: {', '.join(lost)}"
    said += f"; written as zeros, because the dataset has none: {', '.join(zero)}" if zero else ""
    return said + ("; pictures as JPEG, which changes them a little" if channel_order else "")
