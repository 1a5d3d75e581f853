"""Real HDF5 files as ALOHA's recorders write them, through the importer into a LeRobot dataset."""

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from aloha_runtime import robot
from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.export_hdf5 import export_hdf5
from aloha_runtime.data.hdf5 import Hdf5Episode, episode_files
from aloha_runtime.data.import_hdf5 import import_hdf5
from aloha_runtime.errors import DatasetError

HEIGHT, WIDTH = 48, 64
CAMERAS = ("cam_high", "cam_left_wrist")
ORANGE = (230, 120, 20)
"""Red and blue far apart, so that exchanged channels show."""


def write_episode(path: Path, length: int = 5, compress: bool = False, base: bool = False, seed: int = 0) -> None:
    """`compress`: RGB arrays given to an encoder for BGR and padded to one length, as the recorders do."""
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        for inside in ("observations/qpos", "observations/qvel", "observations/effort", "action"):
            file[inside] = random.uniform(-1, 1, (length, 14)).astype(np.float32)
        if base:
            file["base_action"] = random.uniform(-1, 1, (length, 2)).astype(np.float32)
        for number, camera in enumerate(CAMERAS):
            images = np.full((length, HEIGHT, WIDTH, 3), ORANGE, dtype=np.uint8) - np.uint8(10 * number)
            if not compress:
                chunks = (1, HEIGHT, WIDTH, 3)
                file.create_dataset(f"observations/images/{camera}", data=images, chunks=chunks)
                continue
            encoded = [cv2.imencode(".jpg", image)[1].ravel() for image in images]
            padded = np.zeros((length, max(map(len, encoded)) + 7), dtype=np.uint8)
            for row, data in zip(padded, encoded, strict=True):
                row[: len(data)] = data
            file[f"observations/images/{camera}"] = padded
        if compress:
            file.attrs["compress"] = True
            file["compress_len"] = np.full((len(CAMERAS), length), padded.shape[1] - 7)


def colour(dataset: Dataset, camera: str) -> Any:
    return dataset.images(camera, 0).mean(axis=(0, 1, 2))


@pytest.mark.parametrize("compress", [False, True])
def test_import(tmp_path: Path, compress: bool) -> None:
    for number, length in ((0, 5), (1, 3), (10, 4), (2, 6)):
        write_episode(tmp_path / f"episode_{number}.hdf5", length, compress, seed=number)
    lines: list[str] = []
    order = "swapped" if compress else None
    made = import_hdf5(
        tmp_path, tmp_path / "out", task="transfer the cube", channel_order=order, report=lines.append
    )  # fmt: skip
    dataset = Dataset(tmp_path / "out")
    assert made.path == dataset.path
    assert [episode.length for episode in dataset.episodes] == [5, 3, 6, 4]  # 10 comes after 2
    assert dataset.fps == 50
    assert dataset.tasks == ("transfer the cube",)
    assert dataset.features["action"].names == list(robot.NAMES)
    assert len(lines) == 4
    with h5py.File(tmp_path / "episode_10.hdf5") as file:
        for name, inside in (("action", "action"), ("observation.effort", "observations/effort")):
            np.testing.assert_array_equal(dataset.vectors(name)[14:], file[inside][...])
    np.testing.assert_allclose(colour(dataset, "cam_high"), ORANGE, atol=6)
    np.testing.assert_allclose(colour(dataset, "cam_left_wrist"), np.array(ORANGE) - 10, atol=6)


def test_channel_order_is_asked_for_and_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "episode_0.hdf5"
    write_episode(path, compress=True)
    with pytest.raises(DatasetError, match=r"episode_0.*cam_high.*--channels swapped.*--channels rgb"):
        import_hdf5(tmp_path, tmp_path / "out", task="x")
    assert not (tmp_path / "out").exists()
    with Hdf5Episode(path, "rgb") as episode:
        np.testing.assert_allclose(episode.frame("cam_high", 4).mean(axis=(0, 1)), ORANGE[::-1], atol=4)
    with Hdf5Episode(path, "swapped") as episode:
        np.testing.assert_allclose(episode.frame("cam_high", 4).mean(axis=(0, 1)), ORANGE, atol=4)


