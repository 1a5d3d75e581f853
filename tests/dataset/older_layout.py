"""Write a dataset with one camera in the layout that LeRobot used until 2025 (v2.1): a file an episode and camera."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aloha_runtime.data import Dataset
from aloha_runtime.data.pieces import link


def write_older(
    newer: Path,
    path: Path,
    entries: dict[str, Any] | None = None,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> None:
    """Write the v3.0 dataset at `newer`, whose episodes have files of their own, as v2.1 at `path`. `entries`: replace
    those of `meta/info.json`; `change`: of the rows of each episode."""
    dataset = Dataset(newer)
    (camera,) = dataset.cameras
    key = f"observation.images.{camera}"
    info = json.loads((newer / "meta/info.json").read_text()) | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    for folder in ("meta", "data/chunk-000", f"videos/chunk-000/{key}"):
        (path / folder).mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info | (entries or {})))
    _write_lines(
        path / "meta/episodes.jsonl",
        [{"episode_index": e.index, "tasks": list(e.tasks), "length": e.length} for e in dataset.episodes],
    )
    _write_lines(
        path / "meta/tasks.jsonl", [{"task_index": index, "task": task} for index, task in enumerate(dataset.tasks)]
    )
    for episode in dataset.episodes:
        name = f"episode_{episode.index:06d}"
        pq.write_table(change(pq.read_table(episode.data_path)), path / f"data/chunk-000/{name}.parquet")
        link(episode.videos[camera].path, path / f"videos/chunk-000/{key}/{name}.mp4")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
