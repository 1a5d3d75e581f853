"""Policies of LeRobot's older releases: the statistics inside the weights, and config.json as it was then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_policy as small
import torch
from safetensors.torch import load_file, save_file

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import ACTION, STATE, aloha_inputs
from aloha_runtime.act.pipeline_save import STATE_BEFORE
from aloha_runtime.errors import CheckpointError

TOP = "observation.images.top"
SIZES: dict[str, Any] = {
    "chunk_size": 6, "n_action_steps": 6, "dim_model": 32, "n_heads": 4, "dim_feedforward": 48, "latent_dim": 8,
    "n_encoder_layers": 1, "n_vae_encoder_layers": 1,
}  # fmt: skip


def policy() -> ACTPolicy:
    torch.manual_seed(0)
    made = small.stats()
    stats = {STATE: made[STATE], ACTION: made[ACTION], TOP: made[small.CAMERA]}
    config = ACTConfig(input_shapes=aloha_inputs({"top": (64, 96)}), pretrained_backbone=False, **SIZES)
    return ACTPolicy(config, stats).eval()


def buffers(policy: ACTPolicy) -> dict[str, torch.Tensor]:
    made = {}
    for feature, values in policy.normalizer.stats.items():
        groups = ("normalize_targets", "unnormalize_outputs") if feature == ACTION else ("normalize_inputs",)
        for group in groups:
            for key, value in values.items():
                made[f"{group}.buffer_{feature.replace('.', '_')}.{key}"] = value.clone()
    return made


CONFIG_2025 = {
    "type": "act",
    "n_obs_steps": 1,
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "input_features": {
        TOP: {"type": "VISUAL", "shape": [3, 64, 96]},
        STATE: {"type": "STATE", "shape": [14]},
    },
    "output_features": {ACTION: {"type": "ACTION", "shape": [14]}},
}
"""Releases 0.1 to 0.3, less the sizes."""

CONFIG_2024 = {
    "use_vae": True,
    "input_shapes": {TOP: [3, 64, 96], STATE: [14]},
    "output_shapes": {ACTION: [14]},
    "input_normalization_modes": {TOP: "mean_std", STATE: "mean_std"},
    "output_normalization_modes": {ACTION: "mean_std"},
    "vision_backbone": "resnet18",
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    "replace_final_stride_with_dilation": 0,
    "temporal_ensemble_momentum": None,
}
"""Before there were releases: shapes, a mode for each feature, no type."""


def write(directory: Path, made: ACTPolicy, config: dict[str, Any], **changes: torch.Tensor | None) -> None:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({**SIZES, **config}))
    tensors = {**made.state_dict(), **buffers(made), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, directory / "model.safetensors")


def observation() -> dict[str, Any]:
    seen = small.observation()
    return {STATE: seen[STATE], TOP: torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))}


@pytest.mark.parametrize("config", [CONFIG_2025, CONFIG_2024], ids=["2025", "2024"])
def test_older_directory_loads_and_is_saved_in_todays_layout(config: dict[str, Any], tmp_path: Path) -> None:
    made = policy()
    expected = made.predict_action_chunk(observation())
    write(tmp_path / "old", made, config)
    loaded = ACTPolicy.from_pretrained(tmp_path / "old")
    assert torch.equal(loaded.predict_action_chunk(observation()), expected)

    loaded.save_pretrained(tmp_path / "new")
    assert not [name for name in load_file(tmp_path / "new/model.safetensors") if "normalize" in name]
    assert (tmp_path / "new" / STATE_BEFORE).exists()
    assert "input_features" in json.loads((tmp_path / "new/config.json").read_text())
    again = ACTPolicy.from_pretrained(tmp_path / "new")
    assert torch.equal(again.predict_action_chunk(observation()), expected)


Change = Callable[[Path], object]
STD = "unnormalize_outputs.buffer_action.std"
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "never set": ({STD: torch.full((14,), torch.inf)}, f"{STD} is not finite, so the policy was saved without"),
    "no actions": (
        {
            f"{group}.buffer_action.{key}": None
            for group in ("normalize_targets", "unnormalize_outputs")
            for key in ("mean", "std")
        },
        "no statistics of the actions",
    ),
    "of another camera": (
        {"normalize_inputs.buffer_observation_images_side.mean": torch.zeros(3, 1, 1)},
        "buffer_observation_images_side.mean belongs to no feature of config.json",
    ),
    "absent": ({"normalize_inputs.buffer_observation_state.std": None}, "statistics lack observation.state.std"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_statistics_are_named(name: str, tmp_path: Path) -> None:
    changes, message = WRONG[name]
    write(tmp_path / "old", policy(), CONFIG_2025, **changes)
    with pytest.raises(CheckpointError) as caught:
        ACTPolicy.from_pretrained(tmp_path / "old")
    assert message in str(caught.value)


def test_one_set_of_statistics_of_the_actions_is_enough(tmp_path: Path) -> None:
    made = policy()
    write(
        tmp_path / "old",
        made,
        CONFIG_2025,
        **{f"unnormalize_outputs.buffer_action.{key}": None for key in ("mean", "std")},
    )
    loaded = ACTPolicy.from_pretrained(tmp_path / "old")
    assert torch.equal(loaded.predict_action_chunk(observation()), made.predict_action_chunk(observation()))


def test_features_of_one_kind_normalised_differently_are_named(tmp_path: Path) -> None:
    two = {
        "input_shapes": {**CONFIG_2024["input_shapes"], "observation.images.side": [3, 64, 96]},
        "input_normalization_modes": {**CONFIG_2024["input_normalization_modes"], "observation.images.side": "min_max"},
    }
    write(tmp_path / "old", policy(), {**CONFIG_2024, **two})
    with pytest.raises(CheckpointError, match=r"observation.images.side is normalised by min_max, others of its kind"):
        ACTPolicy.from_pretrained(tmp_path / "old")
