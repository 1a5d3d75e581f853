"""Decoded frames of a dataset, for random reading: a memory-mapped file of raw pixels per camera, or the video itself.

    FOLDER/transfer_cube-3f2a9c01b7de/cam_high.uint8         (N, H, W, 3) uint8, one frame after the other
    FOLDER/transfer_cube-3f2a9c01b7de/cam_high.uint8.part    the same, while it is made

A file that has its name is whole. One that was being made when the process ended is continued by the next. Whoever
makes files holds a lock on their directory; others wait for it and then map what is there.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.data.layout import INFO_PATH
from aloha_runtime.data.progress import progress
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.video import Image
from aloha_runtime.errors import DatasetError

KEEP_FREE_BYTES = 1_000_000_000
"""Disk space that a cache leaves to others, such as the checkpoints of the same run."""

Report = Callable[[str], None]


class Frames(Protocol):
    """All frames of one camera, (N, H, W, 3) uint8 RGB, indexed by a frame number or an array of them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class DecodedFrames:
    """`Frames` straight from video: the same pixels without any disk space, some 20 times slower.

    Threads may share one: each reads through a `Dataset` of its own.
    """

    def __init__(self, dataset: Dataset, camera: str) -> None:
        self.shape = (len(dataset), *dataset.cameras[camera], 3)
        self._path, self._camera = dataset.path, camera
        self._idle: list[Dataset] = []

    def __getitem__(self, index: int | NDArray[np.int64]) -> Image:
        frames = np.asarray(index)
        images = np.empty((frames.size, *self.shape[1:]), dtype=np.uint8)
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = Dataset(self._path)
        for place in np.argsort(frames, axis=None):  # forward through each file
            images[place] = reader.frame(self._camera, int(frames.flat[place]))
        self._idle.append(reader)
        return images.reshape(*frames.shape, *self.shape[1:])


def open_frames(
    dataset: Dataset, cameras: Sequence[str], folder: Path, report: Report, limit_gb: float | None = None
) -> Mapping[str, Frames]:
    """The frames of `cameras`, cached below `folder`; decoded from video each time when they would not fit there.

    `limit_gb`: most that this dataset may take there, in GB; without one, what the disk has to give. `report` gets
    what is done and why, in lines. Raises DatasetError for video that is damaged and a folder that cannot be written.
    """
    sizes = {camera: len(dataset) * int(np.prod(dataset.cameras[camera])) * 3 for camera in cameras}
    home = folder / f"{dataset.path.resolve().name}-{digest(dataset)[:12]}"
    missing = [camera for camera in cameras if not _is_whole(home / f"{camera}.uint8", sizes[camera])]
    if missing:
        try:
            with _locked(home, report):
                _remove_outdated(home, dataset)
                missing = [camera for camera in missing if not _is_whole(home / f"{camera}.uint8", sizes[camera])]
                if reason := _too_large(home, [sizes[camera] for camera in missing], sum(sizes.values()), limit_gb):
                    report(f"{reason}; frames are decoded from video each time, which is slow but the same")
                    return {camera: DecodedFrames(dataset, camera) for camera in cameras}
                for camera in missing:
                    _decode(dataset, camera, home / f"{camera}.uint8", report)
        except OSError as error:
            raise DatasetError(
                f"frame cache {home}: {error}. Free some space or name another directory as the frame cache."
            ) from error
    return {camera: _mapped(home / f"{camera}.uint8", dataset, camera) for camera in cameras}


def digest(dataset: Dataset) -> str:
    """What tells one version of a dataset from another: its description, and the size of every video file."""
    videos = sorted({span.path for episode in dataset.episodes for span in episode.videos.values()})
    content = hashlib.sha256((dataset.path / INFO_PATH).read_bytes())
    content.update(repr(sorted(dataset.stats.get("action", {}).items())).encode())
    for path in videos:
        content.update(f"{path.name} {path.stat().st_size if path.exists() else 0} ".encode())
    return content.hexdigest()


def _mapped(path: Path, dataset: Dataset, camera: str) -> Frames:
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(len(dataset), *dataset.cameras[camera], 3))


def _is_whole(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def _too_large(home: Path, missing: Sequence[int], total: int, limit_gb: float | None) -> str:
    """Why the cache must not be made, or nothing."""
    if limit_gb is not None and total > limit_gb * 1e9:
        return f"frame cache: the decoded frames take {total / 1e9:.3g} GB, allowed are {limit_gb:.3g} GB"
    begun = sum(path.stat().st_size for path in home.glob("*.part"))
    needed, free = sum(missing) - begun, shutil.disk_usage(home).free
    if needed and needed + KEEP_FREE_BYTES > free:
        return (
            f"frame cache: {home} needs {needed / 1e9:.3g} GB and {KEEP_FREE_BYTES / 1e9:.3g} GB to spare, its disk"
            f" has {free / 1e9:.3g} GB"
        )
    return ""


@contextmanager
def _locked(home: Path, report: Report) -> Iterator[None]:
    """Hold the directory against other makers; the lock ends with the process."""
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"frame cache: another process is making {home}; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _decode(dataset: Dataset, camera: str, final: Path, report: Report) -> None:
    """Make one camera's file, from where an earlier process was interrupted."""
    height, width = dataset.cameras[camera]
    frame_bytes, part = height * width * 3, final.with_suffix(".uint8.part")
    with part.open("ab") as file:
        done = file.tell() // frame_bytes
        file.truncate(done * frame_bytes)
        size = len(dataset) * frame_bytes / 1e6
        report(
            f"decoding {len(dataset)} frames of {camera} into {final} ({size:.0f} MB)"
            + (f", of which {done} are there" if done else "")
        )
        with progress(f"frames of {camera}", len(dataset), report) as advance:
            advance(done)
            for index in range(done, len(dataset)):
                file.write(dataset.frame(camera, index).data)
                advance(1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(final)


ORIGIN = "dataset.txt"
"""File in a cache directory that says which dataset it belongs to."""


def _remove_outdated(home: Path, dataset: Dataset) -> None:
    """Remove what belongs to an earlier version of the same dataset: it will never be read again."""
    origin = str(dataset.path.resolve())
    for other in home.parent.glob(f"{dataset.path.resolve().name}-*/{ORIGIN}"):
        if other.parent != home and other.read_text() == origin:
            shutil.rmtree(other.parent, ignore_errors=True)
    (home / ORIGIN).write_text(origin)
