"""Datasets in the layout that LeRobot wrote until 2025, made here from a v3.0 one, and brought back to v3.0."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.check import check
from aloha_runtime.data.import_v2 import import_v2
from aloha_runtime.data.rebuild import link
from aloha_runtime.errors import DatasetError

LENGTHS = (12, 20)
KEY = "observation.images.cam"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    path = tmp_path / "v3"
    vectors = {"observation.state": ["x", "y"], "action": ["x"]}
    random = np.random.default_rng(0)
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam": (16, 32)}) as writer:
        for episode, length in enumerate(LENGTHS):
            for index in range(length):
                image = np.full((16, 32, 3), 100 * episode + 3 * index, np.uint8)
                writer.add_frame({"observation.state": random.random(2), "action": random.random(1), KEY: image})
            writer.save_episode(f"task {episode}")
    return path


@pytest.fixture
def older(newer: Path, tmp_path: Path) -> Path:
    """As `lerobot` at v2.1 lays it out, with the `next.done` that its ALOHA datasets have."""
    path, dataset = tmp_path / "v2", Dataset(newer)
    info = json.loads((newer / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "total_chunks": 1,
        "total_videos": 2,
    }
    info["features"]["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    for folder in ("meta", "data/chunk-000", f"videos/chunk-000/{KEY}"):
        (path / folder).mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": e.index, "tasks": list(e.tasks), "length": e.length} for e in dataset.episodes]
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = [{"task_index": index, "task": task} for index, task in enumerate(dataset.tasks)]
    (path / "meta/tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tasks))
    for episode in dataset.episodes:
        table = pq.read_table(episode.data_path)
        done = pa.array([index == episode.length - 1 for index in range(episode.length)])
        name = f"episode_{episode.index:06d}"
        pq.write_table(table.append_column("next.done", done), path / f"data/chunk-000/{name}.parquet")
        link(episode.videos["cam"].path, path / f"videos/chunk-000/{KEY}/{name}.mp4")
    return path


def test_everything_but_what_is_left_out_arrives(newer: Path, older: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'next.done' is bool.*--leave-out next.done"):
        import_v2(older, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    said = import_v2(older, tmp_path / "out", ["next.done"])
    assert "2 episodes, 32 frames" in said
    made, before = Dataset(tmp_path / "out"), Dataset(newer)
    assert check(tmp_path / "out", decode=True) == []
    for key in ("observation.state", "action"):
        assert np.array_equal(made.vectors(key), before.vectors(key))
    assert [(e.length, e.tasks) for e in made.episodes] == [(e.length, e.tasks) for e in before.episodes]
    for index in range(2):
        assert np.array_equal(made.images("cam", index), before.images("cam", index)), "videos are the same packets"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "meta/episodes.jsonl").write_text('{"episode_index": 0'), "episodes.jsonl is damaged"),
        (lambda path: (path / "data/chunk-000/episode_000001.parquet").unlink(), "episode_000001.parquet is missing"),
        (lambda path: (path / f"videos/chunk-000/{KEY}/episode_000001.mp4").unlink(), "episode_000001.mp4 is missing"),
        (lambda path: (path / "meta/info.json").write_text('{"codebase_version": "v1.6"}'), "'v1.6'"),
    ],
)
def test_damage_is_named(older: Path, tmp_path: Path, damage, words: str) -> None:
    damage(older)
    with pytest.raises(DatasetError, match=words):
        import_v2(older, tmp_path / "out", ["next.done"])
    assert not (tmp_path / "out").exists()