def test_mobile_base_is_kept_or_ignored_as_said(tmp_path: Path) -> None:
    write_episode(tmp_path / "episode_0.hdf5", base=True)
    with pytest.raises(DatasetError, match=r"base_action.*keep it.*or ignore it"):
        import_hdf5(tmp_path, tmp_path / "out", task="x")
    kept = import_hdf5(tmp_path, tmp_path / "kept", task="x", keep_base=True)
    with h5py.File(tmp_path / "episode_0.hdf5") as file:
        np.testing.assert_array_equal(kept.vectors("base_action"), file["base_action"][...])
    assert kept.features["base_action"].names == ["base_linear", "base_angular"]
    ignored = import_hdf5(tmp_path, tmp_path / "ignored", task="x", keep_base=False)
    assert "base_action" not in ignored.features
    assert ignored.vectors("action").shape == (5, 14)


@pytest.mark.parametrize("form", ["rows without the attribute", "byte strings", "varying lengths"])
def test_jpegs_in_every_form_that_recorders_write(tmp_path: Path, form: str) -> None:
    write_episode(tmp_path / "episode_0.hdf5", compress=True)
    with h5py.File(tmp_path / "episode_0.hdf5", "r+") as file:
        del file.attrs["compress"]
        for camera in CAMERAS if form != "rows without the attribute" else ():
            rows = file[f"observations/images/{camera}"][...]
            del file[f"observations/images/{camera}"]
            if form == "byte strings":
                file[f"observations/images/{camera}"] = np.array([row.tobytes() for row in rows])
                continue
            kind = h5py.vlen_dtype(np.uint8)
            made = file.create_dataset(f"observations/images/{camera}", (len(rows),), dtype=kind)
            for step, row in enumerate(rows):
                made[step] = row[: len(row) - 7]
    import_hdf5(tmp_path, tmp_path / "out", task="x", channel_order="swapped")
    np.testing.assert_allclose(colour(Dataset(tmp_path / "out"), "cam_high"), ORANGE, atol=6)


def test_what_was_not_taken_is_listed_and_can_be_left_out(tmp_path: Path) -> None:
    for number in range(3):
        write_episode(tmp_path / f"episode_{number}.hdf5")
    with h5py.File(tmp_path / "episode_1.hdf5", "r+") as file:
        file["observations/tactile"] = np.zeros((5, 6), np.float32)
        file["observations/images_depth/cam_high"] = np.zeros((5, 8, 8), np.uint16)
        file["instruction"] = "fold it"
        file["observations/images/odd"] = np.zeros((5, 8), np.float32)
    (tmp_path / "episode_2.hdf5").write_text("damaged")
    said: list[str] = []
    with pytest.raises(DatasetError, match=r"episode_1.*images/odd is float32 .*--leave-out observations/images/odd"):
        import_hdf5(tmp_path, tmp_path / "out", task="x", leave_out=["episode_2.hdf5"])
    left_out = ["episode_2.hdf5", "odd", "qvel"]
    import_hdf5(tmp_path, tmp_path / "out", task="x", leave_out=left_out, report=said.append)
    assert said[-1].startswith("not taken: episode_2.hdf5, ")
    for name in ("instruction (text)", "images_depth/cam_high (uint16 5x8x8)", "tactile (float32 5x6)", "odd", "qvel"):
        assert name in said[-1]
    assert "observation.velocity" not in Dataset(tmp_path / "out").info.vectors
    assert len(Dataset(tmp_path / "out").episodes) == 2


