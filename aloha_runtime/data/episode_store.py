"""The committed part of a dataset, and how one more episode joins it.

An episode's files appear in the order videos, data, tasks, report, episode row, statistics, `meta/info.json`; the last
rename is the commit point. Each episode has files of its own, so a commit never rewrites frames.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from aloha_runtime import inside
from aloha_runtime.data import ending, files, layout, reports, rows, statistics
from aloha_runtime.data.layout import Info
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.staging import Journal, Staging, set_aside
from aloha_runtime.data.statistics import Stats
from aloha_runtime.errors import DatasetError


class EpisodeStore:
    """Knows how far a dataset is; only the process that holds its lock may use it."""

    def __init__(self, path: Path, aside: Path, info: Info) -> None:
        """`aside`: a directory on the same file system for files that are not whole yet."""
        self.path, self.info, self._aside = path, info, aside
        self._written: dict[str, str] = {}
        """Files that this process has put in their places: path below the dataset -> sha256."""
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

    def uncounted(self) -> list[Path]:
        """Numbered files and reports that no counted episode has."""
        found = [path for path in rows.numbered_files(self.path) if path not in self._counted]
        return found + [path for index, path in reports.listed(self.path) if index >= self.info.total_episodes]

    def rows_beyond(self) -> int:
        """Episodes that the tables of counted ones describe beyond those that `meta/info.json` counts."""
        return rows.count_rows(path for path in self._counted if path.is_relative_to(self.path / "meta")) - len(
            self._rows
        )

    def take_back(self, staging: Staging) -> None:
        """Undo a commit that was interrupted before its episode was counted, as far as the journal proves that it was
        ours: its files return to `.writing/`, and what it wrote into common ones is as before."""
        journal = staging.journal()
        if journal is None or journal.episode_index < self.info.total_episodes:
            return
        staging.take_back(journal, self.uncounted(), self.next_videos())
        for name, publish in ((layout.TASKS_PATH, self._publish_tasks), (layout.STATS_PATH, self._publish_stats)):
            if not staging.is_as_written(journal, self.path / name):
                continue
            if self._rows:
                publish()
            else:
                inside.unlink(self.path, self.path / name)

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

    def drop_last(self, staging: Staging) -> list[Path]:
        """Take the last episode out again, as `refuse_to_drop` allows. Its files are deleted when this process wrote
        them; others go to `.set-aside/DATE/`, and are returned."""
        *kept, last = self._rows
        tasks = list(dict.fromkeys(task for row in kept for task in row["tasks"]))
        ours = {
            name: digest for name, digest in self._written.items() if digest == inside.digest(self.path, Path(name))
        }
        staging.put_journal(Journal(len(kept), ours))
        self._publish_info(self._publishable_info(self._tasks[: len(tasks)], len(kept), last["length"]))
        self._read()
        if self._rows:
            self._publish_tasks()
            self._publish_stats()
        self.take_back(staging)
        return [set_aside(self.path, path) for path in self.uncounted()]

    def mark_last(self, outcome: str) -> None:
        """Write into the report of the last episode what became of it, then what follows from that."""
        last = self.info.total_episodes - 1
        report = {**reports.read(self.path, last), ending.OUTCOME: outcome}
        self._replace(self._json("report", report), reports.path(self.path, last))
        self.settle_last()

    def settle_last(self) -> None:
        """See that columns and statistics of the last episode agree with its report, which a kill may have kept from
        them. The report is what counts."""
        self._read()
        if not self._rows or not ending.COLUMNS & self.info.vectors.keys():
            return
        row = self._rows[-1]
        data = layout.data_file(self.path, self.info, row["data/chunk_index"], row["data/file_index"])
        table = rows.read_table(data)
        report = reports.read(self.path, self.info.total_episodes - 1)
        settled, stats = ending.settled(table, row["episode_index"], report)
        if settled is not table:
            self._replace(files.write_table(settled, self._aside / "data.parquet"), data)
        changed = row | rows.stats_columns(rows.row_stats(row) | stats, self.info)
        if changed == row:
            return
        self._rows[-1] = changed
        place = (row["meta/episodes/chunk_index"], row["meta/episodes/file_index"])
        same = [
            each
            for each in self._rows
            if (each["meta/episodes/chunk_index"], each["meta/episodes/file_index"]) == place
        ]
        together = pa.concat_tables([rows.episode_table(each) for each in same])
        aside = files.write_table(together, self._aside / "episode.parquet")
        self._replace(aside, layout.episodes_file(self.path, *place))
        self._read()
        self._publish_stats()

    def commit(self, taken: Taken, report: Mapping[str, Any] | None, staging: Staging | None = None) -> None:
        """When it returns, the episode is on disk and survives anything. `staging`: its journal lists every file
        before the first takes its place; None for a tree that nobody looks at before it is whole."""
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
        finals = {taken.videos[key]: final for key, final in self.next_videos().items()}
        for key in self._video_keys:
            row |= rows.video_columns(key, places[key], length / info.fps)

        before = self._tasks
        self._tasks = before if taken.task in before else [*before, taken.task]
        table = rows.frame_table(taken.columns, info, episode, self._tasks.index(taken.task), taken.stamps)
        table, _ = ending.settled(table, episode, report or {})
        data = files.write_table(table, self._aside / "data.parquet")
        finals[data] = layout.data_file(self.path, info, *places["data"])
        if self._tasks != before:
            finals[self._tasks_file()] = self.path / layout.TASKS_PATH
        if report is not None:
            finals[self._json("report", report)] = reports.path(self.path, episode)

        stats = taken.stats | rows.table_stats(table, info)
        row |= rows.stats_columns(stats, info)
        row |= {"meta/episodes/chunk_index": places["episodes"][0], "meta/episodes/file_index": places["episodes"][1]}
        last = files.write_table(rows.episode_table(row), self._aside / "episode.parquet")
        finals[last] = layout.episodes_file(self.path, *places["episodes"])
        self._stats = statistics.merge_all(self._stats, stats)
        finals[self._json("stats", statistics.to_json(self._stats))] = self.path / layout.STATS_PATH
        counted = self._publishable_info(self._tasks, episode + 1, -length)
        finals[self._json("info", counted)] = self.path / layout.INFO_PATH
        if staging is not None:
            self._written |= staging.write_journal(episode, finals)
        for aside, final in finals.items():
            files.publish(aside, final)
        self.info = counted
        for name, used in places.items():
            self._next_place[name] = rows.next_place({used}, info.chunks_size)

    def _replace(self, aside: Path, final: Path) -> None:
        """Another version of a file, which stays ours to delete if the one before was."""
        name = final.relative_to(self.path).as_posix()
        if not final.exists() or self._written.get(name) == inside.digest(self.path, final):
            self._written[name] = inside.digest(self.path, aside)
        files.publish(aside, final)

    def count(self, frames: int, tasks: int) -> None:
        """Count one more episode, all of whose files are in their places: of so many frames, with so many tasks then
        in use."""
        info = self._publishable_info(self._tasks, self.info.total_episodes + 1, -frames)
        self._publish_info(msgspec.structs.replace(info, total_tasks=tasks))
        self._read()
        self._publish_stats()

    def _publishable_info(self, tasks: list[str], episodes: int, fewer_frames: int) -> Info:
        """What `meta/info.json` is to say."""
        return msgspec.structs.replace(
            self.info,
            total_episodes=episodes,
            total_frames=self.info.total_frames - fewer_frames,
            total_tasks=len(tasks),
            splits={**self.info.splits, "train": f"0:{episodes}"},
        )

    def _publish_info(self, info: Info) -> None:
        """The commit point."""
        files.publish(self._json("info", info), self.path / layout.INFO_PATH)
        self.info = info

    def _publish_tasks(self) -> None:
        files.publish(self._tasks_file(), self.path / layout.TASKS_PATH)

    def _publish_stats(self) -> None:
        files.publish(self._json("stats", statistics.to_json(self._stats)), self.path / layout.STATS_PATH)

    def _tasks_file(self) -> Path:
        return files.write_table(rows.tasks_table(self._tasks), self._aside / "tasks.parquet")

    def _json(self, name: str, value: Any) -> Path:
        path = self._aside / f"{name}.json"
        path.write_bytes(pretty_json(value))
        return path


def pretty_json(value: Any) -> bytes:
    """JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4)
