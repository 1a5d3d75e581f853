"""The episode being recorded, on disk from its first frame on: what a killed process leaves is an episode, too.

In the dataset's `.writing/`: `open.json` (what is being recorded), `rows.bin` (the vectors of every frame, float32) and
a video a camera. All three can be read up to the last moment, so that `recover` finds every frame but those since the
last key frame.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aloha_runtime import durable
from aloha_runtime.data import features, files
from aloha_runtime.data.layout import Info
from aloha_runtime.data.rows import vector_table
from aloha_runtime.data.statistics import ImageHistogram, Stats
from aloha_runtime.data.video import Image, VideoReader
from aloha_runtime.data.video_cut import cut, packets
from aloha_runtime.data.video_encoder import VideoEncoder, on_this_machine
from aloha_runtime.errors import DatasetError

HEADER, ROWS, RESERVE = "open.json", "rows.bin", "reserve"
SYNC_EVERY = 500
"""Frames between two syncs of the open episode: what a power cut costs at most, ten seconds at 50 Hz."""


class Header(msgspec.Struct):
    """What `open.json` says: which episode of the dataset this becomes, its task, and the numbers in a row."""

    episode_index: int
    task: str
    vectors: dict[str, int]


@dataclass(frozen=True)
class Taken:
    """An episode that is complete and waits for its commit: `columns` of T frames, less the counters; a video file and
    statistics of what the columns do not say, by feature; real time stamps where they are not those of the rate."""

    task: str
    columns: pa.Table
    videos: dict[str, Path]
    stats: Stats
    stamps: NDArray[np.float32] | None = None

    @property
    def frames(self) -> int:
        return len(self.columns)


class OpenEpisode:
    """Takes one frame after the other; nothing here waits for the disk but `finish` (and `add`, when asked to): files
    are made and written by threads."""

    def __init__(self, aside: Path, info: Info, task: str, reserve: int = 0) -> None:
        """`reserve`: bytes of the disk to keep in `aside` meanwhile."""
        self._aside, self._info = aside, info
        self._rows: list[NDArray[np.float32]] = []
        header = msgspec.json.encode(Header(info.total_episodes, task, info.vectors))

        def prepare() -> None:
            (aside / HEADER).write_bytes(header)
            files.reserve(aside / RESERVE, reserve)

        self._journal = _Journal(aside / ROWS, prepare, self._sync)
        self._encoders = {key: self._encoder(key) for key in _video_keys(info)}

    def _sync(self) -> None:
        """What is on its way to the disk arrives there, first the vectors and videos, then their names."""
        videos = [self._aside / f"{key}.mp4" for key in _video_keys(self._info)]
        for path in (self._aside / HEADER, self._aside / ROWS, *videos, self._aside, self._aside.parent):
            with contextlib.suppress(OSError):  # no video yet; what the disk does not take, the commit will say
                durable.sync(path)

    def _encoder(self, key: str) -> VideoEncoder:
        feature = self._info.features[key]
        height, width, _ = feature.size
        codec = on_this_machine(features.codec_of(feature), height, width)
        return VideoEncoder(self._aside / f"{key}.mp4", height, width, self._info.rate, codec)

    @property
    def frames(self) -> int:
        return len(self._rows)

    @property
    def behind(self) -> list[str]:
        """Video features whose encoder has no room: `add` would wait for it."""
        return [key for key, encoder in self._encoders.items() if encoder.full]

    def add(self, images: Mapping[str, Image | None], vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """One frame of every feature; an image that is None repeats the one before it."""
        for key, encoder in self._encoders.items():
            image = images[key]
            if image is None:
                encoder.repeat()
            else:
                encoder.put(image)
        row = np.concatenate([vectors[key] for key in self._info.vectors])
        self._journal.put(row.tobytes())
        self._rows.append(row)

    def finish(self, task: str, first: int, frames: int) -> Taken:
        """End the episode, of which `frames` frames from `first` on are kept."""
        for encoder in self._encoders.values():
            encoder.finish()
        self._journal.close()
        videos = {key: encoder.path for key, encoder in self._encoders.items()}
        if (first, frames) != (0, self.frames):
            videos = {key: _part(path, first, frames, self._info, key) for key, path in videos.items()}
        stats = {key: encoder.histogram.stats(first, frames) for key, encoder in self._encoders.items()}
        rows = np.stack(self._rows[first : first + frames])
        return Taken(task, vector_table(_columns(rows, self._info.vectors), self._info), videos, stats)

    def abandon(self) -> None:
        """Stop; what is on disk stays there, for `recover`."""
        for encoder in self._encoders.values():
            encoder.abandon()
        self._journal.close()


def recover(aside: Path, info: Info) -> Taken | None:
    """The episode that a killed process, or a full disk, left open in `aside`; None when there is nothing to find.

    Nothing is lost when the recovery itself is killed, or raises OSError because the disk is still full.
    """
    header = _header(aside)
    if header is None or header.episode_index != info.total_episodes or header.vectors != info.vectors:
        return None  # committed already, or of another dataset
    keys = _video_keys(info)
    size = sum(header.vectors.values())
    rows = np.fromfile(aside / ROWS, dtype=np.float32) if (aside / ROWS).exists() else np.empty(0, np.float32)
    rows = rows[: len(rows) // size * size].reshape(-1, size)
    frames = min([len(rows), *(_readable(aside / f"{key}.mp4", info.fps) for key in keys)])
    if frames == 0:
        return None
    videos = {key: _part(aside / f"{key}.mp4", 0, frames, info, key) for key in keys}
    stats = {key: _image_stats(path, frames, info.fps).stats() for key, path in videos.items()}
    return Taken(header.task, vector_table(_columns(rows[:frames], info.vectors), info), videos, stats)


def _header(aside: Path) -> Header | None:
    try:
        return msgspec.json.decode((aside / HEADER).read_bytes(), type=Header)
    except (OSError, msgspec.DecodeError):
        return None


def _readable(path: Path, fps: float) -> int:
    """Frames from the first on that a video which was cut off anywhere shows; 0 when it is none.

    A full disk leaves packets that are listed but not whole. They are the last ones, so the film is looked at from its
    end, one key frame after the other, until everything from there on can be decoded.
    """
    try:
        found = packets(path, fps)
        reader = VideoReader(path, fps)
    except DatasetError:
        return 0
    frames = found.frames
    for key in sorted(found.keys, reverse=True):
        if key >= frames:
            continue
        try:
            for number in range(key, frames):
                reader.frame(number / fps)
            break
        except DatasetError:
            frames = key
    else:
        frames = 0
    reader.close()
    return frames


def _part(path: Path, first: int, frames: int, info: Info, key: str) -> Path:
    feature = info.features[key]
    height, width, _ = feature.size
    target = path.with_suffix(".part.mp4")
    cut(path, target, first, frames, info.fps, on_this_machine(features.codec_of(feature), height, width))
    return target


def _image_stats(path: Path, frames: int, fps: float) -> ImageHistogram:
    histogram, reader = ImageHistogram(), VideoReader(path, fps)
    for number in range(frames):
        histogram.add(reader.frame(number / fps))
    reader.close()
    return histogram


def _columns(rows: NDArray[np.float32], sizes: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """(T, sum of sizes) rows as one (T, D) array a feature."""
    parts = np.split(rows, np.cumsum(list(sizes.values()))[:-1], axis=1)
    return dict(zip(sizes, parts, strict=True))


def _video_keys(info: Info) -> list[str]:
    return info.video_keys


class _Journal:
    """A file that grows in a thread of its own, so that a slow disk holds nobody up. It calls `prepare` first, and
    `sync` every `SYNC_EVERY` rows."""

    def __init__(self, path: Path, prepare: Callable[[], None], sync: Callable[[], None]) -> None:
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, args=(path, prepare, sync), name="journal", daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Raises OSError when `prepare` has failed: without the header nothing would come back."""
        if self._error is not None:
            raise self._error
        self._waiting.put(data)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _run(self, path: Path, prepare: Callable[[], None], sync: Callable[[], None]) -> None:
        try:
            prepare()
        except OSError as error:
            self._error = error
            return
        # A full disk ends the journal, not the episode: the rows are in memory, too.
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            rows = 0
            while (data := self._waiting.get()) is not None:
                file.write(data)
                rows += 1
                if rows % SYNC_EVERY == 0:
                    sync()
