"""A few small pictures of what a policy was trained on, beside its weights: for a person who asks whether the cameras
still see the same. `training_frames/CAMERA_0.jpg`, listed in provenance.json under `frames`.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import UnidentifiedImageError

from aloha_runtime import durable
from aloha_runtime.act import provenance
from aloha_runtime.act.files import write_bytes
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import CheckpointError

Image = NDArray[np.uint8]
DIRECTORY = "training_frames"
EPISODES = 3
"""First frames of so many episodes: arms in the start pose, as they are when a policy is deployed."""
WIDTH, QUALITY = 240, 80
"""Layout and colours, not detail: about 6 kB a picture."""
LARGEST = 640
"""Pixels a side of a picture that is read, and ..."""
LARGEST_BYTES = 200_000
"""... its size in bytes, because a checkpoint may come from somebody else."""


def take(dataset: Dataset, cameras: Sequence[str]) -> dict[str, list[bytes]]:
    """Small JPEGs of each camera, from episodes spread over the dataset."""
    chosen = np.unique(np.linspace(0, len(dataset.episodes) - 1, EPISODES).astype(int))
    starts = [dataset.episodes[int(index)].from_index for index in chosen]
    return {camera: [_small(dataset.frame(camera, start)) for start in starts] for camera in cameras}


def write(directory: Path, frames: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    """Write them into a policy directory; returns their names by camera, for the part `frames` of provenance.json."""
    durable.make_directory(directory / DIRECTORY)
    listed: dict[str, list[str]] = {}
    for camera, pictures in frames.items():
        for number, picture in enumerate(pictures):
            name = f"{DIRECTORY}/{camera}_{number}.jpg"
            write_bytes(directory / name, picture)
            listed.setdefault(camera, []).append(name)
    return listed


def read(directory: Path) -> dict[str, list[Image]]:
    """The pictures by the policy's camera names, (height, width, 3) RGB; empty for a checkpoint without. Raises
    CheckpointError for one that is missing, damaged, too large or elsewhere."""
    listed = provenance.read(directory).get("frames", {})
    if not isinstance(listed, dict) or not all(isinstance(names, list) for names in listed.values()):
        raise CheckpointError(f"{directory / provenance.PROVENANCE}: `frames` must list names by camera")
    return {str(camera): [_read(directory, name) for name in names] for camera, names in listed.items()}


def _small(frame: Image) -> bytes:
    picture = Pictures.fromarray(frame)
    picture.thumbnail((WIDTH, WIDTH), Pictures.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _read(directory: Path, name: object) -> Image:
    if not isinstance(name, str) or not re.fullmatch(rf"{DIRECTORY}/[\w-]+\.jpg", name):
        raise CheckpointError(f"{directory / provenance.PROVENANCE}: {name!r} is no picture in {DIRECTORY}/")
    path = directory / name
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, more than {LARGEST_BYTES}; take it away")
        with Pictures.open(path, formats=["JPEG"]) as picture:
            if max(picture.size) > LARGEST:
                raise CheckpointError(f"{path} is {picture.size} pixels large, more than {LARGEST}; take it away")
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the whole policy directory") from None
