"""Writer of LeRobotDataset v3.0 directories: video is encoded while frames arrive, episodes commit one by one.

Every file is whole when it appears, and what `meta/info.json` counts survives anything (`episode_store.py`). A writer
that is killed leaves its open episode in `.writing/` (`open_episode.py`), which joins the dataset as far as it came
when the dataset is next opened for writing.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from aloha_runtime.data import features, files, layout, uncounted
from aloha_runtime.data.episode_store import EpisodeStore, pretty_json
from aloha_runtime.data.layout import Info
from aloha_runtime.data.open_episode import OpenEpisode, recover
from aloha_runtime.data.staging import ASIDE, Staging
from aloha_runtime.errors import DatasetError

RECOVERED = {"outcome": "", "ended": "left open by its recording (killed, or a full disk)"}
"""Report of an episode that was found open."""


class DatasetWriter:
    """One dataset opened for writing, by one process at a time.

    `create` or `open` it, then for every episode `add_frame` at the dataset's rate and `save_episode` or
    `discard_episode`. `close` drops frames that were not saved.
    """

    def __init__(self, path: Path, info: Info, lock: int, reserve: int) -> None:
        """Use `create` or `open`."""
        self.path = path
        self._lock: int | None = lock
        self._aside = path / ASIDE
        self._reserve = reserve
        self._episode: OpenEpisode | None = None
        self._task = "unfinished"
        self._failed = ""
        self.recovered: int | None = None
        """Frames of the episode that an earlier writer had left open and that opening committed; None when none."""
        self.set_aside: list[Path] = []
        """What opening found in `.writing/` that is not provably ours, and where it is now."""
        self._staging = Staging(path, info)
        self._store = EpisodeStore(path, self._aside, info)
        with self._failing():
            self._recover()

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        vectors: Mapping[str, Sequence[str]],
        cameras: Mapping[str, tuple[int, int]] | None = None,
        fps: float = 50,
        robot_type: str = "aloha",
        codec: str = "h264",
        scalars: Mapping[str, str] | None = None,
        reserve: int = 0,
    ) -> Self:
        """Start a dataset in a directory that is absent or empty.

        `vectors`: feature to the names of its numbers, such as {"observation.state": robot.NAMES}. `cameras`: name to
        (height, width), both even; the feature is `observation.images.{name}`. `scalars`: features of one number
        without a name, to their dtype, "float32" or "bool". `reserve`: bytes of the disk kept during an episode so that
        it can be saved when something else fills the disk meanwhile.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DatasetError(f"{path} already exists. Choose another path, or continue the dataset that is there.")
        described = features.describe(vectors, cameras or {}, fps, codec, scalars)
        files.make_directory(path.absolute())
        lock = lock_dataset(path)
        (path / ASIDE).mkdir(exist_ok=True)
        info = Info(fps=fps, features=described, robot_type=robot_type)
        files.publish_bytes(pretty_json(info), path / ASIDE / "info.json", path / layout.INFO_PATH)
        return cls(path, info, lock, reserve)

    @classmethod
    def open(cls, path: str | Path, reserve: int = 0) -> Self:
        """Continue a dataset. An episode that its last writer left open joins it. DatasetError when it holds files that
        no episode counts and that its writer's journal does not list."""
        path = Path(path)
        layout.read_info(path)  # first: what is no dataset is no place for a lock
        lock = lock_dataset(path)
        try:
            info = layout.read_info(path)
            features.check_appendable(path, info)
            return cls(path, info, lock, reserve)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def info(self) -> Info:
        """What is committed."""
        return self._store.info

    @property
    def episode_frames(self) -> int:
        """Frames added to the episode that is open."""
        return self._episode.frames if self._episode else 0

    @property
    def behind(self) -> list[str]:
        """Video features whose encoder has no room left: `add_frame` with an image of theirs would wait."""
        return self._episode.behind if self._episode else []

    def begin_episode(self, task: str) -> None:
        """Name the task of the episode that the next frame opens, for the case that this process does not save it."""
        self._task = task

    def add_frame(self, frame: Mapping[str, ArrayLike | None]) -> None:
        """Add one frame: every feature of the dataset by its key.

        Vectors are (D,) finite floats, images (H, W, 3) uint8 RGB, or None for the image before once more. A frame that
        does not fit raises DatasetError and adds nothing. Arrays may be reused by the caller at once.
        """
        self._check_usable()
        images, vectors = features.fitting(frame, self.path, self.info, self.episode_frames)
        with self._failing():
            if self._episode is None:
                self._episode = OpenEpisode(self._aside, self.info, self._task, self._reserve)
            self._episode.add(images, vectors)

    def save_episode(
        self, task: str, *, first: int = 0, frames: int | None = None, report: Mapping[str, Any] | None = None
    ) -> int:
        """Commit the frames added since the last episode, done for `task`; returns the index of the episode.

        `first`, `frames`: keep only this part. `report`: stored as it is (`data/reports.py`). When it returns, the
        episode is on disk and survives anything. When it fails, the episode waits in `.writing/`, and opening the
        dataset again commits it.
        """
        self._check_usable()
        total = self.episode_frames
        frames = total - first if frames is None else frames
        if self._episode is None or not 0 <= first < first + frames <= total:
            raise DatasetError(f"{self.path}: there is no frame to save. Add frames before saving an episode.")
        if not task.strip():
            raise DatasetError(f"{self.path}: the task is empty. Say in a few words what the episode shows.")
        with self._failing():
            self._staging.give_up_reserve()
            self._store.commit(self._episode.finish(task, first, frames), report, self._staging)
            self._episode = None
            self._staging.clear_own()
        return self.info.total_episodes - 1

    def mark_last_episode(self, outcome: str) -> None:
        """Say of the episode saved last what became of it: in its report, and in the columns of its end."""
        self._check_usable()
        with self._failing():
            self._store.mark_last(outcome)

    def drop_last_episode(self) -> list[Path]:
        """Take the episode saved last out of the dataset again. One that this writer has not saved itself goes to
        `.set-aside/DATE/`; returns its files there."""
        self._check_usable()
        self._store.refuse_to_drop()
        with self._failing():
            moved = self._store.drop_last(self._staging)
            self._staging.clear_own()
        return moved

    def discard_episode(self) -> None:
        """Drop the frames added since the last saved episode."""
        if self._episode:
            self._episode.abandon()
            self._episode = None
        self._staging.clear_own()

    def close(self) -> None:
        """Drop what was not saved and let others write; what could not be saved stays, to be recovered when the dataset
        is next opened. May be called again."""
        if self._lock is None:
            return
        if not self._failed:
            self.discard_episode()
            self._staging.close()
        elif self._episode:
            self._episode.abandon()
        os.close(self._lock)
        self._lock = None

    def _check_usable(self) -> None:
        if self._lock is None:
            raise DatasetError(f"{self.path} is closed. Open it again to append.")
        if self._failed:
            raise DatasetError(f"Nothing more is written after an error: {self._failed}")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong inside ends the writing, even where it is no error (Ctrl-C), and leaves `.writing/` alone."""
        self._failed = f"{self.path}: writing was interrupted."
        try:
            yield
        except OSError as error:
            self._failed = (
                f"{self.path}: writing failed ({error}). Free disk space and open the dataset again: the open episode"
                f" comes back then, finished ones are safe."
            )
            raise DatasetError(self._failed) from error
        except DatasetError as error:
            self._failed = str(error)
            raise
        self._failed = ""

    def _recover(self) -> None:
        """Take back what an interrupted commit of ours has placed, and commit what an earlier writer left open."""
        self._staging.give_up_reserve()
        self._store.take_back(self._staging)
        uncounted.refuse(self.path, self._store.uncounted(), self._store.rows_beyond())
        try:
            taken = recover(self._aside, self.info)
        except DatasetError as error:
            raise DatasetError(
                f"{self.path}: the episode that was left open cannot be brought back ({error}) To give it up, remove"
                f" {self._aside} and do this again."
            ) from error
        self._store.settle_last()
        if taken is not None:
            self._store.commit(taken, RECOVERED, self._staging)
            self.recovered = taken.frames
        self.set_aside = self._staging.clear_listed()


def lock_dataset(path: Path) -> int:
    """Hold the dataset directory against other writers; the lock ends with the process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):  # an edit has just put another in its place
            raise BlockingIOError
    except BlockingIOError:
        os.close(descriptor)
        raise DatasetError(f"{path} is being written by another process. Wait until it ends, or stop it.") from None
    return descriptor
