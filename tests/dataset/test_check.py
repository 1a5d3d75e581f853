"""A dataset damaged in every way that is looked for, and found out; sound ones pass."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.check import check
from aloha_runtime.data.summary import summarise
from aloha_runtime.robot import NAMES, START_POSE, pose_vector

LENGTHS = (30, 25)


def write(path: Path, size: tuple[int, int] = (32, 48), brighter: int = 0) -> Path:
    """Two episodes of a bimanual ALOHA with one small camera."""
    vectors = {"observation.state": NAMES, "action": NAMES}
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam_high": size}) as writer:
        for length in LENGTHS:
            for index in range(length):
                pose = pose_vector(START_POSE, 0.5) + 0.01 * index
                image = np.full((*size, 3), 4 * index + brighter, np.uint8)
                writer.add_frame({"observation.state": pose, "action": pose, "observation.images.cam_high": image})
            writer.save_episode("wave")
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound") / "dataset")


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "damaged")


DATA, VIDEO = "data/chunk-000/file-001.parquet", "videos/observation.images.cam_high/chunk-000/file-001.mp4"

ROW = "meta/episodes/chunk-000/file-001.parquet"
NOBODYS = VIDEO.replace("1.mp4", "7.mp4")


def edit_frames(change: Callable[[dict[str, list]], None]) -> Callable[[Path], None]:
    """The rows of episode 1, changed."""

    def edit(path: Path) -> None:
        table = pq.read_table(path / DATA)
        columns = table.to_pydict()
        change(columns)
        pq.write_table(pa.table(columns, schema=table.schema), path / DATA)

    return edit


def edit_stats(path: Path) -> None:
    stats = json.loads((path / "meta/stats.json").read_text())
    stats["action"]["mean"][3] += 0.01
    (path / "meta/stats.json").write_text(json.dumps(stats))


def edit_image_stats(path: Path) -> None:
    stats = json.loads((path / "meta/stats.json").read_text())
    stats["observation.images.cam_high"]["mean"] = [[[0.9]]] * 3
    (path / "meta/stats.json").write_text(json.dumps(stats))


def edit_row_stats(path: Path) -> None:
    table = pq.read_table(path / ROW)
    index = table.column_names.index("stats/action/max")
    other = [[value + 0.1 for value in row] for row in table.column(index).to_pylist()]
    pq.write_table(table.set_column(index, table.schema.field(index), [other]), path / ROW)


def smaller_film(path: Path) -> None:
    shutil.copy(write(path.with_name("smaller"), size=(16, 32)) / VIDEO, path / VIDEO)


def said_av1(path: Path) -> None:
    info = path / "meta/info.json"
    info.write_text(info.read_text().replace('"h264"', '"av1"'))


def stands_still(path: Path) -> None:
    """Four seconds without motion, then some."""
    shutil.rmtree(path)
    with DatasetWriter.create(path, vectors={"observation.state": NAMES, "action": NAMES}) as writer:
        for index in range(220):
            pose = pose_vector(START_POSE, 0.5) + 0.02 * max(index - 199, 0)
            writer.add_frame({"observation.state": pose, "action": pose})
        writer.save_episode("wave")


def shorter_video(path: Path) -> None:
    shutil.copy(path / VIDEO.replace("file-001", "file-000"), path / "long.mp4")
    shutil.move(path / VIDEO, path / VIDEO.replace("file-001", "file-000"))
    shutil.move(path / "long.mp4", path / VIDEO)


def columns(**changes: Callable[[list], None]) -> Callable[[Path], None]:
    def change(found: dict[str, list]) -> None:
        for name, edit in changes.items():
            edit(found[name.replace("__", ".")])

    return edit_frames(change)


def at(index: int, value: object) -> Callable[[list], None]:
    return lambda column: column.__setitem__(index, value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / VIDEO).unlink(), ("episode 1, cam_high", "missing")),
        (lambda path: (path / VIDEO).write_bytes(b"nothing"), ("episode 1, cam_high", "not a readable video")),
        (shorter_video, ("episode 0, cam_high", "lacks 5 of 30 frames", "first 25")),
        (lambda path: shutil.copy(path / VIDEO, path / NOBODYS), ("file-007.mp4", "no episode counts")),
        (lambda path: (path / ".writing").mkdir() or (path / ".writing/open.json").touch(), ("left open", "repair")),
        (edit_stats, ("meta/stats.json", "mean of action number 3", "dataset stats")),
        (edit_image_stats, ("meta/stats.json", "mean colour of observation.images.cam_high")),
        (edit_row_stats, ("episode 1", "max of action number 0 is", "dataset stats")),
        (smaller_film, ("episode 1, cam_high", "is 32x16, meta/info.json says 48x32")),
        (said_av1, ("episode 0, cam_high", "is h264, meta/info.json says av1", "reencode")),
        (stands_still, ("episode 0", "no arm moves for 4.0 s at its start", "trim", "0 --still")),
        (columns(index=at(4, 9)), ("tables", "out of order")),
        (columns(timestamp=at(4, 0.5)), ("episode 1", "frame 4 has timestamp 0.5", "not 0.0800")),
        (columns(frame_index=at(2, 9)), ("episode 1", "not numbered from 0 on")),
        (columns(task_index=at(2, 5)), ("episode 1", "none")),
        (columns(action=at(3, [float("nan")] * 14)), ("episode 1", "action number 0 is nan in frame 33")),
        (columns(action=at(3, [90.0] * 14)), ("action", "left_waist goes from", "cannot be radians")),
        (lambda path: (path / DATA).unlink(), ("tables", "file-001.parquet is missing")),
    ],
)  # fmt: skip
def test_each_damage_is_named_with_what_to_do(damaged: Path, damage: Callable[[Path], object], words: tuple[str, ...]):
    damage(damaged)
    said = [str(finding) for finding in check(damaged)]
    assert any(all(word in line for word in words) for line in said), said


def frozen(path: Path) -> None:
    """A film of 110 frames of one colour for an episode in which the arms move."""
    shutil.rmtree(path)
    vectors = {"observation.state": NAMES, "action": NAMES}
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam_high": (32, 48)}) as writer:
        for index in range(110):
            pose = pose_vector(START_POSE, 0.5) + 0.002 * index
            image = np.full((32, 48, 3), 99, np.uint8)
            writer.add_frame({"observation.state": pose, "action": pose, "observation.images.cam_high": image})
        writer.save_episode("wave")


def other_film(path: Path) -> None:
    """The film of another episode, as long and brighter."""
    shutil.copy(write(path.with_name("brighter"), brighter=60) / VIDEO, path / VIDEO)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (frozen, ("episode 0, cam_high", "stands still for 2.2 s")),
        (other_film, ("episode 1, cam_high", "mean colour")),
    ],
)
def test_pictures_are_looked_at_when_asked(damaged: Path, damage: Callable[[Path], None], words: tuple[str, ...]):
    damage(damaged)
    assert check(damaged) == []
    said = [str(finding) for finding in check(damaged, decode=True)]
    assert any(all(word in line for word in words) for line in said), said


def test_sound_datasets_pass(sound: Path, shared_sample: Path) -> None:
    assert check(sound, decode=True) == []
    lerobots = check(shared_sample / "dataset", decode=True)
    assert {finding.where for finding in lerobots} == {"observation.state", "action"}, "its grippers are random numbers"


def test_summary(sound: Path) -> None:
    found = summarise(sound)
    assert (found["episodes"], found["frames"], found["tasks"]) == (2, sum(LENGTHS), {"wave": 2})
    assert found["cameras"] == {"cam_high": "48x32"}
    assert found["bytes"] > found["video_bytes"] > 0
    assert found["outcomes"] == {"not said": 2}
    assert len(Dataset(sound)) == sum(LENGTHS)
