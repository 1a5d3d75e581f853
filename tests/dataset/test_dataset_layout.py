"""What is written has the very columns, types and entries that LeRobot 0.6.1 gave its sample."""

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from aloha_runtime import robot
from aloha_runtime.data import DatasetWriter


@pytest.fixture
def ours(dataset_path):
    """A dataset with the features of the sample."""
    keys = ("observation.state", "observation.velocity", "observation.effort", "action")
    cameras = {"cam_high": (96, 128), "cam_left_wrist": (96, 128)}
    with DatasetWriter.create(dataset_path, vectors=dict.fromkeys(keys, robot.NAMES), cameras=cameras) as writer:
        frame = {key: np.zeros(14) for key in keys}
        images = {f"observation.images.{camera}": np.zeros((96, 128, 3), np.uint8) for camera in cameras}
        for _ in range(2):
            writer.add_frame(frame | images)
        writer.save_episode("transfer the cube")
    return dataset_path


@pytest.mark.parametrize(
    "name", ["data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"]
)
def test_tables_have_lerobots_columns(ours, shared_sample, name):
    found, expected = pq.read_schema(ours / name), pq.read_schema(shared_sample / "dataset" / name)
    assert found.names == expected.names
    for column in expected.names:
        assert found.field(column).type == expected.field(column).type, column


def test_task_text_is_the_pandas_index(ours, shared_sample):
    def pandas(root):
        metadata = msgspec.json.decode(pq.read_schema(root / "meta/tasks.parquet").metadata[b"pandas"])
        return {key: metadata[key] for key in ("index_columns", "column_indexes", "columns")}

    assert pandas(ours) == pandas(shared_sample / "dataset")


def test_info_has_lerobots_entries(ours, shared_sample):
    found = msgspec.json.decode((ours / "meta/info.json").read_bytes())
    expected = msgspec.json.decode((shared_sample / "dataset/meta/info.json").read_bytes())
    assert found.keys() == expected.keys()
    same = set(expected) - {"features", "total_episodes", "total_frames", "splits"}
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    assert (found["total_episodes"], found["total_frames"], found["splits"]) == (1, 2, {"train": "0:1"})
    assert list(found["features"]) == list(expected["features"])
    for key, feature in expected["features"].items():
        ours_now = {name: value for name, value in found["features"][key].items() if name != "info"}
        assert ours_now == {name: value for name, value in feature.items() if name != "info"}
        if feature["dtype"] == "video":
            assert found["features"][key]["info"]["video.codec"] == "h264"
            assert found["features"][key]["info"].keys() <= feature["info"].keys()


def test_files_are_numbered_in_chunks(writer, dataset_path):
    writer.info.chunks_size = 2
    image = np.zeros((32, 48, 3), np.uint8)
    for _ in range(3):
        writer.add_frame(
            {"observation.state": np.zeros(3), "action": np.zeros(1), "observation.images.cam_high": image}
        )
        writer.save_episode("x")
    numbers = [path.relative_to(dataset_path / "data").as_posix() for path in sorted(dataset_path.glob("data/*/*"))]
    assert numbers == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
