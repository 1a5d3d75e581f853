"""The committed part of a dataset, and how one more episode joins it.

An episode's files appear in the order videos, data, tasks, report, episode row, statistics, `meta/info.json`; the last
rename is the commit point. Each episode has files of its own, so a commit never rewrites frames.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aloha_runtime.data import files, layout, reports, rows, statistics
from aloha_runtime.data.layout import Info
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.statistics import Stats
from aloha_runtime.errors import DatasetError


class EpisodeStore:
    """Knows how far a dataset is; only the process that holds its lock may use it."""

    def __init__(self, path: Path, aside: Path, info: Info) -> None:
        """`aside`: a directory on the same file system for files that are not whole yet."""
        self.path, self.info, self._aside = path, info, aside
        self._video_keys = info.video_keys
        self._read()

    def _read(self) -> None:
        """Everything that follows from `self.info` and the episode rows."""
        info = self.info
        self._stats: Stats = {}
        self._rows = rows.read_episode_rows(self.path, info.total_episodes, with_stats=True)
        for row in self._rows:
            self._stats = statistics.merge_all(self._stats, rows.row_stats(row))
        self._tasks = list(Dataset(self.path).tasks) if self._rows else []
        used = rows.places(self._rows, self._video_keys)
        self._next_place = {name: rows.next_place(found, info.chunks_size) for name, found in used.items()}
        self._counted = rows.used_files(self.path, info, used)

    def next_videos(self) -> dict[str, Path]:
        """Where the next commit puts the video of each feature."""
        return {key: layout.video_file(self.path, self.info, key, *self._next_place[key]) for key in self._video_keys}

    def remove_orphans(self) -> None:
        """Take away files that an interrupted commit left and nobody counts, and what it wrote into common ones."""
        orphans = [path for path in rows.numbered_files(self.path) if path not in self._counted]
        orphans += [path for index, path in reports.listed(self.path) if index >= self.info.total_episodes]
        for path in orphans:
            path.unlink()
        if orphans and self._counted:
            self._publish_tasks(self._tasks)
            self._publish_stats()
        elif orphans:
            (self.path / layout.TASKS_PATH).unlink(missing_ok=True)
            (self.path / layout.STATS_PATH).unlink(missing_ok=True)

    def refuse_to_drop(self) -> None:
        """Raise DatasetError when there is no last episode, or its files hold others as well."""
        self._read()
        if not self._rows:
            raise DatasetError(f"{self.path} has no episode to take back.")
        *kept, last = ((row["data/chunk_index"], row["data/file_index"]) for row in self._rows)
        if last in kept:
            raise DatasetError(
                f"{self.path}: the last episode shares its files with others; take it out with"
                f" `aloha dataset delete {self.path} {len(kept)}`."
            )

    def drop_last(self) -> None:
        """Take the last episode out again, as `refuse_to_drop` allows."""
        *kept, last = self._rows
        tasks = list(dict.fromkeys(task for row in kept for task in row["tasks"]))
        self._publish_info(self._tasks[: len(tasks)], len(kept), self.info.total_frames - last["length"])
        self._read()
        self.remove_orphans()

    def commit(self, taken: Taken, report: Mapping[str, Any] | None) -> None:
        """When it returns, the episode is on disk and survives anything."""
        info, length, places = self.info, taken.frames, self._next_place
        episode = info.total_episodes
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [taken.task],
            "length": length,
            "data/chunk_index": places["data"][0],
            "data/file_index": places["data"][1],
            "dataset_from_index": info.total_frames,
            "dataset_to_index": info.total_frames + length,
        }
        for key, final in self.next_videos().items():
            files.publish(taken.videos[key], final)
            row |= rows.video_columns(key, places[key], length / info.fps)

        tasks = self._tasks if taken.task in self._tasks else [*self._tasks, taken.task]
        table = rows.frame_table(taken.columns, info, episode, tasks.index(taken.task), taken.stamps)
        files.publish_table(table, self._aside / "data.parquet", layout.data_file(self.path, info, *places["data"]))
        if tasks != self._tasks:
            self._publish_tasks(tasks)
        if report is not None:
            files.publish_bytes(pretty_json(report), self._aside / "report.json", reports.path(self.path, episode))

        stats = taken.stats | rows.table_stats(table, info)
        row |= rows.stats_columns(stats, info)
        row |= {"meta/episodes/chunk_index": places["episodes"][0], "meta/episodes/file_index": places["episodes"][1]}
        last = layout.episodes_file(self.path, *places["episodes"])
        files.publish_table(rows.episode_table(row), self._aside / "episode.parquet", last)
        self._stats = statistics.merge_all(self._stats, stats)
        self._publish_stats()
        self._publish_info(tasks, episode + 1, info.total_frames + length)
        for name, used in places.items():
            self._next_place[name] = rows.next_place({used}, info.chunks_size)

    def _publish_info(self, tasks: list[str], episodes: int, frames: int) -> None:
        """The commit point."""
        info = msgspec.structs.replace(
            self.info,
            total_episodes=episodes,
            total_frames=frames,
            total_tasks=len(tasks),
            splits={**self.info.splits, "train": f"0:{episodes}"},
        )
        files.publish_bytes(pretty_json(info), self._aside / "info.json", self.path / layout.INFO_PATH)
        self.info, self._tasks = info, tasks

    def _publish_tasks(self, tasks: list[str]) -> None:
        files.publish_table(rows.tasks_table(tasks), self._aside / "tasks.parquet", self.path / layout.TASKS_PATH)

    def _publish_stats(self) -> None:
        content = pretty_json(statistics.to_json(self._stats))
        files.publish_bytes(content, self._aside / "stats.json", self.path / layout.STATS_PATH)


def pretty_json(value: Any) -> bytes:
    """JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4)
