"""A LeRobotDataset v2.0 or v2.1 as it lies on disk, and everything in it that does not fit together.

    meta/info.json            codebase_version "v2.1" or "v2.0", totals, data_path and video_path by episode
    meta/episodes.jsonl       a line an episode: episode_index, tasks, length
    meta/tasks.jsonl          a line a task: task_index, task
    meta/episodes_stats.jsonl (v2.1) statistics without quantiles

Layout as LeRobot's releases of 2024 and 2025 wrote it. Reads only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from aloha_runtime.data import layout, rows
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.layout import Info
from aloha_runtime.data.paths import filled
from aloha_runtime.data.rebuild import STAMP_TOLERANCE_S
from aloha_runtime.data.recording import ACTION, STATE
from aloha_runtime.data.stored import to_numpy
from aloha_runtime.data.video_cut import packets
from aloha_runtime.errors import DatasetError

VERSIONS = ("v2.1", "v2.0")
MEASURED = (STATE, ACTION, "observation.velocity", "observation.effort")
"""Vectors that are float32 in every dataset of LeRobot's; float64 is converted. Other features stay bit for bit."""
MOST_NAMED = 1000
"""Episodes that are looked for, of those that are counted and not listed: a total may be any number."""
EPISODES, TASKS, STATS = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"


@dataclass(frozen=True)
class Older:
    """The dataset at `path`; `raw` is what its `meta/info.json` says."""

    path: Path
    raw: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    """What was understood although it is not said, or not as it should be; for people."""

    @classmethod
    def open(cls, path: Path) -> "Older":
        """Raises DatasetError for a directory that holds none of `VERSIONS`."""
        raw = _read_json(path / layout.INFO_PATH)
        if raw.get("codebase_version") not in VERSIONS:
            raise DatasetError(
                f"{path}: codebase_version is {raw.get('codebase_version')!r}; this imports {' and '.join(VERSIONS)}."
            )
        for name in ("fps", "features", "data_path"):
            if not raw.get(name):
                raise DatasetError(f"{path / layout.INFO_PATH} says no {name}. Restore it from a copy of the dataset.")
        return cls(path, raw)

    @cached_property
    def lines(self) -> dict[int, dict[str, Any]]:
        """What `meta/episodes.jsonl` says of each episode."""
        found: dict[int, dict[str, Any]] = {}
        for number, line in _read_lines(self.path / EPISODES):
            index = line.get("episode_index")
            if not isinstance(index, int) or index < 0 or index in found:
                raise DatasetError(
                    f"{self.path / EPISODES}, line {number}: episode_index is {_short(index)}, which is none or was"
                    " there before. Correct that line."
                )
            found[index] = line
        return found

    @cached_property
    def tasks(self) -> dict[int, str]:
        if not (self.path / TASKS).exists():
            return {}
        return {line["task_index"]: str(line["task"]) for _, line in _read_lines(self.path / TASKS) if "task" in line}

    @cached_property
    def stats(self) -> dict[int, dict[str, Any]]:
        """The statistics of each episode, as they were written."""
        if not (self.path / STATS).exists():
            return {}
        return {line.get("episode_index", -1): line.get("stats", {}) for _, line in _read_lines(self.path / STATS)}

    def refuse_other_counts(self, left_out: set[int]) -> None:
        """Raise DatasetError when the totals are not those of the episodes listed, less `left_out`."""
        total = self.raw.get("total_episodes", len(self.lines))
        if not isinstance(total, int) or isinstance(total, bool) or total < 0:
            said = f"total_episodes is {_short(total)}"
            raise DatasetError(f"{self.path / layout.INFO_PATH}: {said}. Correct that entry.")
        not_listed = (index for index in range(total) if index not in self.lines and index not in left_out)
        missing = list(islice(not_listed, MOST_NAMED))
        if missing or max(self.lines, default=-1) >= total:
            there = [index for index in missing if self.data_file(index).exists()]
            files = f"; rows of episode {_listed(there)} are there" if there else ""
            way_on = f" or import without it: {_options(missing)}" if missing else ""
            raise DatasetError(
                f"{self.path}: {layout.INFO_PATH} counts {total} episodes, {EPISODES} lists"
                f" {len(self.lines)}{files}. Restore {EPISODES} from a copy{way_on}."
            )
        lengths = [line.get("length") for line in self.lines.values()]
        if len(self.lines) == total and all(isinstance(length, int) for length in lengths):
            frames = sum(length for length in lengths if isinstance(length, int))
            if self.raw.get("total_frames", frames) != frames:
                raise DatasetError(
                    f"{self.path}: {layout.INFO_PATH} counts {self.raw['total_frames']} frames, {EPISODES} {frames}."
                    " Correct the one that is wrong."
                )
        if self.tasks and self.raw.get("total_tasks", len(self.tasks)) != len(self.tasks):
            raise DatasetError(
                f"{self.path}: {layout.INFO_PATH} counts {self.raw['total_tasks']} tasks, {TASKS} {len(self.tasks)}."
                " Correct the one that is wrong."
            )

    def data_file(self, index: int) -> Path:
        return self._file(self.raw["data_path"], index)

    def video_file(self, key: str, index: int) -> Path:
        return self._file(self.raw.get("video_path") or "", index, video_key=key)

    def _file(self, template: str, index: int, **names: str) -> Path:
        chunk = index // self.raw.get("chunks_size", 1000)
        return filled(self.path, template, episode_chunk=chunk, episode_index=index, **names)

    def table(self, index: int, info: Info) -> pa.Table:
        """The rows of an episode, of the features that go along."""
        return rows.read_table(self.data_file(index), only=info.columns)

    def task(self, index: int, table: pa.Table) -> str:
        """The task of an episode, which its line and its rows both say; DatasetError when they do not agree on one."""
        said = self.lines[index].get("tasks") or []
        numbers = set(table["task_index"].to_pylist()) if "task_index" in table.column_names else set()
        if unknown := {number for number in numbers if self.tasks and number not in self.tasks}:
            raise DatasetError(f"{self.data_file(index)}: task_index {unknown.pop()} is not in {TASKS}")
        found = set(said) | {self.tasks[number] for number in numbers if self.tasks}
        if len(found) != 1:
            raise DatasetError(
                f"{EPISODES}: episode {index} has {len(found)} tasks ({'; '.join(sorted(found))}), not one"
            )
        return str(found.pop())

    def faults(self, index: int, info: Info) -> Iterator[str]:
        """What stands against taking an episode."""
        try:
            table = self.table(index, info)
            yield from self._row_faults(index, table, info)
            if length := len(table):
                self.task(index, table)
                for key in info.video_keys:
                    path = self.video_file(key, index)
                    if (frames := packets(path, info.fps).frames) != length:
                        yield f"{path} holds {frames} frames at {info.fps:g} frames/s, the rows are {length}"
        except DatasetError as error:
            yield str(error).split(". ")[0]

    def _row_faults(self, index: int, table: pa.Table, info: Info) -> Iterator[str]:
        path, length = self.data_file(index), len(table)
        said = self.lines[index].get("length")
        if said is None:
            self.notes.append(f"{EPISODES} does not say how long episode {index} is; its rows do, {length}")
        elif said != length:
            yield f"{path} has {length} rows, {EPISODES} says {_short(said)}"
        if not length:
            yield f"{path} has no rows"
            return
        for key in info.columns:
            if key not in layout.COUNTERS:
                yield from _column_faults(path, key, table, info)
        for key, right in (("frame_index", np.arange(length)), ("episode_index", np.full(length, index))):
            if key in table.column_names and not np.array_equal(table[key].to_numpy(), right):
                yield f"{path}: {key} is {table[key][0].as_py()} in row 0 and does not count as it should"
        if "timestamp" in table.column_names:
            off = float(np.abs(table["timestamp"].to_numpy() - np.arange(length) / info.fps).max())
            if off > STAMP_TOLERANCE_S:
                self.notes.append(
                    f"time stamps of episode {index} were up to {off:.3f} s off {info.fps:g} frames/s; they are those"
                    " of the rate now, as its videos show them"
                )


