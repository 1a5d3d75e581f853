"""A dataset while it is being recorded: what becomes of each take. A full disk is a state here, not an exception."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from aloha_runtime.control.take import Ending, Outcome
from aloha_runtime.data import quality
from aloha_runtime.data.staging import SET_ASIDE
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.errors import DatasetError

RESERVE_BYTES = 64 << 20
"""Kept free for saving the take under way when something else fills the disk: 20 s of four cameras."""
LEAST_FREE_BYTES = 256 << 20
"""A take ends, and none begins, with less of the disk free: a minute and a half of four cameras."""
KEY_FRAMES = 10
"""A take that is cut at its start begins at a key frame, so that its pictures need not be encoded again."""


@dataclass(frozen=True)
class Ended:
    """What became of a take: `text` for people, whether it is an episode now, whether its quality is in doubt."""

    text: str
    kept: bool
    flagged: bool


class Session:
    """The dataset at `path`, open for writing. `trouble` says why nothing can be recorded now."""

    def __init__(self, path: Path, task: str, keep_all: bool) -> None:
        """`keep_all`: a take that nobody discards is kept; otherwise only one that was asked for (`Ending.last`)."""
        self.path, self._task, self._keep_all = path, task, keep_all
        self.writer = DatasetWriter.open(path, RESERVE_BYTES)
        self.trouble = ""

    @property
    def episodes(self) -> int:
        return self.writer.info.total_episodes

    @property
    def disk_is_low(self) -> bool:
        return shutil.disk_usage(self.path).free < LEAST_FREE_BYTES

    def ready(self) -> str:
        """Why no take can begin now, empty when one can. After trouble the dataset is opened again, which brings back
        the take that could not be saved."""
        try:
            if self.trouble:
                self._reopen()
            free_mb = shutil.disk_usage(self.path).free >> 20
            low = f"the disk of {self.path} has {free_mb} MB left, {LEAST_FREE_BYTES >> 20} are needed; free some"
            self.trouble = low if self.disk_is_low else ""
        except DatasetError as error:
            self.trouble = str(error)
        return self.trouble

    def begin(self) -> None:
        """The next frame opens an episode."""
        self.writer.begin_episode(self._task)

    def add(self, frame: Mapping[str, ArrayLike | None]) -> bool:
        """One frame; False when it could not be written, and `trouble` says why."""
        try:
            self.writer.add_frame(frame)
        except DatasetError as error:
            self.trouble = str(error)
        return not self.trouble

    def end(self, ending: Ending, report: Callable[[int, int], dict[str, Any]]) -> Ended:
        """Commit the take, or drop it. `report`: of so many frames from a first one on (`quality.report`)."""
        total = self.writer.episode_frames
        frames = total - min(ending.drop, total)
        first = max(0, frames - ending.last) // KEY_FRAMES * KEY_FRAMES if ending.last else 0
        try:
            if not ending.keep or frames == first or not (self._keep_all or ending.last):
                self.writer.discard_episode()
                return Ended(f"not kept ({ending.cause})", False, False)
            said = {"outcome": ending.outcome, "ended": ending.cause, **report(first, frames - first)}
            index = self.writer.save_episode(self._task, first=first, frames=frames - first, report=said)
        except DatasetError as error:
            self.trouble = str(error)
            return self._rescued(ending)
        return Ended(f"episode {index} ({ending.cause}): {quality.line(said)}", True, bool(said["flags"]))

    def _rescued(self, ending: Ending) -> Ended:
        """What can be saved of a take whose writing has failed; the rest comes back with the next opening."""
        before = self.episodes
        try:
            self._reopen()
        except DatasetError as error:
            self.trouble = str(error)
        if self.episodes == before:
            return Ended(f"{ending.cause}; not saved yet: {self.trouble}", False, True)
        said = f"episode {before} ({ending.cause}), {self.writer.recovered} frames of it; FLAGGED: {self.trouble}"
        return Ended(said, True, True)

    def _reopen(self) -> None:
        self.writer.close()
        self.writer = DatasetWriter.open(self.path, RESERVE_BYTES)

    def mark(self, outcome: Outcome) -> str:
        """Say of the last episode what became of it; DatasetError when there is none."""
        index = self.episodes - 1
        if index < 0:
            raise DatasetError(f"{self.path} has no episode to mark yet.")
        try:
            self.writer.mark_last_episode(outcome)
        except DatasetError as error:
            self.trouble = str(error)
            raise
        return f"episode {index}: {outcome}"

    def undo(self) -> str:
        """Take the last episode back; DatasetError when there is none."""
        moved = self.writer.drop_last_episode()
        kept = f"; its files are in {self.path / SET_ASIDE}, since they were there before this session" if moved else ""
        return f"episode {self.episodes} is gone{kept}"
