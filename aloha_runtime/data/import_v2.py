"""LeRobotDataset v2.0 and v2.1 into v3.0: a file an episode and camera stays one, videos are not encoded again.

Every count is compared before the first write, and the result is opened and read before it is called done.
"""

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aloha_runtime.data import exchange, files, layout, statistics
from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.episode_store import EpisodeStore, pretty_json
from aloha_runtime.data.layout import COUNTERS, PICTURES, Feature, Info
from aloha_runtime.data.older import MEASURED, Older, refusal
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.paths import refuse_keys_outside, refuse_links, refuse_path_outside
from aloha_runtime.data.pieces import image_stats, link
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.rows import vector_table
from aloha_runtime.data.staging import ASIDE, clear
from aloha_runtime.data.statistics import Stats
from aloha_runtime.data.stored import to_numpy
from aloha_runtime.errors import DatasetError


@reads_and_writes
def import_v2(
    source: Path,
    out: Path,
    leave_out: Collection[str] = (),
    leave_out_episodes: Collection[int] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> str:
    """Write the dataset at `source` as a new one at `out`; returns a line for people that lists what was left out.

    `leave_out`: features that are dropped. `leave_out_episodes`: numbers of episodes. Raises DatasetError, before
    anything is written, that names every episode that cannot be taken and why; when it fails, there is no `out`.
    """
    older = Older.open(source)
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out} already exists. Choose another path.")
    described = _features(older, leave_out)
    info = Info(fps=older.raw["fps"], features=described, robot_type=older.raw.get("robot_type"))
    left_out = set(leave_out_episodes)
    older.refuse_other_counts(left_out)
    chosen = [index for index in sorted(older.lines) if index not in left_out]
    found = {index: list(older.faults(index, _as_stored(info, older))) for index in chosen}
    if faults := {index: each for index, each in found.items() if each}:
        raise refusal(source, faults, len(chosen))
    if not chosen:
        raise DatasetError(f"{source}: no episode is left to import.")
    aside = exchange.beside(out, "new")
    out.parent.mkdir(parents=True, exist_ok=True)
    with exchange.or_nothing(aside):
        with files.all_at_once():
            (aside / ASIDE).mkdir()
            files.publish_bytes(pretty_json(info), aside / ASIDE / "info.json", aside / layout.INFO_PATH)
            store = EpisodeStore(aside, aside / ASIDE, info)
            for index in chosen:
                store.commit(_taken(older, info, index, aside / ASIDE), None)
                advance(1)
            clear(aside)
        _read_back(aside)
        aside.rename(out)
    return "; ".join([_said(out, store.info), *_not_as_it_was(older, leave_out, left_out, len(chosen))])


def _said(out: Path, info: Info) -> str:
    return f"{out}: {info.total_episodes} episodes, {info.total_frames} frames; statistics computed again"


def _not_as_it_was(older: Older, leave_out: Collection[str], left_out: set[int], taken: int) -> list[str]:
    said = []
    if leave_out:
        said.append(f"features left out: {', '.join(sorted(leave_out))}")
    if left_out:
        said.append(f"episodes left out: {', '.join(map(str, sorted(left_out)))}")
    converted = [key for key in MEASURED if key not in leave_out and _dtype(older, key) == "float64"]
    if converted:
        said.append(f"float64 converted to float32: {', '.join(converted)}")
    said += older.notes[:3]
    return said + ([f"{len(older.notes) - 3} more remarks of that kind"] if len(older.notes) > 3 else [])


def _dtype(older: Older, key: str) -> str:
    return str(older.raw["features"].get(key, {}).get("dtype"))


def _as_stored(info: Info, older: Older) -> Info:
    """The description with the dtypes that the source has."""
    stored = {
        key: Feature(_dtype(older, key), feature.shape, feature.names, feature.info)
        for key, feature in info.features.items()
    }
    return Info(fps=info.fps, features=stored)


def _features(older: Older, leave_out: Collection[str]) -> dict[str, Feature]:
    """The features that go along. LeRobot's older images have names for height, width and channels, too."""
    source, raw = older.path, older.raw
    names = ("episode_chunk", "video_key", "episode_index")
    for entry in ("data_path", "video_path"):
        if raw.get(entry) is not None:
            refuse_path_outside(source, entry, str(raw[entry]), names)
    refuse_keys_outside(source, raw["features"])
    refuse_links(source, *(str(raw[entry]) for entry in ("data_path", "video_path") if raw.get(entry) is not None))
    if unknown := [key for key in leave_out if key not in raw["features"]]:
        raise DatasetError(f"{source} has no feature {unknown[0]!r}; it has: {', '.join(raw['features'])}.")
    described: dict[str, Feature] = {}
    for key, entry in raw["features"].items():
        if key not in leave_out and key not in COUNTERS:
            described[key] = _feature(source, key, entry)
    return described | {key: Feature(dtype, [1], None) for key, dtype in COUNTERS.items()}


def _feature(source: Path, key: str, entry: Any) -> Feature:
    try:
        dtype, shape = str(entry["dtype"]), [int(size) for size in entry["shape"]]
        said = {**(entry.get("video_info") or {}), **(entry.get("info") or {})} or None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DatasetError(
            f"{source / layout.INFO_PATH}: feature {key!r} is described as {entry!r}, without dtype and shape."
            " Correct that entry."
        ) from None
    feature = Feature("float32" if key in MEASURED and dtype == "float64" else dtype, shape, entry.get("names"), said)
    if dtype in PICTURES and not feature.names and len(shape) == 3:
        first = ["height", "width", "channels"]
        feature.names = first if feature.size == tuple(shape) else ["channels", "height", "width"]
    return feature


def _taken(older: Older, info: Info, index: int, aside: Path) -> Taken:
    table = older.table(index, info)
    length, task = len(table), older.task(index, table)
    measured = {}
    for key in MEASURED:
        if key in info.features and len(info.features[key].shape) == 1:
            kept = Feature(_dtype(older, key), info.features[key].shape, None)
            values = to_numpy(older.data_file(index), key, table[key], kept).astype(np.float32)
            measured[key] = values.reshape(length, -1)
    columns = vector_table(measured)
    for key in info.columns:
        if key not in measured and key not in COUNTERS:
            columns = columns.append_column(table.schema.field(key), table[key])
    videos: dict[str, Path] = {}
    stats: Stats = {}
    known = _kept_stats(older, index)
    for key, feature in info.features.items():
        if feature.dtype == "video":
            path = older.video_file(key, index)
            videos[key] = aside / f"{key}.mp4"
            link(path, videos[key])
            if feature.is_camera:
                stats[key] = image_stats(path, length, info.fps)
        if feature.dtype in PICTURES and key not in stats and key in known:
            stats[key] = known[key]
    return Taken(task, columns if len(columns.schema) else pa.table({}), videos, stats)


def _kept_stats(older: Older, index: int) -> Stats:
    """Statistics that the source has of an episode, where they are whole."""
    found: Stats = {}
    said = older.stats.get(index)
    for key, each in said.items() if isinstance(said, dict) else ():
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            stats = statistics.from_json({key: each})[key]
            if stats.keys() >= {"min", "max", "mean", "std", "count"}:
                found[key] = stats
    return found


def _read_back(out: Path) -> None:
    """Read what was written as training reads it; raises DatasetError where it cannot be."""
    made = Dataset(out)
    for key in made.info.vectors:
        made.vectors(key)
    for episode in made.episodes:
        for camera in made.cameras:
            for index in (episode.from_index, episode.to_index - 1):
                made.frame(camera, index)
