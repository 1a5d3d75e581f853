"""Checkpoints of the original ACT code: what is converted gives the same actions, and what is not is named."""

import functools
import json
import pickle  # noqa: TID251 - makes the files, never opens one
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import ACTION, STATE, aloha_inputs
from aloha_runtime.act.original import IMAGENET_MEAN, IMAGENET_STD, NAMES, convert
from aloha_runtime.cli import app
from aloha_runtime.errors import CheckpointError

CAMERAS = {"cam_high": (64, 96), "cam_low": (64, 96)}
SIZES: dict[str, Any] = {
    "chunk_size": 6, "dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "n_encoder_layers": 2,
    "n_vae_encoder_layers": 3, "latent_dim": 8, "pretrained_backbone": False,
}  # fmt: skip


@functools.cache
def make_policy(**changes: Any) -> ACTPolicy:
    """A policy with random weights, as the original would have trained it."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    stats = {
        name: {key: torch.tensor(random.uniform(0.01, 1, 14), dtype=torch.float32) for key in ("mean", "std")}
        for name in (STATE, ACTION)
    }
    stats[ACTION]["std"][3] = 0.01
    rgb = {"mean": torch.tensor(IMAGENET_MEAN).view(3, 1, 1), "std": torch.tensor(IMAGENET_STD).view(3, 1, 1)}
    stats |= {f"observation.images.{name}": rgb for name in CAMERAS}
    return ACTPolicy(ACTConfig(input_shapes=aloha_inputs(CAMERAS), **{**SIZES, **changes}), stats).eval()


def as_original(policy: ACTPolicy) -> dict[str, Tensor]:
    """The state dict that the original code would save: seven decoder layers, and a head for padding."""
    state: dict[str, Tensor] = {}
    for name, value in policy.state_dict().items():
        bare = name.removeprefix("model.")
        old = next(old + bare.removeprefix(new) for old, new in NAMES if bare.startswith(new))
        state[f"model.{old}"] = value
        if ".decoder.layers.0." in old:
            for layer in range(1, 7):
                state[f"model.{old.replace('layers.0', f'layers.{layer}')}"] = torch.randn_like(value)
    dim = policy.config.dim_model
    return state | {"model.is_pad_head.weight": torch.randn(1, dim), "model.is_pad_head.bias": torch.randn(1)}


def stats_of(policy: ACTPolicy) -> dict[str, Any]:
    return {
        f"{theirs}_{key}": policy.normalizer.stats[feature][key].numpy()
        for feature, theirs in ((STATE, "qpos"), (ACTION, "action"))
        for key in ("mean", "std")
    } | {"example_qpos": np.zeros((5, 14), np.float32)}


def write(folder: Path, state: Any, stats: Any) -> tuple[Path, Path]:
    torch.save(state, folder / "policy_best.ckpt")
    (folder / "dataset_stats.pkl").write_bytes(pickle.dumps(stats))
    return folder / "policy_best.ckpt", folder / "dataset_stats.pkl"


def observation() -> dict[str, Any]:
    random = np.random.default_rng(1)
    images = {f"observation.images.{name}": random.integers(0, 256, (*CAMERAS[name], 3), np.uint8) for name in CAMERAS}
    return {**images, STATE: random.uniform(-1, 1, 14).astype(np.float32)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"pre_norm": True, "vision_backbone": "resnet34"}, {"vision_backbone": "resnet50"}],
    ids=lambda changes: "_".join(map(str, changes.values())) or "standard",
)
def test_converted_policy_gives_exactly_the_same_actions(changes: dict[str, Any], tmp_path: Path) -> None:
    policy = make_policy(**changes)
    source, stats = write(tmp_path, as_original(policy), stats_of(policy))
    converted = convert(source, stats, CAMERAS, n_heads=4, image_size=(64, 96))
    assert converted.policy.config == policy.config
    assert torch.equal(converted.policy.predict_action_chunk(observation()), policy.predict_action_chunk(observation()))


def test_command_says_what_was_dropped_and_writes_a_whole_policy(tmp_path: Path) -> None:
    policy = make_policy()
    source, stats = write(tmp_path, as_original(policy), stats_of(policy))
    out = tmp_path / "converted"
    command = ["convert", "checkpoint", source, out, "--stats", stats, "--cameras", "cam_high,cam_low"]
    command += ["--n-heads", 4, "--height", 64, "--width", 96]
    result = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert result.exit_code == 0
    for said in (
        "chunks of 6 actions, 96x64 images of cam_high, cam_low",
        "dropped is_pad_head",
        "dropped decoder layers 1 to 6",
        "1 of 14 deviations of action are at the original's floor of 0.01",
        "ImageNet's statistics",
        "4 heads were taken as given",
    ):
        assert said in result.stdout
    loaded = ACTPolicy.from_pretrained(out)
    assert torch.equal(loaded.predict_action_chunk(observation()), policy.predict_action_chunk(observation()))
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["source"]["kind"] == "original ACT"
    assert set(provenance["source"]["checkpoint"]) == {"path", "sha256"}

    with pytest.raises(CheckpointError, match="already holds a policy; choose another folder, or --force"):
        CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)


Change = Callable[[dict[str, Any], dict[str, Any]], Any]
WRONG: dict[str, tuple[Change, str]] = {
    "missing": (lambda s, _: s.pop("model.encoder_joint_proj.bias"), "1 tensors are missing"),
    "missing size": (lambda s, _: s.pop("model.query_embed.weight"), "query_embed.weight is missing"),
    "unknown": (
        lambda s, _: s.update({"model.vq.weight": torch.zeros(1)}),
        "not of the original ACT, such as vq.weight",
    ),
    "more trunks": (
        lambda s, _: s.update({"model.backbones.1.0.body.conv1.weight": torch.zeros(1)}),
        "one trunk for each camera",
    ),
    "other trunk": (
        lambda s, _: s.update({"model.backbones.0.0.body.layer3.7.conv1.weight": torch.zeros(1)}),
        "3 blocks (BasicBlock)",
    ),
    "shape": (
        lambda s, _: s.update({"model.action_head.bias": torch.zeros(7)}),
        "has shape (7,), must be finite and (14,)",
    ),
    "not finite": (lambda s, _: s.update({"model.action_head.bias": torch.full((14,), torch.nan)}), "must be finite"),
    "no tensors": (lambda s, _: s.update(epoch=3), "other things than tensors"),
    "no mean": (lambda _, t: t.pop("action_mean"), "has no array 'action_mean' (there is: qpos_mean, qpos_std"),
    "short mean": (lambda _, t: t.update(qpos_mean=np.zeros(7)), "qpos_mean must be 14 finite numbers"),
    "infinite std": (lambda _, t: t.update(qpos_std=np.full(14, np.inf)), "qpos_std must be 14 finite numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_converted_is_named(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    policy = make_policy()
    state, stats = as_original(policy), stats_of(policy)
    change(state, stats)
    source, stats_path = write(tmp_path, state, stats)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        convert(source, stats_path, CAMERAS, n_heads=4, image_size=(64, 96))


def test_heads_that_do_not_fit_are_named(tmp_path: Path) -> None:
    policy = make_policy()
    source, stats = write(tmp_path, as_original(policy), stats_of(policy))
    with pytest.raises(CheckpointError, match="dim_model = 32: must be divisible by n_heads = 5"):
        convert(source, stats, CAMERAS, n_heads=5, image_size=(64, 96))


@pytest.mark.parametrize("content", [[torch.zeros(2)], (1, "a"), 3.0], ids=["list", "tuple", "number"])
def test_something_else_than_a_state_dict_is_named(content: Any, tmp_path: Path) -> None:
    source, stats = write(tmp_path, content, {})
    with pytest.raises(CheckpointError, match=rf"holds a {type(content).__name__}, not ACT's state dict"):
        convert(source, stats, CAMERAS, n_heads=4, image_size=(64, 96))
