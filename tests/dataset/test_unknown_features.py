"""Twelve kinds of features that this runtime has no use for block nothing, and come through every edit bit for bit."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import unknown_features as unknown
from unknown_features import CAMERA, DEPTH, FPS, KINDS, LENGTHS, STORED, TASKS

from aloha_runtime.data import Dataset, DatasetWriter, edit, split_merge
from aloha_runtime.data.check import check
from aloha_runtime.data.layout import Feature
from aloha_runtime.errors import DatasetError

ALL = [(episode, 0, length) for episode, length in enumerate(LENGTHS)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return unknown.write(tmp_path / "others")


def holds(path: Path, pieces: list[tuple[int, int, int]]) -> None:
    """The dataset consists of these (episode, first frame, end) of the first one, in every feature."""
    made = Dataset(path)
    assert made.fps == FPS
    assert check(path, decode=True) == []
    assert [episode.length for episode in made.episodes] == [end - first for _, first, end in pieces]
    for index, (was, first, end) in enumerate(pieces):
        episode = made.episodes[index]
        table = pq.read_table(episode.data_path)
        table = table.filter(pa.compute.equal(table["episode_index"], index))
        for key, (_, _, kind) in KINDS.items():
            assert table[key].type == kind, key
            wanted = pa.array([unknown.cell(key, was, frame) for frame in range(first, end)], kind)
            assert table[key].combine_chunks().equals(wanted), f"{key} of episode {index}"
        assert table["timestamp"].to_pylist() == [np.float32(step / FPS) for step in range(end - first)]
        state = made.vectors("observation.state")[episode.from_index : episode.to_index]
        assert np.array_equal(state, np.array([[was, frame / 10] for frame in range(first, end)], np.float32))
        for step in (0, end - first - 1):
            frame = made.frame("cam", episode.from_index + step)
            assert frame.shape == (*unknown.SIZE, 3)
            assert abs(frame.mean() - (50 * was + 5 * (first + step))) < 4
            assert made.frame("stored", episode.from_index + step)[0, 0, 0] == (100 * was + first + step) % 251
        span = episode.videos["cam_depth"]
        begin = round(span.from_s * FPS)
        depth = unknown.read_depth(span.path)[begin : begin + end - first]
        assert all(
            np.array_equal(a, unknown.depth(was, frame)) for a, frame in zip(depth, range(first, end), strict=True)
        )


def test_the_dataset_itself_is_understood(dataset: Path) -> None:
    read = Dataset(dataset)
    assert read.cameras == {"stored": unknown.SIZE, "cam": unknown.SIZE}, "channel-first by name; depth is no camera"
    assert read.column("observation.tactile").shape == (sum(LENGTHS), 2, 3)
    assert read.column("instruction")[0] == unknown.cell("instruction", 0, 0)
    assert read.column("next.done")[:2].tolist() == [True, False]


EDITS = {
    "delete": (lambda path: edit.delete(path, ["1"]), [ALL[0], ALL[2]]),
    "trim between key frames": (
        lambda path: edit.trim(path, 1, 3 / FPS, 7 / FPS, still=False),
        [ALL[0], (1, 3, 7), ALL[2]],
    ),
    "relabel": (lambda path: edit.relabel(path, ["0"], "carry", None), ALL),
    "stats": (edit.restat, ALL),
    "compact": (edit.compact, ALL),
    "reencode": (lambda path: edit.reencode(path, "lossless"), ALL),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_carries_them(name: str, dataset: Path) -> None:
    job, pieces = EDITS[name]
    if name == "compact":  # from many files
        edit.restat(dataset)
    job(dataset)
    holds(dataset, pieces)
    edit.undo(dataset)
    holds(dataset, ALL)
    assert Dataset(dataset).episodes[0].tasks == (TASKS[0],)


def test_split_and_merge_carry_them(dataset: Path, tmp_path: Path) -> None:
    first, second, joined = (tmp_path / name for name in ("first", "second", "joined"))
    split_merge.split(dataset, first, second, ["1"])
    holds(first, [ALL[1]])
    holds(second, [ALL[0], ALL[2]])
    split_merge.merge([second, first], joined)
    holds(joined, [ALL[0], ALL[2], ALL[1]])
    assert Dataset(joined).episodes[2].tasks == (TASKS[1],)


def test_a_trim_says_nothing_false_of_depth(dataset: Path) -> None:
    """Statistics of depth are those of whole episodes; nothing is said of a part, rather than something wrong."""
    edit.trim(dataset, 0, 3 / FPS, 7 / FPS, still=False)
    row = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[0]
    assert not any(name.startswith(f"stats/{DEPTH}") for name in row)
    assert any(name.startswith(f"stats/{STORED}") for name in row)
    assert math.isclose(Dataset(dataset).stats[DEPTH]["count"][0], LENGTHS[1] + LENGTHS[2])


def test_what_recording_cannot_write_is_said_only_to_who_records(dataset: Path) -> None:
    with pytest.raises(DatasetError, match="Edits carry that feature along"):
        DatasetWriter.open(dataset)


def test_only_what_is_asked_for_is_read(dataset: Path) -> None:
    """A column that is not as it is described is nobody's business until somebody asks for it."""
    path = dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("observation.tactile")
    pq.write_table(table.set_column(place, "observation.tactile", pa.array(["?"] * len(table))), path)
    assert len(Dataset(dataset).vectors("action")) == sum(LENGTHS)
    with pytest.raises(DatasetError, match=r"observation.tactile' holds string"):
        Dataset(dataset).column("observation.tactile")


