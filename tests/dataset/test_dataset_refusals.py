"""Datasets that cannot be read say what is wrong, where, and what to do."""

import shutil

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aloha_runtime.data import Dataset, DatasetWriter, edit, files
from aloha_runtime.errors import AlohaError, DatasetError


@pytest.fixture
def damaged(shared_sample, dataset_path):
    """A copy of LeRobot's sample, to be damaged."""
    shutil.copytree(shared_sample / "dataset", dataset_path)
    return dataset_path


def edit_info(path, **changes):
    info = msgspec.json.decode((path / "meta/info.json").read_bytes())
    (path / "meta/info.json").write_bytes(msgspec.json.encode(info | changes))


def read_everything(path):
    dataset = Dataset(path)
    return dataset.vectors("action"), dataset.images("cam_high", 0), dataset.stats, dataset.tasks


def refused(path, *words):
    """Reading everything ends in one DatasetError with these words."""
    with pytest.raises(DatasetError) as caught:
        read_everything(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_absent(dataset_path):
    refused(dataset_path, "no such directory", "Check the path")
    with pytest.raises(DatasetError, match="no such directory"):
        DatasetWriter.open(dataset_path)


def test_not_a_dataset(dataset_path):
    (dataset_path / "checkpoints").mkdir(parents=True)
    refused(dataset_path, "meta/info.json is missing", "checkpoints")


def test_existing_directory_is_not_overwritten(damaged):
    with pytest.raises(DatasetError, match="already exists"):
        DatasetWriter.create(damaged, vectors={"action": ["a"]})
    assert len(Dataset(damaged)) == 98


def test_half_written_info(damaged):
    content = (damaged / "meta/info.json").read_bytes()
    (damaged / "meta/info.json").write_bytes(content[: len(content) // 2])
    refused(damaged, "meta/info.json is damaged")


@pytest.mark.parametrize("version", ["v2.1", "v2.0", "v4.0", None])
def test_other_versions(damaged, version):
    edit_info(damaged, codebase_version=version)
    refused(damaged, f"codebase_version is {version!r}", "v3.0")


def test_version_2_names_the_converter(damaged):
    edit_info(damaged, codebase_version="v2.1")
    refused(damaged, "aloha dataset import")


@pytest.mark.parametrize(
    ("key", "entry", "words"),
    [
        ("action", {"dtype": "float32", "shape": [7], "names": None}, ("'action'", "[7]")),
        ("action", {"dtype": "float64", "shape": [14], "names": None}, ("'action'", "float64")),
        ("action", {"dtype": "float32", "shape": [0], "names": None}, ("'action'", "[0]")),
        ("action", {"dtype": "float32", "shape": "14", "names": None}, ("shape", "array")),
        ("action", {"dtype": "float32", "names": None}, ("shape", "features")),
        ("index", {"dtype": "float32", "shape": [1], "names": None}, ("'index'", "int64")),
        (
            "observation.images.cam_high",
            {"dtype": "video", "shape": [3, 48, 64], "names": None},
            ("128x96", "64x48"),
        ),
        ("observation.images.cam_high", {"dtype": "video", "shape": [48, 64, 3], "names": None}, ("128x96", "64x48")),
        (
            "observation.images.cam_high",
            {"dtype": "image", "shape": [96, 128, 3], "names": None},
            ("of frame 0 is missing",),
        ),
        ("observation.images.cam_low", {"dtype": "video", "shape": [96, 128, 3], "names": None}, ("cam_low",)),
    ],
)
def test_mistyped_features(damaged, key, entry, words):
    info = msgspec.json.decode((damaged / "meta/info.json").read_bytes())
    edit_info(damaged, features=info["features"] | {key: entry})
    refused(damaged, *words)


@pytest.mark.parametrize(
    "name",
    [
        "data/chunk-000/file-000.parquet",
        "videos/observation.images.cam_high/chunk-000/file-000.mp4",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
    ],
)
@pytest.mark.parametrize("keep", [None, 0, 1000])
def test_missing_or_truncated_file(damaged, name, keep):
    content = (damaged / name).read_bytes()
    (damaged / name).unlink()
    if keep is not None:
        (damaged / name).write_bytes(content[:keep])
    refused(damaged, name.split("/")[0], "Restore")


def test_more_counted_than_there(damaged):
    edit_info(damaged, total_episodes=4)
    refused(damaged, "3 episodes", "counts 4")
    edit_info(damaged, total_episodes=3, total_frames=99)
    refused(damaged, "98 frames", "counts 99")


def test_damaged_data_column(damaged):
    path = damaged / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    position = table.column_names.index("action")
    pq.write_table(table.set_column(position, "action", pa.array(["x"] * len(table))), path)
    refused(damaged, "'action'", "string")


def test_unknown_names(damaged):
    dataset = Dataset(damaged)
    with pytest.raises(DatasetError, match=r"no camera 'cam_low'; it has: cam_high, cam_left_wrist"):
        dataset.frame("cam_low", 0)
    with pytest.raises(DatasetError, match=r"no vector 'observation.torque'; it has: observation.state"):
        dataset.vectors("observation.torque")
    with pytest.raises(DatasetError, match=r"episodes 0 to 2; 3 is outside"):
        dataset.images("cam_high", 3)
    with pytest.raises(DatasetError, match=r"frames 0 to 97; -1 is outside"):
        dataset.frame("cam_high", -1)


def test_append_refuses_what_it_cannot_encode(damaged):
    info = msgspec.json.decode((damaged / "meta/info.json").read_bytes())
    info["features"]["observation.images.cam_high"]["info"]["video.codec"] = "hevc"
    edit_info(damaged, features=info["features"])
    with pytest.raises(DatasetError, match="hevc"):
        DatasetWriter.open(damaged)
    edit_info(damaged, features=info["features"] | {"done": {"dtype": "bool", "shape": [1], "names": None}})
    with pytest.raises(DatasetError, match=r"'done' is bool|hevc"):
        DatasetWriter.open(damaged)


@pytest.mark.parametrize(
    ("entry", "template"),
    [
        ("data_path", "../../{chunk_index}/{file_index}.parquet"),
        ("data_path", "/etc/passwd"),
        ("data_path", "{chunk_index.__class__.__mro__}"),
        ("data_path", "{0}"),
        ("data_path", "{chunk_index"),
        ("video_path", "videos/../../{video_key}/{chunk_index}-{file_index}.mp4"),
        ("video_path", "{file_index.real}"),
        ("video_path", "videos/{video_key!s:.2}/{chunk_index:03d}/{file_index:03d}.mp4"),
        ("video_path", "videos/{video_key:.2}/{chunk_index:03d}/{file_index:03d}.mp4"),
        ("data_path", "data/{chunk_index:c}{chunk_index:c}/file-{file_index:03d}.parquet"),
        ("data_path", "data/{chunk_index:07d}/file-{file_index:03d}.parquet"),
        ("data_path", "data/{chunk_index!r}/{file_index}.parquet"),
        ("data_path", "data/{file_index:{chunk_index}d}.parquet"),
        ("data_path", "data/one.parquet"),
        ("data_path", "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"),
        ("data_path", ".writing/{chunk_index}/{file_index}.parquet"),
        ("data_path", "{chunk_index}/{file_index}.parquet"),
        ("data_path", "data/a\nb/{chunk_index}/{file_index}.parquet"),
    ],
)
def test_files_outside_the_dataset(damaged, entry, template):
    edit_info(damaged, **{entry: template})
    refused(damaged, f"{entry} is {template!r}", "a path inside the dataset")
    with pytest.raises(DatasetError, match="a path inside the dataset"):
        DatasetWriter.open(damaged)


def test_numbers_of_a_table_that_make_a_path(damaged):
    """Text where a number belongs fills a template in, too."""
    edit_info(damaged, data_path="data/chunk-{chunk_index}/file-{file_index}.parquet")
    path = damaged / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    position = table.column_names.index("data/chunk_index")
    pq.write_table(table.set_column(position, "data/chunk_index", pa.array(["0/../../.."] * len(table))), path)
    refused(damaged, "chunk_index is '0/../../..'")


@pytest.mark.parametrize("link", ["data/chunk-000", "videos", "meta/episodes", ".writing", "meta/stats.json"])
def test_a_link_among_its_files(damaged, tmp_path, link):
    outside = tmp_path / "outside"
    if (damaged / link).exists():
        (damaged / link).rename(outside)
    else:
        outside.mkdir()
        (outside / "reserve").write_bytes(b"mine")
        (outside / "notes.txt").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    (damaged / link).symlink_to(outside)
    refused(damaged, f"{link} is a link")
    for open_it in (DatasetWriter.open, lambda path: edit.delete(path, ["0"])):
        with pytest.raises(DatasetError, match="is a link"):
            open_it(damaged)
    assert before == {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}


def test_a_link_that_appears_after_the_look_is_not_followed(damaged, tmp_path, monkeypatch):
    """Somebody puts it there between the look at the folder and the step that moves a file into it."""
    outside = tmp_path / "outside"
    (damaged / "meta/aloha").rename(outside) if (damaged / "meta/aloha").exists() else outside.mkdir()
    aside, final = damaged / ".writing/report.json", damaged / "meta/aloha/episode_000000.json"
    aside.parent.mkdir()
    (outside / final.name).write_bytes(b"mine")
    (damaged / "meta/aloha").symlink_to(outside)
    aside.write_bytes(b"ours")
    with pytest.raises(AlohaError, match="meta/aloha is a link"):
        files.publish(aside, final)
    assert (outside / final.name).read_bytes() == b"mine"


@pytest.mark.parametrize("key", ["../../outside", "/outside", "a/b", "", ".", "..", "..x", ".writing", "a\nb"])
def test_features_named_like_paths(damaged, key):
    info = msgspec.json.decode((damaged / "meta/info.json").read_bytes())
    info["features"][key] = info["features"]["action"]
    (damaged / "meta/info.json").write_bytes(msgspec.json.encode(info))
    refused(damaged, f"feature {key!r} would be a path outside")
