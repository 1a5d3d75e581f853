"""Processor pipelines both ways with LeRobot 0.6.1: each step gives the same numbers, and policies the same actions."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from test_lerobot_checkpoint import PYTHON, SMALL  # noqa: E402
from test_lerobot_dataset import lerobot_python  # noqa: E402, F401 — a fixture

from aloha_runtime.act import ACTPolicy  # noqa: E402

HIGH, LOW, STATE = "observation.images.cam_high", "observation.images.cam_low", "observation.state"
NAMES = [f"{side}_{joint}" for side in ("left", "right") for joint in (*"abcdef", "gripper")]
CROP = {"registry_name": "image_crop_resize_processor"}
RELATIVE = {"registry_name": "relative_actions_processor"}
ABSOLUTE = {"registry_name": "absolute_actions_processor", "config": {"enabled": True}}
NORMALIZE, UNNORMALIZE = "normalizer_processor", "unnormalizer_processor"


def normalized(**settings):
    """Both normalising steps with these settings."""
    return {NORMALIZE: settings, UNNORMALIZE: settings}


CASES = {
    "default": {},
    "other norm_map": normalized(norm_map={"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}),
    "nothing normalised": normalized(norm_map={}),
    "quantiles": normalized(norm_map={"VISUAL": "MEAN_STD", "STATE": "QUANTILES", "ACTION": "QUANTILES"}),
    "quantile10": normalized(norm_map={"VISUAL": "MEAN_STD", "STATE": "QUANTILE10", "ACTION": "QUANTILE10"}),
    "only the actions back": {UNNORMALIZE: {"norm_map": {"ACTION": "MIN_MAX"}}},
    "eps": normalized(eps=0.1),
    "eps where a joint rests": normalized(eps=0.1, norm_map={"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}) | {"rests": 3},
    "only one key": {NORMALIZE: {"normalize_observation_keys": [HIGH]}},
    "a feature left out": {NORMALIZE: {"features": {LOW: {"type": "VISUAL", "shape": [3, 64, 96]}}}},
    "renamed": {"rename_observations_processor": {"rename_map": {"observation.images.top": HIGH, "unused": "other"}}},
    "exchanged": {"rename_observations_processor": {"rename_map": {LOW: HIGH, HIGH: LOW}}},
    "crop": {"before": [CROP | {"config": {"crop_params_dict": {HIGH: [8, 16, 40, 64]}, "resize_size": None}}]},
    "resize": {"before": [CROP | {"config": {"crop_params_dict": None, "resize_size": [48, 40]}}]},
    "crop and enlarge": {
        "before": [CROP | {"config": {"crop_params_dict": {LOW: [0, 0, 33, 70]}, "resize_size": [80, 112]}}]
    },
    "relative": {"before": [RELATIVE | {"config": {"enabled": True, "exclude_joints": []}}], "after": [ABSOLUTE]},
    "relative but grippers": {
        "before": [
            RELATIVE | {"config": {"enabled": True, "exclude_joints": ["Gripper"], "action_names": NAMES}},
        ],
        "after": [ABSOLUTE],
    },
    "relative switched off": {"before": [RELATIVE | {"config": {"enabled": False, "exclude_joints": ["gripper"]}}]},
    "all at once": {
        "rename_observations_processor": {"rename_map": {"observation.images.top": LOW}},
        "before": [
            CROP | {"config": {"crop_params_dict": {LOW: [4, 4, 50, 80]}, "resize_size": [64, 64]}},
            RELATIVE | {"config": {"enabled": True, "exclude_joints": ["gripper"], "action_names": NAMES}},
        ],
        "after": [ABSOLUTE],
        **normalized(eps=1e-4, norm_map={"VISUAL": "MIN_MAX", "STATE": "QUANTILES", "ACTION": "MEAN_STD"}),
    },
    "inputs without weights": {"extra": {f"observation.{name}": [14] for name in ("velocity", "effort", "tactile")}},
}


def features(case):
    vectors = {STATE: [14], **case.get("extra", {})}
    return {
        HIGH: {"type": "VISUAL", "shape": [3, 64, 96]},
        LOW: {"type": "VISUAL", "shape": [3, 64, 96]},
        **{name: {"type": "STATE", "shape": shape} for name, shape in vectors.items()},
        "action": {"type": "ACTION", "shape": [14]},
    }


def statistics(case, seed):
    random, stats = np.random.default_rng(seed), {}
    for name, feature in features(case).items():
        size = (3, 1, 1) if feature["type"] == "VISUAL" else (14,)
        mean, std = random.uniform(0.2, 0.8, size), random.uniform(0.3, 0.6, size)
        kept = {"mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std}
        kept |= {"q01": mean - 1.9 * std, "q99": mean + 1.8 * std, "q10": mean - 1.1 * std, "q90": mean + std}
        if "rests" in case and feature["type"] != "VISUAL":
            kept["max"][case["rests"]] = kept["min"][case["rests"]]
        stats[name] = {key: value.tolist() for key, value in kept.items()}
    return stats


def observations():
    random = np.random.default_rng(0)
    images = {name: random.random((3, 3, 64, 96), dtype=np.float32) for name in (HIGH, LOW, "observation.images.top")}
    names = (STATE, "observation.velocity", "observation.effort", "observation.tactile")
    return images | {name: random.normal(size=(3, 14)).astype(np.float32) for name in names}


pytestmark = pytest.mark.timeout(900)
"""LeRobot alone takes a minute to import on a busy machine."""


@pytest.fixture(scope="module")
def folder(lerobot_python, tmp_path_factory):  # noqa: F811
    """`theirs/` as LeRobot wrote it, `ours/` as we saved it again, and what LeRobot makes of both."""
    folder = tmp_path_factory.mktemp("pipelines")
    cases = {}
    for seed, (name, case) in enumerate(CASES.items()):
        cases[name] = {**case, "config": {**SMALL, "features": features(case)}, "stats": statistics(case, seed)}
    (folder / "cases.json").write_text(json.dumps(cases))
    np.savez(folder / "observations.npz", **observations())
    np.save(folder / "actions.npy", np.random.default_rng(9).normal(size=(1, 6, 14)).astype(np.float32))
    environment = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    for mode in ("make", "open"):
        script = Path(__file__).with_name("lerobot_pipelines.py")
        command = [PYTHON, script, folder, mode, folder / f"{mode}.npz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-4000:]
        if mode == "make":
            for name in CASES:
                save_again(folder / "theirs" / name, folder / "ours" / name)
    return folder


def save_again(theirs, saved):
    """Our copy of a policy; its weights, which are the same for all, are stored once."""
    weights = theirs / "model.safetensors"
    ACTPolicy.from_pretrained(theirs).save_pretrained(saved)
    copied = saved / weights.name
    before, after = load_file(weights), load_file(copied)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    copied.unlink()
    os.link(weights, copied)


def ours(directory, processed):
    """What goes into the network, what becomes of a chunk of its own, and the policy's actions, as LeRobot's script."""
    policy = ACTPolicy.from_pretrained(directory)
    seen = {
        name: torch.from_numpy(value) for name, value in observations().items() if name in policy.config.input_shapes
    }
    batch, _ = policy._normalized(seen)
    own = torch.from_numpy(processed).expand(3, -1, -1)
    rows = {name: value.numpy() for name, value in batch.items()}
    rows["action"] = policy._absolute(policy.normalizer.unnormalize_action(own), seen).numpy()
    return rows | {"chunk": policy.predict_action_chunk(seen).numpy()}, policy.processing.renamed


@pytest.mark.parametrize("case", CASES)
def test_every_step_and_every_action_is_lerobots(folder, case):
    theirs = {key.removeprefix(f"{case}/"): value for key, value in np.load(folder / "make.npz").items()
              if key.startswith(f"{case}/")}  # fmt: skip
    made, renamed = ours(folder / "theirs" / case, np.load(folder / "actions.npy"))
    assert np.ptp(theirs["chunk"], axis=0).max() > 1e-3, "the actions must depend on the observation to show anything"
    np.testing.assert_allclose(made.pop("chunk"), theirs["chunk"], atol=1e-4, rtol=0)
    names = {renamed.get(name, name): name for name in theirs}
    assert len(made) == 4
    for name, value in made.items():
        np.testing.assert_allclose(value, theirs[names[name]], atol=1e-6, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_lerobot_opens_what_we_save_and_acts_the_same(folder, case):
    expected, _ = ours(folder / "theirs" / case, np.load(folder / "actions.npy"))
    theirs = np.load(folder / "open.npz")
    np.testing.assert_allclose(theirs[f"{case}/chunk"], expected["chunk"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(theirs[f"{case}/action"], expected["action"], atol=1e-6, rtol=1e-6)
