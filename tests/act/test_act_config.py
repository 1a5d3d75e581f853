"""`ACTConfig`: the paper's defaults, LeRobot's file both ways, and refusals that say which value and why."""

import json
from pathlib import Path
from typing import Any

import pytest
import reference_vectors as vectors
import small_policy as small

from aloha_runtime.act import ACT_ALOHA_PRESET, ACTConfig
from aloha_runtime.act.config import ACTION, STATE, PolicyConfigError, aloha_inputs
from aloha_runtime.act.config_file import config_from_json, config_to_json
from aloha_runtime.errors import ConfigError

SAMPLES = sorted((vectors.DATA / "lerobot_checkpoint").iterdir())


def test_defaults_are_those_of_the_paper() -> None:
    config = ACTConfig()
    assert (config.chunk_size, config.dim_model, config.n_heads, config.dim_feedforward) == (100, 512, 8, 3200)
    assert (config.n_encoder_layers, config.n_decoder_layers, config.n_vae_encoder_layers) == (4, 1, 4)
    assert (config.latent_dim, config.kl_weight, config.dropout) == (32, 10.0, 0.1)
    assert (config.lr, config.lr_backbone, config.weight_decay) == (1e-5, 1e-5, 1e-4)
    assert config.temporal_ensemble_coeff is None
    assert config.cameras == {"cam_high": (480, 640)}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_lerobot_files_survive_a_round_trip(sample: Path) -> None:
    original = json.loads((sample / "config.json").read_text())
    written, ours = config_to_json(config_from_json(original))
    assert written == original
    assert ours == {}


def test_what_lerobot_cannot_express_goes_into_our_own_file() -> None:
    config = small.config()
    lerobot, ours = config_to_json(config)
    assert lerobot["vision_backbone"] == "small_cnn", "a name that LeRobot refuses, as it has no such trunk"
    assert not set(ours) & set(lerobot)
    assert config_from_json(lerobot, ours) == config


def test_unknown_key_in_our_own_file_is_refused() -> None:
    lerobot, ours = config_to_json(small.config())
    with pytest.raises(PolicyConfigError, match="estimat_dim"):
        config_from_json(lerobot, {**ours, "estimat_dim": 3})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"chunk_size": 0}, "chunk_size = 0: must be at least 1"),
        ({"chunk_size": 10.5}, "chunk_size = 10.5: must be a whole number"),
        ({"n_action_steps": 200}, "n_action_steps = 200: cannot exceed chunk_size = 100"),
        ({"temporal_ensemble_coeff": 0.01, "n_action_steps": 100}, "n_action_steps = 100: temporal ensembling"),
        ({"n_obs_steps": 2}, "n_obs_steps = 2"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"kl_weight": -1.0}, "kl_weight = -1.0: must be finite and not negative"),
        ({"kl_weight": float("nan")}, "kl_weight = nan"),
        ({"n_heads": 7}, "dim_model = 512: must be divisible by n_heads = 7"),
        ({"dim_model": 6, "n_heads": 2}, "dim_model = 6: must be divisible by 4"),
        ({"vision_backbone": "vgg"}, "vision_backbone = 'vgg': is not one of resnet18"),
        ({"replace_final_stride_with_dilation": True}, "only resnet50 has a dilated form"),
        ({"feedforward_activation": "tanh"}, "feedforward_activation = 'tanh'"),
        ({"normalization_mapping": {"STATE": "ZSCORE"}}, "STATE: 'ZSCORE'"),
        ({"input_shapes": {}}, "needs at least one image"),
        ({"input_shapes": {"observation.gps": (2,)}}, "'observation.gps' is neither"),
        ({"input_shapes": {ACTION: (14,)}}, "does not belong there"),
        ({"input_shapes": {STATE: (14, 1)}}, "must be that of a vector"),
        ({"use_vip": True}, "needs the file of the published VIP weights"),
        ({"use_vip": True, "vip_checkpoint": "vip.pt", "vision_backbone": "resnet34"}, "those of a resnet50"),
        ({"action_loss": "huber"}, "is not l1 or l2"),
        ({"output_shapes": {"motion": (14,)}}, "named 'action'"),
        ({"estimate_dim": 3}, "only the small_cnn backbone"),
        ({"vision_backbone": "small_cnn", "small_cnn_width": 20}, "divisible by 8"),
        (
            {
                "vision_backbone": "small_cnn",
                "estimate_dim": 3,
                "input_shapes": aloha_inputs({"cam_high": (48, 64)}, environment_state_dim=7),
            },
            "makes no sense",
        ),
    ],
)
def test_wrong_values_say_which_and_why(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ACTConfig(**values)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("shape", [(480, 640, 3), (3, 0, 640), (3, 480)])
def test_wrong_image_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PolicyConfigError, match="cam_high"):
        ACTConfig(input_shapes={"observation.images.cam_high": shape})


def test_an_assignment_is_checked_and_refused_whole() -> None:
    config = ACTConfig()
    config.kl_weight = 20.0
    with pytest.raises(PolicyConfigError, match=r"kl_weight = -1\.0"):
        config.kl_weight = -1.0
    assert config.kl_weight == 20.0
    with pytest.raises(PolicyConfigError, match="there is no kl_wieght"):
        config.kl_wieght = 1.0  # type: ignore[attr-defined]


def test_action_steps_follow_the_chunk_unless_given() -> None:
    assert ACTConfig(chunk_size=50).n_action_steps == 50
    assert ACTConfig(temporal_ensemble_coeff=0.01).n_action_steps == 1
    assert ACTConfig(n_action_steps=10).n_action_steps == 10


def test_vip_brings_its_own_network() -> None:
    assert ACTConfig(use_vip=True, vip_checkpoint="vip.pt").vision_backbone == "resnet50"


def test_the_preset_is_the_paper_s_rig() -> None:
    assert list(ACT_ALOHA_PRESET.cameras) == ["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"]
    assert set(ACT_ALOHA_PRESET.cameras.values()) == {(480, 640)}


@pytest.mark.parametrize(
    "values",
    [
        {"pretrained_backbone": "resnet18.pth"},
        {"pretrained_backbone": "ResNet18_Weights.DEFAULT"},
        {"pretrained_backbone": False},
        {"use_vip": True, "vip_checkpoint": "vip.pt"},
        {"action_loss": "l2", "sample_latent": True, "use_gradient_checkpointing": True},
    ],
)
def test_every_choice_survives_a_round_trip(values: dict[str, Any]) -> None:
    config = ACTConfig(**values)
    assert config_from_json(*config_to_json(config)) == config
