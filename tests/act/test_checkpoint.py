"""LeRobot policy directories: round trips, LeRobot's own samples, and one clear message for everything damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import reference_vectors as vectors
import small_policy as small
import torch
from safetensors.torch import load_file, save_file

from aloha_runtime.act import ACTPolicy, checkpoint, header, provenance
from aloha_runtime.act.config import ACTION, STATE
from aloha_runtime.act.pipeline_save import STATE_AFTER, STATE_BEFORE
from aloha_runtime.errors import CheckpointError

SAMPLES = vectors.DATA / "lerobot_checkpoint"


@pytest.mark.parametrize("name", ["tiny", "env_state", "prenorm_gelu", "image_and_env_state"])
def test_directory_of_lerobot_loads_and_gives_its_actions(name: str, tmp_path: Path) -> None:
    vector = vectors.load(name)
    directory = tmp_path / name
    shutil.copytree(SAMPLES / name, directory)
    made = vector.policy.state_dict()
    save_file({key: value.contiguous() for key, value in made.items()}, directory / header.WEIGHTS)
    policy = ACTPolicy.from_pretrained(directory)
    assert not policy.training
    actual = policy.predict_action_chunk(vector.observation(slice(0, 4)))
    torch.testing.assert_close(actual, torch.from_numpy(vector.arrays["chunks"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", vectors.NAMES)
def test_what_we_write_is_what_lerobot_writes(name: str, tmp_path: Path) -> None:
    sample = SAMPLES / name
    stats = checkpoint.load_stats(sample)
    checkpoint.save(tmp_path, header.load_config(sample), {"weight": torch.zeros(1)}, stats)
    for path in sorted(sample.iterdir()):
        if path.suffix == ".json":
            assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text()), path.name
        else:
            ours, theirs = load_file(tmp_path / path.name), load_file(path)
            assert set(ours) == set(theirs)
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    ours = {header.WEIGHTS, provenance.PROVENANCE}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in sample.iterdir()} | ours


def test_small_policy_survives_a_round_trip(saved: Path) -> None:
    torch.manual_seed(0)
    policy = ACTPolicy(small.config(), small.stats()).eval()
    loaded = ACTPolicy.from_pretrained(saved)
    assert loaded.config == policy.config
    expected = policy.predict_action_chunk(small.observation())
    assert torch.equal(loaded.predict_action_chunk(small.observation()), expected)
    assert (saved / header.OURS).exists()


def test_saving_over_an_older_policy_leaves_none_of_its_files(saved: Path) -> None:
    vector = vectors.load("env_state")
    vector.policy.save_pretrained(saved)
    assert not (saved / header.OURS).exists()
    assert not list(saved.glob("*.tmp"))
    ACTPolicy.from_pretrained(saved)


def _rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _reweigh(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


HEAD = "model.action_head.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (shutil.rmtree, "does not exist"),
    "a file": (lambda d: (shutil.rmtree(d), d.write_text("")), "is a file"),
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json; it is not a LeRobot policy"),
    "broken config": (lambda d: (d / "config.json").write_text('{"type": "act", '), "cannot be read as JSON"),
    "binary config": (lambda d: (d / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
    "list config": (lambda d: (d / "config.json").write_text("[1]"), "does not hold a JSON object"),
    "other kind": (lambda d: _rewrite(d / "config.json", lambda c: c.update(type="diffusion")), "'diffusion'"),
    "no features": (lambda d: _rewrite(d / "config.json", lambda c: c.pop("input_features")), "no input_features"),
    "bad feature": (
        lambda d: _rewrite(d / "config.json", lambda c: c.update(input_features={"observation.state": {}})),
        "wrong form",
    ),
    "bad value": (lambda d: _rewrite(d / "config.json", lambda c: c.update(n_heads=3)), "dim_model = 32"),
    "bad type": (lambda d: _rewrite(d / "config.json", lambda c: c.update(dropout="much")), "wrong form"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
    "truncated weights": (lambda d: _truncate(d / "model.safetensors"), "truncated or not a safetensors file"),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "truncated or not a safetensors file"),
    "pickle as weights": (
        lambda d: (d / "model.safetensors").write_bytes(b"\x80\x04}\x94\x8c\x01a\x94K\x01s."),
        "truncated or not a safetensors file",
    ),
    "missing tensor": (lambda d: _reweigh(d / "model.safetensors", lambda t: t.pop(HEAD)), f"missing, such as {HEAD}"),
    "extra tensor": (
        lambda d: _reweigh(d / "model.safetensors", lambda t: t.update(strange=torch.zeros(1))),
        "not known, such as strange",
    ),
    "wrong shape": (
        lambda d: _reweigh(d / "model.safetensors", lambda t: t.update({HEAD: torch.zeros(7, 32)})),
        f"{HEAD} (7, 32) instead of (14, 32)",
    ),
    "not finite": (
        lambda d: _reweigh(d / "model.safetensors", lambda t: t[HEAD][3, 5].fill_(torch.nan)),  # one of many
        "not finite",
    ),
    "no pipeline": (lambda d: (d / "policy_preprocessor.json").unlink(), "no statistics to normalise with"),
    "no statistics": (lambda d: (d / STATE_BEFORE).unlink(), "is missing"),
    "truncated statistics": (lambda d: _truncate(d / STATE_AFTER), "truncated"),
    "statistics lack a feature": (
        lambda d: _reweigh(d / STATE_BEFORE, lambda t: t.pop("observation.state.std")),
        "lack observation.state.std",
    ),
    "statistics of another size": (
        lambda d: _reweigh(d / STATE_AFTER, lambda t: t.update({"action.std": torch.ones(7)})),
        "action.std has shape (7,), must be (14,)",
    ),
    "statistics not finite": (
        lambda d: _reweigh(d / STATE_AFTER, lambda t: t["action.mean"][3].fill_(torch.inf)),
        "action.mean is not finite",
    ),
    "no normalizer step": (lambda d: _rewrite(d / "policy_preprocessor.json", lambda c: c.update(steps=[])), "damaged"),
    "state file elsewhere": (
        lambda d: _rewrite(
            d / "policy_preprocessor.json", lambda c: c["steps"][3].update(state_file="../../other.safetensors")
        ),
        "must be a name inside the directory",
    ),
    "renamed inputs": (
        lambda d: _rewrite(
            d / "policy_preprocessor.json", lambda c: c["steps"][0]["config"].update(rename_map={"a": STATE})
        ),
        f"renames a to {STATE}",
    ),
    "our own file": (lambda d: _rewrite(d / "aloha.json", lambda c: c.update(estimate=3)), "unknown keys: estimate"),
    "no file of our own": (lambda d: (d / "aloha.json").unlink(), "does not fit config.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_has_one_clear_message(saved: Path, damage: str) -> None:
    harm, words = DAMAGES[damage]
    harm(saved)
    with pytest.raises(CheckpointError) as caught:
        ACTPolicy.from_pretrained(saved)
    message = str(caught.value)
    assert words in message
    assert str(saved) in message
    assert "\n" not in message


def test_training_run_is_pointed_to_its_policy(tmp_path: Path, saved: Path) -> None:
    inner = tmp_path / "run" / "checkpoints" / "000100" / "pretrained_model"
    inner.parent.mkdir(parents=True)
    saved.rename(inner)
    with pytest.raises(CheckpointError, match=r"did you mean .*000100/pretrained_model"):
        ACTPolicy.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        ({"cam_low": (48, 64)}, "needs camera 'cam_high', the rig has: cam_low"),
        ({}, "the rig has: none"),
        ({"cam_high": (480, 640)}, "trained on 64x48 images of 'cam_high', the rig delivers 640x480"),
    ],
)
def test_checkpoint_for_other_cameras_is_refused(saved: Path, cameras: dict[str, tuple[int, int]], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        ACTPolicy.from_pretrained(saved, cameras=cameras)


def test_rig_may_have_more_cameras_than_the_policy(saved: Path) -> None:
    cameras = {"cam_low": (480, 640), "cam_high": (small.HEIGHT, small.WIDTH)}
    assert ACTPolicy.from_pretrained(saved, cameras=cameras).config.cameras == {"cam_high": (48, 64)}


def test_actions_are_unnormalised_with_the_statistics_of_the_postprocessor(saved: Path) -> None:
    expected = ACTPolicy.from_pretrained(saved).predict_action_chunk(small.observation())
    _reweigh(saved / STATE_AFTER, lambda t: t["action.mean"].add_(1.0))
    moved = ACTPolicy.from_pretrained(saved).predict_action_chunk(small.observation())
    torch.testing.assert_close(moved, expected + 1, atol=1e-5, rtol=0)
    assert small.stats()[ACTION]["mean"].shape == (14,)
