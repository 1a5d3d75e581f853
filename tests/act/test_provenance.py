"""provenance.json: what is known of a policy lies beside it, and comes back as it went in."""

from datetime import datetime
from pathlib import Path

import pytest
import small_policy as small
import torch

import aloha_runtime
from aloha_runtime import config
from aloha_runtime.act import ACTPolicy, provenance
from aloha_runtime.data import recorded, reports
from aloha_runtime.errors import CheckpointError


def test_what_is_known_comes_back(tmp_path: Path) -> None:
    small.write_dataset(tmp_path / "dataset", episodes=2, length=4)
    parts = {
        "dataset": provenance.dataset(tmp_path / "dataset"),
        "rig": {"kit": "aloha", "cameras": {"cam_high": [480, 640]}},
        "calibration": {"follower_left": [0.0, 0.1]},
        "training": {"settings": {"steps": 10, "dataset": str(tmp_path)}, "validation": {"l1": 0.25}},
    }
    ACTPolicy(small.config(), small.stats()).save_pretrained(tmp_path / "policy", **parts)
    read = provenance.read(tmp_path / "policy")
    assert {name: read[name] for name in parts} == parts
    assert read["code"]["aloha_runtime"] == aloha_runtime.__version__
    assert read["code"]["torch"] == torch.__version__
    assert datetime.fromisoformat(read["written"]).tzinfo is not None
    assert parts["dataset"]["total_episodes"] == 2


def test_plain_save_says_what_it_knows(tmp_path: Path) -> None:
    ACTPolicy(small.config(), small.stats()).save_pretrained(tmp_path)
    assert set(provenance.read(tmp_path)) == {"code", "written"}
    (tmp_path / provenance.PROVENANCE).unlink()
    assert provenance.read(tmp_path) == {}
    ACTPolicy.from_pretrained(tmp_path)


def test_another_recording_has_another_fingerprint(tmp_path: Path) -> None:
    for name, length in (("a", 4), ("b", 5)):
        small.write_dataset(tmp_path / name, episodes=1, length=length)
    first, again, other = (provenance.dataset(tmp_path / name)["fingerprint"] for name in ("a", "a", "b"))
    assert first == again != other
    with pytest.raises(CheckpointError, match="is not a LeRobot dataset"):
        provenance.dataset(tmp_path)


def test_unknown_part_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="provenance has no part datset"):
        provenance.write(tmp_path, datset={})


def test_a_recorded_dataset_says_on_which_rig(tmp_path: Path) -> None:
    recorded.create(tmp_path / "dataset", config.load("aloha2"))
    before = provenance.dataset(tmp_path / "dataset")["fingerprint"]
    found = provenance.recorded_on(tmp_path / "dataset")
    assert found["rig"]["kit"] == "aloha2"
    assert found["rig"]["cameras"]["cam_high"]["serial"] == "000000000001"
    assert found["calibration"]["grippers"]["follower_left"]["angle_open"] == 1.6214
    assert "grippers" not in found["rig"]
    (tmp_path / "dataset" / reports.RIG_PATH).unlink()
    assert provenance.recorded_on(tmp_path / "dataset") == {}
    assert provenance.dataset(tmp_path / "dataset")["fingerprint"] == before, "of what is learned from alone"