def test_camera_is_decoded_from_its_feature(dataset: Path) -> None:
    assert Dataset(dataset).features[CAMERA].size == (*unknown.SIZE, 3)
    assert (Dataset(dataset).features[CAMERA].info or {})["video.codec"] == "h264", "said as video_info"


def test_time_stamps_that_drift_are_named_and_counted_again(dataset: Path) -> None:
    """The sum of measured durations, as some converters write it: two frames late in the third episode."""
    path = dataset / "meta/episodes/chunk-000/file-000.parquet"
    table, name = pq.read_table(path), f"videos/{CAMERA}/from_timestamp"
    said = table[name].to_pylist()
    late = pa.array([*said[:2], said[2] - 2 / FPS])
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, late), path)
    (finding,) = check(dataset)
    assert "begins at frame 17 of" in finding.what
    assert "the episodes before it have 19" in finding.what
    edit.restat(dataset)
    holds(dataset, ALL)


@pytest.mark.parametrize(
    ("shape", "names", "size"),
    [
        ([16, 32, 3], ["height", "width", "channels"], (16, 32, 3)),
        ([3, 16, 32], ["channels", "height", "width"], (16, 32, 3)),
        ([32, 16, 3], ["width", "height", "channel"], (16, 32, 3)),
        ([3, 3, 16], ["channel", "height", "width"], (3, 16, 3)),
        ([3, 16, 32], None, (16, 32, 3)),
        ([16, 32, 1], None, (16, 32, 1)),
    ],
)
def test_sizes_follow_the_names_of_their_axes(shape: list[int], names: list[str] | None, size: tuple[int, ...]) -> None:
    feature = Feature("video", shape, names)
    assert feature.size == size
    assert feature.is_camera == (size[2] == 3)
    assert not Feature("video", shape, names, {"is_depth_map": True}).is_camera


def test_a_broken_rate_survives_edits_of_long_episodes(tmp_path: Path) -> None:
    """At 30 instead of 29.97 frames/s, frame 600 would be more than half a frame early."""
    path, frames = tmp_path / "long", 900
    with DatasetWriter.create(path, vectors={"action": ["x"]}, cameras={"cam": (16, 16)}, fps=29.97) as writer:
        for step in range(frames):
            image = np.full((16, 16, 3), step % 250, np.uint8)
            writer.add_frame({"action": [float(step)], "observation.images.cam": image})
        writer.save_episode("wipe")
    edit.trim(path, 0, 1 / 29.97, None, still=False)
    edit.reencode(path, "lossless")
    made = Dataset(path)
    assert made.fps == 29.97
    assert check(path) == []
    for index in (0, 600, frames - 2):
        assert abs(made.frame("cam", index).mean() - (index + 1) % 250) < 5
    assert made.vectors("action")[-1] == frames - 1
