"""The stage between a camera and everybody who looks at it."""

from types import SimpleNamespace

import numpy as np
import pytest

from aloha_runtime import config
from aloha_runtime.act.header import check_cameras
from aloha_runtime.act.observe import camera_sizes, refuse_inputs
from aloha_runtime.config import CameraConfig
from aloha_runtime.config_cameras import PictureStage
from aloha_runtime.data import Dataset, recorded
from aloha_runtime.errors import CheckpointError
from aloha_runtime.hardware.base import CameraFrame
from aloha_runtime.hardware.picture import staged, with_stage
from aloha_runtime.processes import camera as process


def numbered(height: int = 4, width: int = 6) -> np.ndarray:
    """Every pixel tells where it is: (row, column, 0)."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("stage", "corner", "shape"),
    [
        ({}, (0, 0), (4, 6)),
        ({"rotate": 90}, (3, 0), (6, 4)),  # clockwise: the lower left corner comes to the upper left
        ({"rotate": 180}, (3, 5), (4, 6)),
        ({"rotate": 270}, (0, 5), (6, 4)),
        ({"flip": "horizontal"}, (0, 5), (4, 6)),
        ({"flip": "vertical"}, (3, 0), (4, 6)),
        ({"rotate": 90, "flip": "vertical"}, (3, 5), (6, 4)),
    ],
)
def test_where_the_upper_left_corner_comes_from(stage, corner, shape):
    found = PictureStage(**stage)
    image = staged(numbered(), found)
    assert tuple(image[0, 0, :2]) == corner
    assert image.shape == (*shape, 3) == (*found.result(4, 6), 3)
    assert image.flags.c_contiguous


def test_the_crop_is_that_of_the_turned_picture_and_the_size_comes_last():
    stage = PictureStage(rotate=90, crop=(2, 5, 16, 20), resize=(32, 40))
    cut = staged(numbered(30, 40), PictureStage(rotate=90, crop=(2, 5, 16, 20)))
    assert cut.shape == (20, 16, 3)
    assert tuple(cut[0, 0, :2]) == (30 - 1 - 2, 5), "row 5, column 2 of the picture turned clockwise"
    assert staged(numbered(30, 40), stage).shape == (40, 32, 3) == (*stage.result(30, 40), 3)


def test_shrinking_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (staged(stripes, PictureStage(resize=(16, 16))) == 100).all(), "no pattern that the scene does not have"


def camera(**entries) -> CameraConfig:
    return CameraConfig(type="sim", width=640, height=480, **entries)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"crop": (200, 0, 480, 480)}, r"crop \[200, 0, 480, 480\] .* reaches beyond the picture of 640x480"),
        ({"rotate": 90, "crop": (0, 0, 481, 16)}, "beyond the picture of 480x640"),
        ({"white_balance_k": 4600}, "no controls: leave `white_balance_k` out"),
        ({"exposure": None, "gain": 3}, "`gain` needs a fixed `exposure`"),
        ({"rotate": 45}, "rotate"),
    ],
)
def test_what_cannot_be_is_refused(entries, words):
    with pytest.raises(ValueError, match=words):
        camera(**entries)


class Source:
    """A camera of 640x480 that shows the same picture for ever."""

    name, identical_frames, controls = "cam_high", 0, {"gain": 3.0}

    def connect(self): ...

    def disconnect(self): ...

    def read(self, _):
        return CameraFrame(1, numbered(480, 640), 1)


SQUARE = {"crop": (80, 0, 480, 480), "resize": (224, 224)}


def rig(**entries):
    return config.load("sim").model_copy(update={"cameras": {"cam_high": camera(**entries)}})


class Look:
    """As much of a policy's configuration as decides which cameras it needs."""

    def __init__(self, size):
        self.cameras, self.input_shapes = {"cam_high": size}, {}


def test_a_policy_of_224x224_runs_on_a_camera_of_640x480(tmp_path, monkeypatch):
    """What the camera process publishes, what a dataset holds and what a policy is given have one size."""
    staged_rig = rig(**SQUARE)
    refuse_inputs(Look((224, 224)), tmp_path, staged_rig)
    with pytest.raises(CheckpointError, match=r"224x224 .* the rig delivers 640x480; set `resize: \[224, 224\]`"):
        check_cameras(Look((224, 224)), camera_sizes(rig()), tmp_path)

    recorded.create(tmp_path / "dataset", staged_rig)
    assert Dataset(tmp_path / "dataset").cameras == {"cam_high": (224, 224)}
    stored = recorded.described(staged_rig)["cameras"]["cam_high"]
    assert (stored["crop"], stored["resize"]) == ([80, 0, 480, 480], [224, 224]), "checkpoints get this, too"
    assert "crop" not in recorded.described(rig())["cameras"]["cam_high"], "as datasets of older versions say it"

    service = SimpleNamespace(instance="cam_high", rig=staged_rig)
    monkeypatch.setattr(process, "_source", lambda _: Source())
    shown = process.build(service)
    assert (shown.name, shown.controls, shown.identical_frames) == ("cam_high", {"gain": 3.0}, 0)
    image = shown.read(0).image
    assert image.shape == (224, 224, 3)
    assert np.array_equal(image, staged(numbered(480, 640), PictureStage(**SQUARE)))


def test_a_camera_without_a_stage_is_passed_through():
    source = Source()
    assert with_stage(source, PictureStage()) is source


def test_a_camera_that_is_only_recorded_is_given_to_no_policy(tmp_path):
    hidden = rig(recorded_only=True)
    with pytest.raises(CheckpointError, match="needs camera 'cam_high', which rig sim only records"):
        refuse_inputs(Look((480, 640)), tmp_path, hidden)
    recorded.create(tmp_path / "dataset", hidden)
    assert Dataset(tmp_path / "dataset").cameras == {"cam_high": (480, 640)}
    assert recorded.recorded_only(tmp_path / "dataset") == {"cam_high"}
    assert recorded.recorded_only(tmp_path) == set()
