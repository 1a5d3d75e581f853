"""A camera that the rig only recorded is no input of a policy, unless somebody names it."""

import json
from pathlib import Path

import numpy as np

from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.data import DatasetWriter, reports
from aloha_runtime.robot import NAMES

CAMERAS = {"cam_high": (16, 16), "cam_room": (16, 16)}


def test_training_leaves_out_what_was_only_recorded(tmp_path: Path) -> None:
    path, said = tmp_path / "dataset", []
    vectors = {"observation.state": list(NAMES), "action": list(NAMES)}
    with DatasetWriter.create(path, vectors=vectors, cameras=CAMERAS) as writer:
        for index in range(4):
            numbers = np.full(14, 0.1 * index, np.float32)
            picture = np.random.default_rng(index).integers(0, 255, (16, 16, 3), np.uint8)
            pictures = {f"observation.images.{name}": picture for name in CAMERAS}
            writer.add_frame({"observation.state": numbers, "action": numbers, **pictures})
        writer.save_episode("wave")
    (path / reports.DIRECTORY).mkdir(parents=True, exist_ok=True)
    (path / reports.RIG_PATH).write_text(json.dumps({"cameras": {"cam_high": {}, "cam_room": {"recorded_only": True}}}))
    assert list(TrainingData(path, None, tmp_path / "cache", said.append).cameras) == ["cam_high"]
    assert "left out, because the rig only recorded them: cam_room" in said[0]
    named = TrainingData(path, ["cam_room", "cam_high"], tmp_path / "cache", said.append)
    assert list(named.cameras) == ["cam_room", "cam_high"]
