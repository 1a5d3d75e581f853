"""Reader of LeRobotDataset v3.0 directories, written by this runtime or by LeRobot."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.data import layout, statistics
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.layout import Feature, Info
from aloha_runtime.data.rows import read_episode_rows, read_table
from aloha_runtime.data.statistics import Stats
from aloha_runtime.data.stored import StoredPictures, empty, to_numpy
from aloha_runtime.data.video import Image, VideoReader
from aloha_runtime.errors import DatasetError

OPEN_VIDEOS = 16
"""Video files kept open for random reading. One costs about 10 MB at 640x480; opening it again, 1 ms."""


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode lies in a video file; seconds from the start of the file."""

    path: Path
    from_s: float
    to_s: float


@dataclass(frozen=True)
class Episode:
    """One episode: frames `from_index` up to, not including, `to_index` of the dataset. `videos` is by camera name."""

    index: int
    length: int
    tasks: tuple[str, ...]
    from_index: int
    to_index: int
    data_path: Path
    videos: dict[str, VideoSpan]


class Dataset:
    """A dataset opened for reading.

    Only what `meta/info.json` counts is seen: a dataset whose writer was killed reads as it was after its last
    finished episode.

    Vectors are read whole (a few MB an hour of one rig and feature); images are decoded on demand. Not for use by
    several threads at once. Processes may share one by fork or by pickling: each opens video files of its own.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: Info = layout.read_info(self.path)
        self.fps = self.info.fps
        self.features: dict[str, Feature] = self.info.features
        self.cameras: dict[str, tuple[int, int]] = self.info.cameras
        self._columns: dict[str, NDArray[Any]] = {}
        self._open_video: dict[Path, VideoReader] = {}
        self._inherited: list[dict[Path, VideoReader]] = []
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_stored"}
        return {**kept, "_open_video": {}, "_inherited": []}

    def __len__(self) -> int:
        """Number of frames."""
        return self.info.total_frames

    @cached_property
    @reads_files
    def stats(self) -> Stats:
        """Statistics of every feature (`data/statistics.py` says what they are)."""
        path = self.path / layout.STATS_PATH
        try:
            return statistics.from_json(msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]]))
        except FileNotFoundError:
            raise DatasetError(f"{path} is missing. Restore it from a copy of the dataset.") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None

    @cached_property
    @reads_files
    def tasks(self) -> tuple[str, ...]:
        """Task texts by `task_index`."""
        table = read_table(self.path / layout.TASKS_PATH)
        # LeRobot keeps the text in the table's pandas index, which has no name when older releases wrote it.
        text = "task" if "task" in table.column_names else "__index_level_0__"
        by_index = dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))
        missing = next((index for index in range(self.info.total_tasks) if index not in by_index), None)
        if missing is not None:
            raise DatasetError(
                f"{self.path / layout.TASKS_PATH} lacks task {missing}, {layout.INFO_PATH} counts"
                f" {self.info.total_tasks} tasks. Restore it from a copy of the dataset."
            )
        return tuple(by_index[index] for index in range(self.info.total_tasks))

    @cached_property
    @reads_files
    def episodes(self) -> tuple[Episode, ...]:
        """Every episode in order."""
        rows = read_episode_rows(self.path, self.info.total_episodes, with_stats=False)
        try:
            return tuple(self._episode(row) for row in rows)
        except KeyError as error:
            raise DatasetError(
                f"{self.path}/meta/episodes has no column {error}. Restore it from a copy of the dataset."
            ) from None

    @reads_files
    def vectors(self, key: str) -> NDArray[np.float32]:
        """All frames of a vector feature, (N, D) float32 in stored units."""
        if key not in self.info.vectors:
            raise DatasetError(f"{self.path} has no vector {key!r}; it has: {', '.join(self.info.vectors)}.")
        return self.column(key).reshape(len(self), self.info.vectors[key]).astype(np.float32, copy=False)

    @reads_files
    def column(self, key: str) -> NDArray[Any]:
        """All frames of a feature of numbers or texts, as stored: (N,) or (N, D, ...).

        Only what is asked for is read, so that no other feature can be in the way.
        """
        if key not in self.features or self.features[key].dtype in layout.PICTURES:
            raise DatasetError(f"{self.path} has no column {key!r}; it has: {', '.join(self._column_names())}.")
        if key not in self._columns:
            self._columns[key] = self._read_column(key)
        return self._columns[key]

    @reads_files
    def images(self, camera: str, episode: int) -> Image:
        """All frames of one camera in one episode, (T, H, W, 3) uint8 RGB."""
        height, width = self._camera_size(camera)
        found = self._episode_by_index(episode)
        frames = np.empty((found.length, height, width, 3), dtype=np.uint8)
        for index in range(found.length):
            frames[index] = self.frame(camera, found.from_index + index)
        return frames

    @reads_files
    def frame(self, camera: str, index: int) -> Image:
        """Frame `index` of the dataset (0..N-1) from one camera, (H, W, 3) uint8 RGB."""
        size = self._camera_size(camera)
        if not 0 <= index < len(self):
            raise DatasetError(f"{self.path} has frames 0 to {len(self) - 1}; {index} is outside.")
        starts = self._starts
        episode = self.episodes[int(np.searchsorted(starts, index, side="right")) - 1]
        if camera in episode.videos:
            span = episode.videos[camera]
            path, image = span.path, self._video(span.path).frame(span.from_s + (index - episode.from_index) / self.fps)
        else:
            path = episode.data_path
            image = self._stored.picture(path, self._camera_key(camera), index)
        if image.shape[:2] != size:
            raise DatasetError(
                f"{path}: frames are {image.shape[1]}x{image.shape[0]}, {layout.INFO_PATH} says"
                f" {size[1]}x{size[0]}. Restore the file from a copy of the dataset."
            )
        return image

    def _video(self, path: Path) -> VideoReader:
        """The open file, which becomes the last of `OPEN_VIDEOS` to be closed."""
        if self._pid != os.getpid():  # forked: the parent goes on with the file positions of its readers
            self._inherited.append(self._open_video)
            self._open_video, self._pid = {}, os.getpid()
        reader = self._open_video.pop(path, None) or VideoReader(path, self.fps)
        self._open_video[path] = reader
        if len(self._open_video) > OPEN_VIDEOS:
            self._open_video.pop(next(iter(self._open_video))).close()
        return reader

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.array([episode.from_index for episode in self.episodes])

    def _column_names(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature.dtype not in layout.PICTURES]

    @cached_property
    def _stored(self) -> StoredPictures:
        return StoredPictures()

    def _camera_key(self, camera: str) -> str:
        """The feature of a camera."""
        return next(key for key, each in self.features.items() if each.is_camera and layout.camera_name(key) == camera)

    def _camera_size(self, camera: str) -> tuple[int, int]:
        if camera not in self.cameras:
            raise DatasetError(f"{self.path} has no camera {camera!r}; it has: {', '.join(self.cameras) or 'none'}.")
        return self.cameras[camera]

    def _episode_by_index(self, index: int) -> Episode:
        if not 0 <= index < len(self.episodes):
            raise DatasetError(f"{self.path} has episodes 0 to {len(self.episodes) - 1}; {index} is outside.")
        return self.episodes[index]

    def _episode(self, row: dict[str, Any]) -> Episode:
        root, info = self.path, self.info
        videos = {}
        for key, feature in self.features.items():
            if feature.dtype == "video":
                head = f"videos/{key}/"
                path = layout.video_file(root, info, key, row[head + "chunk_index"], row[head + "file_index"])
                span = VideoSpan(path, row[head + "from_timestamp"], row[head + "to_timestamp"])
                videos[layout.camera_name(key)] = span
        return Episode(
            index=row["episode_index"],
            length=row["length"],
            tasks=tuple(row["tasks"]),
            from_index=row["dataset_from_index"],
            to_index=row["dataset_to_index"],
            data_path=layout.data_file(root, info, row["data/chunk_index"], row["data/file_index"]),
            videos=videos,
        )

    def _read_column(self, key: str) -> NDArray[Any]:
        """The frames that are counted, in order."""
        wanted = {key, "index", "episode_index"}
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in wanted}
        for path in dict.fromkeys(episode.data_path for episode in self.episodes):
            table = read_table(path, only=wanted)
            for name in wanted:
                if name not in table.column_names:
                    raise DatasetError(f"{path} has no column {name!r}, which {layout.INFO_PATH} lists. Restore it.")
                parts[name].append(to_numpy(path, name, table[name], self.features[name]))
        columns = {
            name: np.concatenate(chunks) if chunks else empty(self.features[name]) for name, chunks in parts.items()
        }
        committed = columns["episode_index"] < self.info.total_episodes
        rows = columns["index"][committed]
        if len(rows) != len(self) or not np.array_equal(rows, np.arange(len(rows))):
            raise DatasetError(
                f"{self.path}/data holds {len(rows)} frames and {layout.INFO_PATH} counts {len(self)},"
                f" or they are out of order. Restore the dataset from a copy."
            )
        return columns[key][committed]
