"""Small pictures of the training data beside a checkpoint: read by whoever deploys, and trusted by none."""

import json
from pathlib import Path

import numpy as np
import pytest
import small_policy as small
from PIL import Image

from aloha_runtime.act import provenance, training_frames
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import CheckpointError


def test_a_few_small_pictures_come_back_and_the_data_is_described(tmp_path: Path) -> None:
    small.write_dataset(tmp_path / "data", episodes=5, length=6)
    dataset = Dataset(tmp_path / "data")
    frames = training_frames.write(tmp_path / "p", training_frames.take(dataset, ["cam_high"]))
    assert frames == {"cam_high": [f"training_frames/cam_high_{number}.jpg" for number in range(3)]}
    described = provenance.dataset(tmp_path / "data")
    provenance.write(tmp_path / "p", frames=frames, dataset=described)
    pictures = training_frames.read(tmp_path / "p")["cam_high"]
    for picture, episode in zip(pictures, (0, 2, 4), strict=True):
        frame = dataset.frame("cam_high", dataset.episodes[episode].from_index)
        assert np.abs(picture.astype(int) - frame.astype(int)).mean() < 12
    assert described["fps"] == dataset.fps
    assert described["names"]["action"] == [f"joint_{index}" for index in range(14)]


def test_a_large_frame_becomes_a_few_kilobytes() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    data = training_frames._small(frame)
    assert len(data) < 20_000, "noise, the worst there is"


def checkpoint(path: Path, frames: object) -> Path:
    path.mkdir()
    (path / "training_frames").mkdir()
    (path / provenance.PROVENANCE).write_text(json.dumps({"frames": frames}))
    return path


def test_without_frames_there_are_none(tmp_path: Path) -> None:
    assert training_frames.read(tmp_path) == {}


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (["a.jpg"], "must list names by camera"),
        ({"cam": ["training_frames/../../x.jpg"]}, "no picture in"),
        ({"cam": ["/etc/passwd"]}, "no picture in"),
        ({"cam": [7]}, "no picture in"),
        ({"cam": ["training_frames/none.jpg"]}, "cannot be read"),
        ({"cam": ["training_frames/text.jpg"]}, "cannot be read"),
        ({"cam": ["training_frames/cut.jpg"]}, "cannot be read"),
        ({"cam": ["training_frames/wide.jpg"]}, "pixels large"),
        ({"cam": ["training_frames/long.jpg"]}, "bytes, more than"),
        ({"cam": ["training_frames/other.jpg"]}, "cannot be read"),
    ],
)
def test_what_is_no_small_picture_is_refused(tmp_path: Path, frames: object, said: str) -> None:
    path = checkpoint(tmp_path / "p", frames)
    folder = path / "training_frames"
    (folder / "text.jpg").write_text("hello")
    Image.new("RGB", (5000, 8)).save(folder / "wide.jpg")
    (folder / "long.jpg").write_bytes(bytes(300_000))
    Image.new("RGB", (8, 8)).save(folder / "other.jpg", "PNG")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:400])
    with pytest.raises(CheckpointError, match=said):
        training_frames.read(path)
