"""Policies both ways with LeRobot 0.6.1: what we save gives the same actions there, what it saves gives the same here.

LeRobot opens and makes them through its own `from_pretrained` and processors, in an environment of its own.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from aloha_runtime.act import ACTConfig, ACTPolicy  # noqa: E402
from aloha_runtime.act.config import ENVIRONMENT_STATE, IMAGE_PREFIX, aloha_inputs, feature_type  # noqa: E402

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-interop/bin/python"
CAMERAS = {"cam_high": (64, 96), "cam_low": (64, 96)}
SMALL = {
    "chunk_size": 6, "n_action_steps": 6, "dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "latent_dim": 8,
    "n_encoder_layers": 2, "n_vae_encoder_layers": 2,
}  # fmt: skip
CASES = {
    "standard": {},
    "no_vae": {"use_vae": False},
    "env_state": {"cameras": {}, "environment_state": 7},
    "image_and_env_state": {"environment_state": 7},
    "prenorm_gelu": {"pre_norm": True, "feedforward_activation": "gelu"},
    "resnet50_dilated": {"vision_backbone": "resnet50", "replace_final_stride_with_dilation": True},
    "resnet34_min_max": {
        "vision_backbone": "resnet34",
        "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"},
    },
    "ensembled": {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1},
}


def shapes_and_fields(case):
    """Input shapes, and the other fields of the configuration."""
    fields = {**SMALL, **CASES[case]}
    return aloha_inputs(fields.pop("cameras", CAMERAS), fields.pop("environment_state", 0)), fields


def observations():
    random = np.random.default_rng(0)
    images = {f"{IMAGE_PREFIX}{name}": random.random((3, 3, *size), dtype=np.float32) for name, size in CAMERAS.items()}
    vectors = {"observation.state": random.normal(size=(3, 14)), ENVIRONMENT_STATE: random.normal(size=(3, 7))}
    return images | {name: value.astype(np.float32) for name, value in vectors.items()}


def our_policy(case):
    shapes, fields = shapes_and_fields(case)
    torch.manual_seed(1)
    random = np.random.default_rng(1)
    stats = {}
    for name, shape in {**shapes, "action": (14,)}.items():
        size = (3, 1, 1) if len(shape) == 3 else shape
        mean, std = (torch.tensor(random.uniform(0.2, 1, size), dtype=torch.float32) for _ in range(2))
        stats[name] = {"mean": mean, "std": std, "min": mean - std, "max": mean + std}
    return ACTPolicy(ACTConfig(input_shapes=shapes, pretrained_backbone=False, **fields), stats).eval()


def our_actions(policy):
    return policy.predict_action_chunk(
        {name: torch.from_numpy(value) for name, value in observations().items() if name in policy.config.input_shapes}
    ).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The policies of both sides, and what LeRobot made of them in `actions.npz`; or skip."""
    if not PYTHON.exists():
        pytest.skip(f"no LeRobot environment: {PYTHON.relative_to(ROOT)} is missing (make interop)")
    probe = subprocess.run(
        [PYTHON, "-c", "import lerobot.policies.act.modeling_act"], capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"LeRobot's policies cannot be imported there: {probe.stderr.strip().splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("policies")
    wanted = {}
    for case in CASES:
        our_policy(case).save_pretrained(folder / "ours" / case)
        shapes, fields = shapes_and_fields(case)
        features = {name: {"type": feature_type(name), "shape": shape} for name, shape in shapes.items()}
        wanted[case] = {**fields, "features": features | {"action": {"type": "ACTION", "shape": (14,)}}}
    (folder / "wanted.json").write_text(json.dumps(wanted))
    np.savez(folder / "observations.npz", **observations())
    script = Path(__file__).with_name("lerobot_policy.py")
    environment = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    finished = subprocess.run(
        [PYTHON, script, folder, folder / "actions.npz"], capture_output=True, text=True, check=False, env=environment
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_lerobot_opens_ours_and_acts_the_same(folder, case):
    theirs = np.load(folder / "actions.npz")[f"ours/{case}"]
    ours = our_actions(our_policy(case))
    assert np.ptp(ours, axis=0).max() > 1e-2, "the actions must depend on the observation for this to show anything"
    np.testing.assert_allclose(theirs, ours, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_what_lerobot_saves_acts_the_same_here(folder, case):
    theirs = np.load(folder / "actions.npz")[f"theirs/{case}"]
    policy = ACTPolicy.from_pretrained(folder / "theirs" / case)
    ours = our_actions(policy)
    assert np.ptp(ours, axis=0).max() > 1e-2
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