def _column_faults(path: Path, key: str, table: pa.Table, info: Info) -> Iterator[str]:
    if key not in table.column_names:
        yield f"{path} has no column {key!r}, which {layout.INFO_PATH} lists"
    elif key in MEASURED:
        if table[key].null_count:
            yield f"{path}: {key} is null in row {table[key].is_null().to_pylist().index(True)}"
            return
        values = to_numpy(path, key, table[key], info.features[key])
        if not np.isfinite(values).all():
            yield f"{path}: {key} is not finite in row {int(np.argwhere(~np.isfinite(values))[0][0])}"


def refusal(source: Path, faults: dict[int, list[str]], total: int) -> DatasetError:
    """What is wrong with the episodes that cannot be taken, and how to import the others."""
    told = "; ".join(f"episode {index}: {'; '.join(found)}" for index, found in list(faults.items())[:3])
    more = f"; {len(faults) - 3} more episodes" if len(faults) > 3 else ""
    way_on = f"leave them out: {_options(list(faults))}" if len(faults) < total else "no episode is whole"
    return DatasetError(f"{source}: {told}{more}. Restore the files from a copy of the dataset, or {way_on}.")


def _options(indices: list[int]) -> str:
    return " ".join(f"--leave-out-episode {index}" for index in indices[:10]) + (" ..." if len(indices) > 10 else "")


def _short(value: Any) -> str:
    """A value of the file, in a message of one line."""
    return repr(value)[:60]


def _listed(indices: list[int]) -> str:
    return ", ".join(map(str, indices[:10])) + (", ..." if len(indices) > 10 else "")


@reads_files
def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: that is no LeRobot dataset.") from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path} is damaged ({error}).") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is damaged (not an object).")
    return found


@reads_files
def _read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Each line with its number, from 1 on."""
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing. Restore it from a copy of the dataset.") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append((number, msgspec.json.decode(line, type=dict[str, Any])))
            except msgspec.DecodeError as error:
                raise DatasetError(
                    f"{path} is damaged in line {number} ({error}). Restore it from a copy of the dataset."
                ) from None
    return found
