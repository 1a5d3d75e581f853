"""Datasets in the layout that LeRobot wrote until 2025, made here from a v3.0 one, and brought back to v3.0."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from older_layout import write_older

from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.check import check
from aloha_runtime.data.import_v2 import import_v2
from aloha_runtime.data.pieces import link
from aloha_runtime.data.video_cut import cut
from aloha_runtime.data.video_encoder import CODECS
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
    path, features = tmp_path / "v2", json.loads((newer / "meta/info.json").read_text())["features"]
    entries = {
        "total_chunks": 1,
        "total_videos": 2,
        "features": features | {"next.done": {"dtype": "bool", "shape": [1], "names": None}},
    }

    def with_the_end(table: pa.Table) -> pa.Table:
        return table.append_column("next.done", pa.array([index == len(table) - 1 for index in range(len(table))]))

    write_older(newer, path, entries, with_the_end)
    return path


def test_everything_but_what_is_left_out_arrives(newer: Path, older: Path, tmp_path: Path) -> None:
    said = import_v2(older, tmp_path / "out", ["next.done"])
    assert "2 episodes, 32 frames" in said
    assert "features left out: next.done" in said
    assert "next.done" not in Dataset(tmp_path / "out").features
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


ROWS, FILM = "data/chunk-000/episode_000001.parquet", f"videos/chunk-000/{KEY}/episode_000001.mp4"


def info(path: Path, change: Any) -> None:
    said = json.loads((path / "meta/info.json").read_text())
    change(said)
    (path / "meta/info.json").write_text(json.dumps(said))


def lines(path: Path, change: Any, name: str = "episodes") -> None:
    """Lines of a .jsonl, changed; `change` gets the list."""
    file = path / f"meta/{name}.jsonl"
    said = [json.loads(line) for line in file.read_text().splitlines()]
    change(said)
    file.write_text("".join(json.dumps(line) + "\n" for line in said))


def table(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path / ROWS)), path / ROWS)


def with_null(found: pa.Table) -> pa.Table:
    values = found["action"].to_pylist()
    return found.set_column(
        found.schema.get_field_index("action"), "action", pa.array([*values[:7], None, *values[8:]], pa.float32())
    )


COUNTS = [
    (lambda path: lines(path, list.pop), "info.json counts 2 episodes, .* lists 1; rows of episode 1 are there"),
    (lambda path: info(path, lambda said: said.update(total_frames=33)), "counts 33 frames, meta/episodes.jsonl 32"),
    (lambda path: info(path, lambda said: said.update(total_tasks=3)), "counts 3 tasks, meta/tasks.jsonl 2"),
    (lambda path: lines(path, lambda said: said.append(said[0])), "line 3: episode_index is 0"),
    (lambda path: lines(path, lambda said: said[1].update(length=19)), "counts 32 frames, meta/episodes.jsonl 31"),
]


@pytest.mark.parametrize(("damage", "words"), COUNTS)
def test_every_count_is_compared_before_the_first_write(older: Path, tmp_path: Path, damage: Any, words: str) -> None:
    damage(older)
    with pytest.raises(DatasetError, match=words):
        import_v2(older, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def film_of_19(path: Path) -> None:
    cut(path / FILM, path / "short.mp4", 0, 19, 50, CODECS["h264"])
    (path / "short.mp4").replace(path / FILM)


EPISODES = [
    (lambda path: table(path, with_null), "episode_000001.parquet: action is null in row 7"),
    (lambda path: table(path, lambda found: found.drop(["action"])), "has no column 'action'"),
    (lambda path: table(path, lambda found: found.slice(0, 0)), "has no rows"),
    (lambda path: table(path, lambda found: found.slice(1)), "has 19 rows, meta/episodes.jsonl says 20"),
    (lambda path: table(path, lambda found: found.take(list(range(19, -1, -1)))), "frame_index is 19 in row 0"),
    (film_of_19, "episode_000001.mp4 holds 19 frames at 50 frames/s, the rows are 20"),
    (lambda path: lines(path, lambda said: said[1].update(tasks=["other"])), r"has 2 tasks \(other; task 1\), not one"),
]


@pytest.mark.parametrize(("damage", "words"), EPISODES)
def test_an_episode_that_cannot_be_taken_is_named_and_can_be_left_out(
    older: Path, tmp_path: Path, damage: Any, words: str
) -> None:
    damage(older)
    with pytest.raises(DatasetError, match=rf"episode 1: .*{words}.*--leave-out-episode 1\b"):
        import_v2(older, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    said = import_v2(older, tmp_path / "out", leave_out_episodes=[1])
    assert "1 episodes, 12 frames" in said
    assert "episodes left out: 1" in said
    assert check(tmp_path / "out", decode=True) == []


def test_what_is_not_said_is_taken_from_the_rows_and_remarked(older: Path, tmp_path: Path) -> None:
    lines(older, lambda said: [line.pop("length") for line in said])
    late = np.arange(20) / 50 + np.linspace(0, 0.004, 20)
    table(older, lambda found: found.set_column(found.schema.get_field_index("timestamp"), "timestamp", pa.array(late)))
    said = import_v2(older, tmp_path / "out")
    assert "does not say how long episode 0 is; its rows do, 12" in said
    assert "time stamps of episode 1 were up to 0.004 s off 50 frames/s" in said
    assert check(tmp_path / "out") == []


def test_float64_channel_first_and_video_info_are_understood(newer: Path, older: Path, tmp_path: Path) -> None:
    def describe(said: dict[str, Any]) -> None:
        said["features"]["action"]["dtype"] = "float64"
        camera = said["features"][KEY]
        camera["shape"], camera["names"] = [3, 16, 32], ["channels", "height", "width"]
        camera["video_info"] = camera.pop("info")

    info(older, describe)
    for file in sorted((older / "data/chunk-000").iterdir()):
        found = pq.read_table(file)
        place = found.schema.get_field_index("action")
        pq.write_table(found.set_column(place, "action", found["action"].cast(pa.float64())), file)
    said = import_v2(older, tmp_path / "out")
    assert "float64 converted to float32: action" in said
    made = Dataset(tmp_path / "out")
    assert np.array_equal(made.vectors("action"), Dataset(newer).vectors("action"))
    assert made.features["action"].dtype == "float32"
    assert made.cameras == {"cam": (16, 32)}
    assert made.column("next.done").sum() == 2
    assert check(tmp_path / "out", decode=True) == []
    with DatasetWriter.open(newer):
        pass


BLACK = {
    name: np.array([1]) if name == "count" else np.zeros((3, 1, 1)) for name in ("min", "max", "mean", "std", "count")
}


def test_a_result_that_cannot_be_read_is_not_called_done(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(source: Path, target: Path) -> None:
        link(source, target)
        if "000001" in source.name:
            target.unlink()
            target.write_bytes(b"no video")

    monkeypatch.setattr("aloha_runtime.data.import_v2.link", damaged)
    monkeypatch.setattr("aloha_runtime.data.import_v2.image_stats", lambda *_: BLACK)
    with pytest.raises(DatasetError, match="not a readable video"):
        import_v2(older, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("total", [10**6, 10**30, -1, 2.5, True, "3", None])
def test_a_total_that_is_no_count_of_episodes_is_named_at_once(older: Path, tmp_path: Path, total: Any) -> None:
    info = json.loads((older / "meta/info.json").read_text()) | {"total_episodes": total}
    path = shutil.copytree(older, tmp_path / "copy")
    (path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError) as error:
        import_v2(path, tmp_path / "out", ["next.done"])
    assert "info.json" in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["episodes", "tasks"])
def test_a_folder_in_the_place_of_a_list_is_named(older: Path, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(older, tmp_path / "copy")
    (path / f"meta/{name}.jsonl").unlink()
    (path / f"meta/{name}.jsonl").mkdir()
    with pytest.raises(DatasetError, match=f"{name}.jsonl"):
        import_v2(path, tmp_path / "out", ["next.done"])
