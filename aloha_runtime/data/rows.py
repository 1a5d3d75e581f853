"""The Parquet tables of a LeRobotDataset v3.0: frames, episodes, tasks; columns and types are LeRobot's."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aloha_runtime.data import layout, statistics
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.layout import BOOL, COUNTERS, Info
from aloha_runtime.data.statistics import Stats
from aloha_runtime.errors import DatasetError

Place = tuple[int, int]
"""(chunk, file) number."""


Vectors = Mapping[str, NDArray[np.float32]]
"""Feature to its (T, D) numbers."""


def vector_table(vectors: Vectors, info: Info | None = None) -> pa.Table:
    """The columns of vectors, as LeRobot stores them: float32, or bool where `info` says so."""
    columns: dict[str, pa.Array] = {}
    for key, values in vectors.items():
        flat = pa.array(values.ravel(), type=pa.float32())
        flat = flat.cast(pa.bool_()) if info is not None and info.features[key].dtype == BOOL else flat
        size = values.shape[1]
        columns[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.table(columns)


def frame_table(
    columns: pa.Table, info: Info, episode: int, task_index: int, stamps: NDArray[np.float32] | None = None
) -> pa.Table:
    """One row per frame of an episode that follows the `info.total_frames` frames already there: `columns` bit for bit,
    and the counters. `stamps`: real times of the frames, where they are not those of the rate."""
    length = len(columns)
    steps = np.arange(length, dtype=np.int64)
    counters = {
        "timestamp": (steps / info.fps).astype(np.float32) if stamps is None else stamps,
        "frame_index": steps,
        "episode_index": np.full(length, episode),
        "index": info.total_frames + steps,
        "task_index": np.full(length, task_index),
    }
    for key in COUNTERS:
        counted = pa.array(counters[key])
        place = columns.schema.get_field_index(key)
        columns = columns.append_column(key, counted) if place < 0 else columns.set_column(place, key, counted)
    return columns


def table_stats(table: pa.Table, info: Info) -> Stats:
    """Statistics of every column of numbers. As in LeRobot, features of several dimensions are summarised over all but
    the last, and counted by frames."""
    stats: Stats = {}
    for name in table.column_names:
        flat = table[name].combine_chunks()
        while is_list(flat.type):
            flat = flat.flatten()
        shape = info.features[name].shape if name in info.features else []
        is_number = pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type) or pa.types.is_boolean(flat.type)
        if not is_number or flat.null_count or len(flat) != len(table) * int(np.prod(shape)):
            continue
        values = flat.to_numpy(zero_copy_only=False)
        stats[name] = statistics.vector_stats(values.reshape(-1, shape[-1] if shape else 1))
        stats[name]["count"] = np.array([len(table)])
    return stats


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind))


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
    """Columns `stats/{feature}/{statistic}` of an episode, in the order of the features; texts have none."""
    nested = statistics.to_json(stats)
    return {
        f"stats/{key}/{name}": value for key in info.features if key in nested for name, value in nested[key].items()
    }


def row_stats(row: Mapping[str, Any]) -> Stats:
    """The reverse of `stats_columns`."""
    nested: dict[str, dict[str, Any]] = {}
    for column, value in row.items():
        if column.startswith("stats/") and value is not None:
            key, name = column.removeprefix("stats/").rsplit("/", 1)
            nested.setdefault(key, {})[name] = value
    return statistics.from_json(nested)


def episode_table(row: Mapping[str, Any]) -> pa.Table:
    """One episode's row as a table with LeRobot's types."""
    columns = {name: pa.array([value], _episode_type(name, value)) for name, value in row.items()}
    return pa.table(columns)


def _episode_type(column: str, value: Any) -> pa.DataType | None:
    """None leaves it to Arrow: a column that somebody else's program added."""
    if column == "tasks":
        return pa.list_(pa.string())
    if column.endswith("_timestamp"):
        return pa.float64()
    if not column.startswith("stats/"):
        return pa.int64() if isinstance(value, int) and not isinstance(value, bool) else None
    if column.endswith("/count"):
        return pa.list_(pa.int64())
    kind = pa.float64()
    while isinstance(value, list):  # one level for vectors, three for pictures
        kind, value = pa.list_(kind), value[0] if value else None
    return kind


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


def counted_files(root: Path, info: Info) -> set[Path]:
    """Every data, episode and video file of the episodes that `meta/info.json` counts."""
    keys = [key for key, feature in info.features.items() if feature.dtype == "video"]
    found = read_episode_rows(root, info.total_episodes, with_stats=False)
    return used_files(root, info, places(found, keys))


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
def read_table(path: Path, without: str = "", only: Collection[str] = ()) -> pa.Table:
    """A Parquet file as a table, less the columns that start with `without`, or `only` these of them; DatasetError when
    absent or damaged."""
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not (without and name.startswith(without))]
            names = [name for name in names if not only or name in only]
            return file.read(names).select(names)  # a name before a dot brings others along
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing. Restore it from a copy of the dataset.") from None
    except (pa.ArrowInvalid, OSError, KeyError) as error:  # KeyError: one column twice
        raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None


def count_rows(paths: Iterable[Path]) -> int:
    """Rows of several Parquet files, as their own footers say; DatasetError when one is damaged."""
    total = 0
    for path in paths:
        try:
            total += pq.read_metadata(path).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None
    return total


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
