"""Weights as other tools store them: prefixes of wrappers, half precision, and what cannot be converted."""

import json
import logging
from pathlib import Path

import pytest
import small_policy as small
import torch
from safetensors.torch import load_file, save_file

from aloha_runtime.act import ACTPolicy, header
from aloha_runtime.act.config import ACTION, STATE, PolicyConfigError
from aloha_runtime.errors import CheckpointError

HEAD = "model.action_head.weight"


def chunk(directory: Path) -> torch.Tensor:
    return ACTPolicy.from_pretrained(directory).predict_action_chunk(small.observation())


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "_orig_mod."), ("", "module."), ("", "module._orig_mod."), ("model.", "model._orig_mod.")],
)
def test_prefixes_of_wrappers_are_taken_off(
    saved: Path, before: str, after: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected, weights = chunk(saved), load_file(saved / header.WEIGHTS)
    renamed = {after + name.removeprefix(before): value for name, value in weights.items()}
    save_file(renamed, saved / header.WEIGHTS)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(chunk(saved), expected)
    assert "which is taken off" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(saved: Path, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(saved / header.WEIGHTS)
    save_file({name: value.to(dtype) for name, value in weights.items()}, saved / header.WEIGHTS)
    with caplog.at_level(logging.WARNING):
        policy = ACTPolicy.from_pretrained(saved)
    stored = policy.state_dict()
    assert all(torch.equal(stored[name], value.to(dtype).float()) for name, value in weights.items())
    assert ("widened to float32" in caplog.text) == (dtype != torch.float64)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_weights_that_only_their_maker_can_scale_are_refused(saved: Path, dtype: torch.dtype) -> None:
    weights = load_file(saved / header.WEIGHTS)
    save_file({**weights, HEAD: weights[HEAD].to(dtype)}, saved / header.WEIGHTS)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=rf"{HEAD} holds {kind}, not floats of 16 or 32 bits"):
        ACTPolicy.from_pretrained(saved)


def test_the_same_tensor_with_and_without_a_prefix_is_refused(saved: Path) -> None:
    weights = load_file(saved / header.WEIGHTS)
    save_file({**weights, f"module.{HEAD}": torch.ones(14, 32)}, saved / header.WEIGHTS)
    with pytest.raises(CheckpointError, match=f"are both {HEAD} without their prefix"):
        ACTPolicy.from_pretrained(saved)


def test_inputs_without_weights_are_left_out_with_one_line(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = chunk(saved)
    content = json.loads((saved / header.CONFIG).read_text())
    vector = {"type": "STATE", "shape": [14]}
    content["input_features"] |= {"observation.velocity": vector, "observation.effort": vector}
    (saved / header.CONFIG).write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(chunk(saved), expected)
    assert [record.message for record in caplog.records] == [
        f"{saved}: observation.velocity, observation.effort: the network has no weights for them; they are left out"
    ]
    assert header.load_header(saved).dropped == ("observation.velocity", "observation.effort")


def test_an_image_or_a_state_that_cannot_be_given_is_not_left_out(saved: Path) -> None:
    content = json.loads((saved / header.CONFIG).read_text())
    content["input_features"]["observation.image"] = {"type": "VISUAL", "shape": [3, 48, 64]}
    (saved / header.CONFIG).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"'observation\.image' is neither"):
        ACTPolicy.from_pretrained(saved)


def test_the_shape_of_a_built_policy_cannot_be_changed() -> None:
    config = small.config()
    policy = ACTPolicy(config, small.stats())
    for name, value in (("chunk_size", 200), ("dim_model", 64), ("output_shapes", {ACTION: (7,)})):
        with pytest.raises(PolicyConfigError, match=f"{name} = .*the policy is built with"):
            setattr(policy.config, name, value)
    assert policy.config.chunk_size == 8
    policy.config.n_action_steps = 4  # no matter of the network's shape
    config.chunk_size = 200  # another policy may be built of the same configuration
    assert policy.config.chunk_size == 8
    assert STATE in policy.config.input_shapes


def test_a_trunk_of_ours_has_a_name_that_lerobot_refuses_and_older_files_are_read(saved: Path) -> None:
    expected = chunk(saved)
    content = json.loads((saved / header.CONFIG).read_text())
    ours = json.loads((saved / header.OURS).read_text())
    assert content["vision_backbone"] == "small_cnn"
    assert not content["vision_backbone"].startswith("resnet"), "what LeRobot's ACTConfig asks"
    assert "vision_backbone" not in ours
    (saved / header.CONFIG).write_text(json.dumps({**content, "vision_backbone": "resnet18"}))
    (saved / header.OURS).write_text(json.dumps({**ours, "vision_backbone": "small_cnn"}))
    assert torch.equal(chunk(saved), expected)
