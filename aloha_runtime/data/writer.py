"""Writer of LeRobotDataset v3.0 directories: video is encoded while frames arrive, episodes commit one by one.

Every file is whole when it appears. An episode's files appear in the order videos, data, tasks, episode row,
statistics, `meta/info.json`; the last rename is the commit point. A writer killed before it leaves files that nobody
counts; they are removed when the dataset is next opened for writing. Each episode has files of its own, so a commit
never rewrites frames.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aloha_runtime.data import features, files, layout, rows, statistics
from aloha_runtime.data.layout import Info
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.statistics import Stats
from aloha_runtime.data.video_encoder import CODECS, VideoEncoder
from aloha_runtime.errors import DatasetError

ASIDE = ".writing"
"""Directory inside the dataset for files that are not whole yet."""


class DatasetWriter:
    """One dataset opened for writing, by one process at a time.

    `create` or `open` it, then for every episode `add_frame` at the dataset's rate and `save_episode` or
    `discard_episode`. `close` drops frames that were not saved.
    """

    def __init__(self, path: Path, info: Info, lock: int) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.info = info
        self._lock: int | None = lock
        self._aside = path / ASIDE
        self._video_keys = [key for key, feature in info.features.items() if feature.dtype == "video"]
        self._episode: dict[str, list[NDArray[np.float32]]] = {}
        self._encoders: dict[str, VideoEncoder] = {}
        self._failed = ""
        self._tasks: list[str] = []
        self._stats: Stats = {}
        self._next_place: dict[str, rows.Place] = {}
        self._recover()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        vectors: Mapping[str, Sequence[str]],
        cameras: Mapping[str, tuple[int, int]] | None = None,
        fps: int = 50,
        robot_type: str = "aloha",
        codec: str = "h264",
    ) -> Self:
        """Start a dataset in a directory that is absent or empty.

        `vectors`: feature to the names of its numbers, such as {"observation.state": robot.NAMES}. `cameras`: name to
        (height, width), both even; the feature is `observation.images.{name}`.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DatasetError(f"{path} already exists. Choose another path, or continue the dataset that is there.")
        described = features.describe(vectors, cameras or {}, fps, codec)
        files.make_directory(path.absolute())
        lock = _lock(path)
        (path / ASIDE).mkdir(exist_ok=True)
        info = Info(fps=fps, features=described, robot_type=robot_type)
        files.publish_bytes(_pretty_json(info), path / ASIDE / "info.json", path / layout.INFO_PATH)
        return cls(path, info, lock)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Continue a dataset. Removes what an interrupted commit left behind."""
        path = Path(path)
        info = layout.read_info(path)
        features.check_appendable(path, info)
        return cls(path, info, _lock(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def episode_frames(self) -> int:
        """Frames added to the episode that is open."""
        return len(next(iter(self._episode.values()), []))

    def add_frame(self, frame: Mapping[str, ArrayLike]) -> None:
        """Add one frame: every feature of the dataset by its key.

        Vectors are (D,) finite floats, images (H, W, 3) uint8 RGB. A frame that does not fit raises DatasetError and
        adds nothing. Arrays may be reused by the caller at once.
        """
        self._check_usable()
        images, vectors = features.fitting(frame, self.path, self.info, self.episode_frames)
        try:
            for key in self._video_keys:
                if key not in self._encoders:
                    self._encoders[key] = self._start_encoder(key)
                self._encoders[key].put(images[key])
        except DatasetError as error:
            self._failed = str(error)
            raise
        for key, vector in vectors.items():
            self._episode.setdefault(key, []).append(vector)

    def save_episode(self, task: str) -> int:
        """Commit the frames added since the last episode, done for `task`; returns the index of the episode.

        When it returns, the episode is on disk and survives anything.
        """
        self._check_usable()
        if not self.episode_frames:
            raise DatasetError(f"{self.path}: there is no frame to save. Add frames before saving an episode.")
        if not task.strip():
            raise DatasetError(f"{self.path}: the task is empty. Say in a few words what the episode shows.")
        try:
            self._commit(task)
        except OSError as error:
            self._failed = f"{self.path}: the episode was not saved ({error}). Free disk space and open it again."
            raise DatasetError(self._failed) from error
        except DatasetError as error:
            self._failed = str(error)
            raise
        return self.info.total_episodes - 1

    def discard_episode(self) -> None:
        """Drop the frames added since the last saved episode."""
        for encoder in self._encoders.values():
            encoder.discard()
        self._encoders.clear()
        self._episode.clear()

    def close(self) -> None:
        """Drop what was not saved and let others write. May be called again."""
        if self._lock is None:
            return
        self.discard_episode()
        shutil.rmtree(self._aside, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    def _check_usable(self) -> None:
        if self._lock is None:
            raise DatasetError(f"{self.path} is closed. Open it again to append.")
        if self._failed:
            raise DatasetError(f"Nothing more is written after an error: {self._failed}")

    def _start_encoder(self, key: str) -> VideoEncoder:
        feature = self.info.features[key]
        height, width = feature.shape[:2]
        return VideoEncoder(
            self._aside / f"{key}.mp4", height, width, int(self.info.fps), CODECS[features.codec_name(feature)]
        )

    def _commit(self, task: str) -> None:
        info, length, places = self.info, self.episode_frames, self._next_place
        episode = info.total_episodes
        for encoder in self._encoders.values():
            encoder.finish()
        stats: Stats = {key: encoder.histogram.stats() for key, encoder in self._encoders.items()}
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [task],
            "length": length,
            "data/chunk_index": places["data"][0],
            "data/file_index": places["data"][1],
            "dataset_from_index": info.total_frames,
            "dataset_to_index": info.total_frames + length,
        }
        for key in self._video_keys:
            files.publish(self._encoders.pop(key).path, layout.video_file(self.path, info, key, *places[key]))
            row |= rows.video_columns(key, places[key], length / info.fps)

        tasks = self._tasks if task in self._tasks else [*self._tasks, task]
        table = rows.frame_table(self._episode, info, episode, tasks.index(task))
        files.publish_table(table, self._aside / "data.parquet", layout.data_file(self.path, info, *places["data"]))
        if tasks != self._tasks:
            self._publish_tasks(tasks)

        stats |= rows.table_stats(table)
        row |= rows.stats_columns(stats, info)
        row |= {"meta/episodes/chunk_index": places["episodes"][0], "meta/episodes/file_index": places["episodes"][1]}
        final = layout.episodes_file(self.path, *places["episodes"])
        files.publish_table(rows.episode_table(row, info), self._aside / "episode.parquet", final)
        self._stats = statistics.merge_all(self._stats, stats)
        self._publish_stats()
        self._publish_info(tasks, length)

    def _publish_info(self, tasks: list[str], length: int) -> None:
        """The commit point."""
        info = msgspec.structs.replace(
            self.info,
            total_episodes=self.info.total_episodes + 1,
            total_frames=self.info.total_frames + length,
            total_tasks=len(tasks),
            splits={**self.info.splits, "train": f"0:{self.info.total_episodes + 1}"},
        )
        files.publish_bytes(_pretty_json(info), self._aside / "info.json", self.path / layout.INFO_PATH)
        self.info, self._tasks = info, tasks
        self._episode.clear()
        for name, place in self._next_place.items():
            self._next_place[name] = rows.next_place({place}, info.chunks_size)

    def _publish_tasks(self, tasks: list[str]) -> None:
        files.publish_table(rows.tasks_table(tasks), self._aside / "tasks.parquet", self.path / layout.TASKS_PATH)

    def _publish_stats(self) -> None:
        content = _pretty_json(statistics.to_json(self._stats))
        files.publish_bytes(content, self._aside / "stats.json", self.path / layout.STATS_PATH)

    def _recover(self) -> None:
        """Read how far the dataset is, and remove or rewrite what an interrupted commit left."""
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir()
        episode_rows = rows.read_episode_rows(self.path, self.info.total_episodes, with_stats=True)
        for row in episode_rows:
            self._stats = statistics.merge_all(self._stats, rows.row_stats(row))
        if episode_rows:
            self._tasks = list(Dataset(self.path).tasks)
        used = rows.places(episode_rows, self._video_keys)
        self._next_place = {name: rows.next_place(found, self.info.chunks_size) for name, found in used.items()}
        counted = rows.used_files(self.path, self.info, used)
        orphans = [path for path in rows.numbered_files(self.path) if path not in counted]
        for path in orphans:
            path.unlink()
        if orphans and episode_rows:
            self._publish_tasks(self._tasks)
            self._publish_stats()
        elif orphans:
            (self.path / layout.TASKS_PATH).unlink(missing_ok=True)
            (self.path / layout.STATS_PATH).unlink(missing_ok=True)


def _lock(path: Path) -> int:
    """Hold the dataset directory against other writers; the lock ends with the process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatasetError(f"{path} is being written by another process. Wait until it ends, or stop it.") from None
    return descriptor


def _pretty_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=4)
