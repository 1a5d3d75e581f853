"""What we record, `lerobot-train` trains on, and its checkpoint opens here and fits the rig: one chain of programs."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_lerobot_dataset import ROOT, image, lerobot_python  # noqa: E402, F401 — a fixture

from aloha_runtime import config  # noqa: E402
from aloha_runtime.act import ACTPolicy  # noqa: E402
from aloha_runtime.act.header import load_header  # noqa: E402
from aloha_runtime.commands.findings import Level  # noqa: E402
from aloha_runtime.commands.preflight_checks import examine  # noqa: E402
from aloha_runtime.data import ending  # noqa: E402
from aloha_runtime.data.recorded import INTERVENTION, create, vectors  # noqa: E402
from aloha_runtime.data.writer import DatasetWriter  # noqa: E402

pytestmark = pytest.mark.timeout(900)

SIZES = {
    "chunk_size": 6, "n_action_steps": 6, "dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "latent_dim": 8,
    "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "pretrained_backbone_weights": "null", "device": "cpu",
    "push_to_hub": "false",
}  # fmt: skip
RIG = config.load("sim")


def record(path: Path) -> None:
    """Two episodes with every column that `aloha record` writes for the simulated rig."""
    create(path, RIG)
    random = np.random.default_rng(0)
    columns = vectors(list(RIG.cameras))
    height, width = next((camera.height, camera.width) for camera in RIG.cameras.values())
    picture = np.resize(image(0), (height, width, 3))
    with DatasetWriter.open(path) as writer:
        for _ in range(2):
            for _ in range(12):
                end = ending.UNKNOWN | {INTERVENTION: np.zeros(1, np.bool_)}
                frame = {name: random.uniform(0, 1, len(names)).astype(np.float32) for name, names in columns.items()}
                writer.add_frame(frame | end | {f"observation.images.{camera}": picture for camera in RIG.cameras})
            writer.save_episode("hold still")


@pytest.fixture(scope="module")
def trained(lerobot_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("trained")
    record(folder / "data")
    policy = [f"--policy.{name}={value}" for name, value in SIZES.items()]
    command = [
        lerobot_python.with_name("lerobot-train"), f"--dataset.root={folder / 'data'}", "--dataset.repo_id=local/data",
        "--policy.type=act", *policy, f"--output_dir={folder / 'run'}", "--steps=2", "--batch_size=2",
        "--num_workers=0", "--save_freq=2", "--wandb.enable=false", "--dataset.video_backend=pyav",
    ]  # fmt: skip
    environment = {
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "run/checkpoints/last/pretrained_model"


def test_what_lerobot_trains_on_our_recordings_fits_the_rig(trained: Path) -> None:
    listed = json.loads((trained / "config.json").read_text())["input_features"]
    assert {"observation.velocity", "observation.effort"} <= set(listed), "LeRobot lists every vector as an input"
    assert set(load_header(trained).dropped) == {"observation.velocity", "observation.effort"}
    policy = ACTPolicy.from_pretrained(trained)
    assert set(policy.config.input_shapes) == {"observation.images.cam_high", "observation.state"}
    loaded, found = examine(trained, RIG)
    assert loaded is not None
    assert [str(finding) for finding in found if finding.level is Level.FAIL] == []
    shown = {finding.check: finding.value for finding in found}
    assert "normalizer_processor (" in shown["steps.before"]
    assert "observation.effort" in shown["inputs.dropped"]
    seen = {name: np.zeros(shape, np.float32) for name, shape in policy.config.input_shapes.items()}
    assert policy.predict_action_chunk(seen).shape == (6, 14)
