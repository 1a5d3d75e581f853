"""LeRobotDataset v2.0 and v2.1 into v3.0: a file an episode and camera stays one, videos are not encoded again.

    meta/info.json            codebase_version "v2.1" or "v2.0", data_path and video_path by episode
    meta/episodes.jsonl       a line an episode: episode_index, tasks, length
    meta/tasks.jsonl          a line a task: task_index, task
    meta/episodes_stats.jsonl (v2.1) or meta/stats.json (v2.0): without quantiles, so statistics are computed anew

Layout as LeRobot's releases of 2024 and 2025 wrote it.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from aloha_runtime.data import files, layout, rows
from aloha_runtime.data.damaged import reads_and_writes, reads_files
from aloha_runtime.data.episode_store import EpisodeStore, pretty_json
from aloha_runtime.data.layout import COUNTERS, Feature, Info, refuse_keys_outside, refuse_path_outside
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.rebuild import image_stats, link
from aloha_runtime.data.video_cut import packets
from aloha_runtime.data.writer import ASIDE
from aloha_runtime.errors import DatasetError

VERSIONS = ("v2.1", "v2.0")


@reads_and_writes
def import_v2(
    source: Path, out: Path, leave_out: Collection[str] = (), advance: Callable[[int], None] = lambda _: None
) -> str:
    """Write the dataset at `source` as a new one at `out`; returns a line for people.

    `leave_out`: features that are dropped. Raises DatasetError for a feature that cannot be kept and was not left out,
    and for a damaged file by name; then there is no `out`.
    """
    raw = _read_json(source / layout.INFO_PATH)
    if raw.get("codebase_version") not in VERSIONS:
        raise DatasetError(
            f"{source}: codebase_version is {raw.get('codebase_version')!r}; this imports {' and '.join(VERSIONS)}."
        )
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out} already exists. Choose another path.")
    described = _features(source, raw, leave_out)
    episodes = _read_lines(source / "meta/episodes.jsonl")
    for episode in episodes:
        if len(episode["tasks"]) != 1:
            raise DatasetError(
                f"{source}: episode {episode['episode_index']} has {len(episode['tasks'])} tasks, not one."
            )
    info = Info(fps=raw["fps"], features=described, robot_type=raw.get("robot_type"))
    try:
        with files.all_at_once():
            (out / ASIDE).mkdir(parents=True, exist_ok=True)
            files.publish_bytes(pretty_json(info), out / ASIDE / "info.json", out / layout.INFO_PATH)
            store = EpisodeStore(out, out / ASIDE, info)
            for episode in episodes:
                store.commit(_taken(source, raw, info, episode, out / ASIDE), None)
                advance(1)
            shutil.rmtree(out / ASIDE)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return f"{out}: {store.info.total_episodes} episodes, {store.info.total_frames} frames; statistics computed anew"


def _features(source: Path, raw: dict[str, Any], leave_out: Collection[str]) -> dict[str, Feature]:
    """The features that go along. LeRobot's older images have names for height, width and channels, too."""
    names = ("episode_chunk", "video_key", "episode_index")
    for entry in ("data_path", "video_path"):
        if raw.get(entry) is not None:
            refuse_path_outside(source, entry, str(raw[entry]), names)
    refuse_keys_outside(source, raw["features"])
    described: dict[str, Feature] = {}
    for key, entry in raw["features"].items():
        shape, dtype = list(entry["shape"]), entry["dtype"]
        if key in leave_out:
            continue
        if dtype == "video":
            described[key] = Feature(dtype, shape, ["height", "width", "channels"], entry.get("info"))
        elif key in COUNTERS:
            described[key] = Feature(COUNTERS[key], [1], None)
        elif dtype == "float32" and len(shape) == 1:
            described[key] = Feature(dtype, shape, entry.get("names"))
        else:
            raise DatasetError(
                f"{source}: feature {key!r} is {dtype} of shape {shape}; only float32 vectors and videos are kept."
                f" Import without it: --leave-out {key}"
            )
    if unknown := [key for key in leave_out if key not in raw["features"]]:
        raise DatasetError(f"{source} has no feature {unknown[0]!r}; it has: {', '.join(raw['features'])}.")
    return described


def _taken(source: Path, raw: dict[str, Any], info: Info, episode: dict[str, Any], aside: Path) -> Taken:
    index, length = episode["episode_index"], episode["length"]
    chunk = index // raw.get("chunks_size", 1000)
    table = rows.read_table(source / raw["data_path"].format(episode_chunk=chunk, episode_index=index))
    if len(table) != length:
        raise DatasetError(f"{source}: episode {index} has {len(table)} rows, meta/episodes.jsonl says {length}.")
    vectors = {
        key: np.array(table[key].to_pylist(), dtype=np.float32).reshape(length, size)
        for key, size in info.vectors.items()
    }
    videos: dict[str, Path] = {}
    stats = {}
    for key, feature in info.features.items():
        if feature.dtype != "video":
            continue
        path = source / raw["video_path"].format(episode_chunk=chunk, video_key=key, episode_index=index)
        if (frames := packets(path, info.fps).frames) != length:
            raise DatasetError(f"{path} holds {frames} frames, episode {index} has {length}.")
        videos[key] = aside / f"{key}.mp4"
        link(path, videos[key])
        stats[key] = image_stats(path, length, info.fps)
    return Taken(episode["tasks"][0], vectors, videos, stats)


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
def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in path.read_bytes().splitlines() if line]
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing. Restore it from a copy of the dataset.") from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None
