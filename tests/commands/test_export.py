"""aloha export: an engine of less precision is made from frames of a dataset, judged, and bound to its weights."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act import engine_files as files
from aloha_runtime.act.engine_choice import open_engine
from aloha_runtime.cli import app
from aloha_runtime.commands.export import export, read_frames
from aloha_runtime.config import policy_path
from aloha_runtime.data import DatasetWriter
from aloha_runtime.errors import CheckpointError, DatasetError
from aloha_runtime.robot import NAMES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the shipped policy's size, joints near where its own were."""
    path = tmp_path_factory.mktemp("data") / "dataset"
    write_dataset(path, (120, 160))
    return path


def write_dataset(path: Path, size: tuple[int, int], frames: int = 24) -> None:
    random = np.random.default_rng(0)
    names = {"observation.state": list(NAMES), "action": list(NAMES)}
    mean = ACTPolicy.from_pretrained(policy_path("demo")).normalizer.offset["observation.state"].numpy()
    picture = random.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with DatasetWriter.create(path, vectors=names, cameras={"cam_high": size}) as writer:
        for step in range(frames):
            state = mean + 0.02 * random.standard_normal(14).astype(np.float32)
            image = np.roll(picture, 2 * step, axis=1)
            writer.add_frame({"observation.state": state, "action": state, "observation.images.cam_high": image})
        writer.save_episode("nothing")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    ACTPolicy.from_pretrained(policy_path("demo")).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_int8_is_calibrated_judged_recorded_and_then_runs(
    checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "JUDGED_BOUND", 1e-9)
    with pytest.raises(CheckpointError, match=r"differs from eager by 0\.\d+ in normalised units"):
        export(str(checkpoint), "onnx-int8", dataset, threads=1)
    assert "onnx-int8 in" in capsys.readouterr().out
    policy = ACTPolicy.from_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match="has not been exported"):
        open_engine("onnx-int8", policy, checkpoint, threads=1)

    monkeypatch.setattr(files, "JUDGED_BOUND", 1.0)
    monkeypatch.setattr(files, "JUDGED_BOUND_MRAD", 1000.0)
    export(str(checkpoint), "onnx-int8", dataset, threads=1)
    record = files.read_record(files.home(checkpoint), "onnx-int8", files.digest(checkpoint))
    assert 0 < record.error.normalized_p99 <= record.error.normalized_max
    assert record.error.frames == 12
    frame = read_frames(policy.config, dataset)[5]
    difference = open_engine("onnx-int8", policy, checkpoint, threads=1).predict(frame) - np.asarray(
        policy.predict_action_chunk(frame)
    )
    assert 0 < np.abs(difference).max() < 1.0

    monkeypatch.setattr(files, "JUDGED_BOUND", record.error.normalized_p99 / 2)  # the record is judged at every start
    with pytest.raises(CheckpointError, match="differs from eager"):
        open_engine("onnx-int8", policy, checkpoint, threads=1)


def test_a_float32_graph_needs_no_frames(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert result.exit_code == 0, result.output
    assert (checkpoint / "engines" / "fp32.onnx").exists()


def test_what_is_missing_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--calibration DATASET"):
        export(str(checkpoint), "onnx-int8", None)
    with pytest.raises(CheckpointError, match="nothing to export for engine 'int8'"):
        export(str(checkpoint), "int8", None)
    config = ACTPolicy.from_pretrained(checkpoint).config
    write_dataset(tmp_path / "large", (240, 320))
    with pytest.raises(DatasetError, match="cam_high is 320x240, the policy's is 160x120"):
        read_frames(config, tmp_path / "large")
    write_dataset(tmp_path / "short", (120, 160), frames=4)
    with pytest.raises(DatasetError, match="4 frames"):
        read_frames(config, tmp_path / "short")
