"""The Parquet tables of a LeRobotDataset v3.0: frames, episodes, tasks; columns and types are LeRobot's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aloha_runtime.data import layout, statistics
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.layout import COUNTERS, Info
from aloha_runtime.data.statistics import Stats
from aloha_runtime.errors import DatasetError

Place = tuple[int, int]
"""(chunk, file) number."""


Vectors = Mapping[str, NDArray[np.float32]]
"""Feature to its (T, D) numbers."""


def frame_table(vectors: Vectors, info: Info, episode: int, task_index: int) -> pa.Table:
    """One row per frame of an episode that follows the `info.total_frames` frames already there."""
    columns: dict[str, pa.Array] = {}
    length = len(next(iter(vectors.values())))
    for key in info.vectors:
        flat = pa.array(vectors[key].ravel(), type=pa.float32())
        size = info.features[key].shape[0]
        columns[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    steps = np.arange(length, dtype=np.int64)
    counters = {
        "timestamp": (steps / info.fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(length, episode),
        "index": info.total_frames + steps,
        "task_index": np.full(length, task_index),
    }
    return pa.table({**columns, **{key: pa.array(counters[key]) for key in COUNTERS}})


def table_stats(table: pa.Table) -> Stats:
    """Statistics of every column of a `frame_table`."""
    stats: Stats = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        stats[name] = statistics.vector_stats(flat.to_numpy().reshape(len(table), -1))
    return stats


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """`meta/tasks.parquet`: column task_index, and the task text as what pandas takes for the index."""
    text = {"pandas_type": "unicode", "numpy_type": "object"}
    number = {"pandas_type": "int64", "numpy_type": "int64"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{"name": None, "field_name": None, **text, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **number, "metadata": None},
            {"name": "task", "field_name": "task", **text, "metadata": None},
        ],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": msgspec.json.encode(pandas)})


def video_columns(key: str, place: Place, duration_s: float) -> dict[str, Any]:
    """Columns of an episode whose video starts its file."""
    head = f"videos/{key}/"
    return {
        head + "chunk_index": place[0],
        head + "file_index": place[1],
        head + "from_timestamp": 0.0,
        head + "to_timestamp": duration_s,
    }


def stats_columns(stats: Stats, info: Info) -> dict[str, Any]:
    """Columns `stats/{feature}/{statistic}` of an episode, in the order of the features."""
    nested = statistics.to_json(stats)
    return {f"stats/{key}/{name}": value for key in info.features for name, value in nested[key].items()}


def row_stats(row: Mapping[str, Any]) -> Stats:
    """The reverse of `stats_columns`."""
    nested: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        if column.startswith("stats/"):
            key, name = column.removeprefix("stats/").rsplit("/", 1)
            nested.setdefault(key, {})[name] = value
    return statistics.from_json(nested)


def episode_table(row: Mapping[str, Any], info: Info) -> pa.Table:
    """One episode's row as a table with LeRobot's types."""
    columns = {name: pa.array([value], _episode_type(name, info)) for name, value in row.items()}
    return pa.table(columns)


def _episode_type(column: str, info: Info) -> pa.DataType:
    if column == "tasks":
        return pa.list_(pa.string())
    if column.endswith("_timestamp"):
        return pa.float64()
    if not column.startswith("stats/"):
        return pa.int64()
    if column.endswith("/count"):
        return pa.list_(pa.int64())
    is_image = info.features[column.removeprefix("stats/").rsplit("/", 1)[0]].dtype == "video"
    vector = pa.list_(pa.float64())
    return pa.list_(pa.list_(vector)) if is_image else vector


def places(episode_rows: Sequence[Mapping[str, Any]], video_keys: Sequence[str]) -> dict[str, set[Place]]:
    """Which (chunk, file) numbers the episodes use: "data", "episodes", and each video feature."""
    heads = {"data": "data/", "episodes": "meta/episodes/", **{key: f"videos/{key}/" for key in video_keys}}
    return {
        name: {(row[head + "chunk_index"], row[head + "file_index"]) for row in episode_rows}
        for name, head in heads.items()
    }


def used_files(root: Path, info: Info, used: Mapping[str, set[Place]]) -> set[Path]:
    """The files behind `places`."""
    found = {layout.data_file(root, info, *place) for place in used["data"]}
    found |= {layout.episodes_file(root, *place) for place in used["episodes"]}
    for key in used.keys() - {"data", "episodes"}:
        found |= {layout.video_file(root, info, key, *place) for place in used[key]}
    return found


def numbered_files(root: Path) -> list[Path]:
    """Every data, episode and video file that is there, counted or not."""
    patterns = ("data/chunk-*/file-*.parquet", "meta/episodes/chunk-*/file-*.parquet", "videos/*/chunk-*/file-*.mp4")
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def next_place(used: set[Place], chunks_size: int) -> Place:
    """The file number after the highest one used; chunks hold `chunks_size` files."""
    if not used:
        return 0, 0
    chunk, file = max(used)
    return (chunk, file + 1) if file + 1 < chunks_size else (chunk + 1, 0)


@reads_files
def read_table(path: Path, without: str = "") -> pa.Table:
    """A Parquet file as a table, less the columns that start with `without`; DatasetError when absent or damaged."""
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not (without and name.startswith(without))]
            return file.read(names)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing. Restore it from a copy of the dataset.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None


@reads_files
def read_episode_rows(root: Path, total: int, with_stats: bool) -> list[dict[str, Any]]:
    """The first `total` rows of `meta/episodes`, each with LeRobot's column names."""
    without = "" if with_stats else "stats/"
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta/episodes").glob("chunk-*/file-*.parquet")):
        if len(rows) >= total:
            break
        rows += read_table(path, without).to_pylist()
    if len(rows) < total or any(row.get("episode_index") != index for index, row in enumerate(rows[:total])):
        raise DatasetError(
            f"{root}/meta/episodes describes {len(rows)} episodes and {layout.INFO_PATH} counts {total}, or they are"
            f" out of order. Restore the dataset from a copy."
        )
    return rows[:total]