def damage(path: Path, how: str) -> None:
    if how == "cut off":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return
    if how == "text":
        path.write_text("not HDF5")
        return
    with h5py.File(path, "r+") as file:
        images = file["observations/images/cam_high"]
        if how == "no qpos":
            del file["observations/qpos"]
        elif how == "seven joints":
            del file["action"]
            file["action"] = np.zeros((5, 7), np.float32)
        elif how == "nan":
            file["action"][3, 2] = np.nan
        elif how == "lengths":
            del file["observations/qvel"]
            file["observations/qvel"] = np.zeros((4, 14), np.float32)
        elif how == "zeros":
            images[-1] = 0
        elif how == "depth":
            del file["observations/images/cam_high"]
            file["observations/images/cam_high"] = np.zeros((5, HEIGHT, WIDTH), np.uint16)
        elif how == "short camera":
            shorter = images[:3]
            del file["observations/images/cam_high"]
            file["observations/images/cam_high"] = shorter
        elif how == "other camera":
            file.move("observations/images/cam_high", "observations/images/cam_low")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut off", r"cannot be opened as HDF5 \(.*truncated"),
        ("text", "cannot be opened as HDF5"),
        ("no qpos", r"no ALOHA episode: observations/qpos is missing \(at the top: action"),
        ("seven joints", r"action is float32 of shape \(5, 7\); it must be floats, \(T, 14\)"),
        ("nan", "action is not finite in frame 3"),
        ("lengths", r"observations/qvel 4.*action 5|differ in number.*observations/qvel 4"),
        ("zeros", "observations/images/cam_high, frame 4 is no JPEG"),
        (
            "depth",
            r"observations/images/cam_high is uint16 of shape .*import without it: --leave-out observations/images",
        ),
        ("short camera", "observations/images/cam_high has 3 frames, action has 5"),
        ("other camera", r"differs from episode_0.hdf5 in its cameras: .*cam_low 64x48.* there"),
    ],
)
def test_refused_files_are_named_before_anything_is_written(tmp_path: Path, how: str, message: str) -> None:
    for number in range(2):
        write_episode(tmp_path / f"episode_{number}.hdf5", compress=True)
    damage(tmp_path / "episode_1.hdf5", how)
    with pytest.raises(DatasetError, match=message) as caught:
        import_hdf5(tmp_path, tmp_path / "out", task="x", channel_order="swapped")
    assert "episode_1.hdf5" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_episodes(tmp_path: Path) -> None:
    (tmp_path / "episode_x.hdf5").touch()
    with pytest.raises(DatasetError, match=r"holds no episode_0.hdf5"):
        episode_files(tmp_path)


@pytest.mark.parametrize("order", [None, "swapped", "rgb"])
def test_there_and_back_again(tmp_path: Path, order: Any) -> None:
    """HDF5 to LeRobot and back: numbers to the bit, colours to what two lossy codecs leave."""
    for number in range(2):
        write_episode(tmp_path / f"episode_{number}.hdf5", 6, base=True, seed=number)
    import_hdf5(tmp_path, tmp_path / "dataset", task="x", keep_base=True)
    said = export_hdf5(tmp_path / "dataset", tmp_path / "back", channel_order=order)
    assert "tasks" in said
    assert ("JPEG" in said) == (order is not None)
    for number in range(2):
        with (
            h5py.File(tmp_path / f"episode_{number}.hdf5") as first,
            Hdf5Episode(tmp_path / f"back/episode_{number}.hdf5", order) as episode,
            h5py.File(tmp_path / f"back/episode_{number}.hdf5") as raw,
        ):
            for inside in ("observations/qpos", "observations/qvel", "observations/effort", "action", "base_action"):
                np.testing.assert_array_equal(raw[inside][...], first[inside][...])
            np.testing.assert_allclose(episode.frame("cam_high", 3).mean(axis=(0, 1)), ORANGE, atol=8)
            assert (raw["observations/images/cam_high"].ndim == 2) == (order is not None)
            if order:
                assert raw["compress_len"].shape == (2, 6)
                stored = cv2.imdecode(raw["observations/images/cam_high"][0], cv2.IMREAD_COLOR).mean(axis=(0, 1))
                assert (stored[0] > stored[2]) == (order == "swapped"), "OpenCV takes what it decodes for BGR"
    again = import_hdf5(tmp_path / "back", tmp_path / "again", task="x", keep_base=True, channel_order=order)
    np.testing.assert_array_equal(again.vectors("action"), Dataset(tmp_path / "dataset").vectors("action"))
    with pytest.raises(DatasetError, match=r"episode_0.hdf5 already"):
        export_hdf5(tmp_path / "dataset", tmp_path / "back")


def test_export_says_what_it_cannot_hold_and_refuses_other_robots(tmp_path: Path) -> None:
    vectors = {"observation.state": robot.NAMES, "action": robot.NAMES, "goal": robot.NAMES}
    with DatasetWriter.create(tmp_path / "dataset", vectors=vectors) as writer:
        writer.add_frame({key: np.zeros(14) for key in vectors})
        writer.save_episode("x")
    said = export_hdf5(tmp_path / "dataset", tmp_path / "out")
    assert "no place for: goal, tasks" in said
    assert "zeros, because the dataset has none: observation.velocity, observation.effort" in said
    with DatasetWriter.create(tmp_path / "other", vectors={"observation.state": ["a"], "action": ["a"]}) as writer:
        writer.add_frame({"observation.state": np.zeros(1), "action": np.zeros(1)})
        writer.save_episode("x")
    with pytest.raises(DatasetError, match="has 1 numbers, not 14"):
        export_hdf5(tmp_path / "other", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
