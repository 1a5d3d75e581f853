"""`aloha train`: every field by name, LeRobot's spellings, YAML below the command line, and refusals that help."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.train_config import TrainConfig
from aloha_runtime.cli import app
from aloha_runtime.commands.train import config_from
from aloha_runtime.commands.train_options import ALIASES, find_dataset, known_options, settings_from
from aloha_runtime.errors import ConfigError, DatasetError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--steps 50 --batch-size=4", {"steps": 50, "batch_size": 4}),
        ("steps=50 batch_size 4", {"steps": 50, "batch_size": 4}),
        ("--policy.chunk-size 50 --policy.kl_weight=5", {"policy": {"chunk_size": 50, "kl_weight": 5.0}}),
        ("--wandb --steps 3", {"wandb": True, "steps": 3}),
        ("--wandb false --resume true", {"wandb": False, "resume": True}),
        ("--cameras cam_high,cam_low", {"cameras": ("cam_high", "cam_low")}),
        ("--policy.pretrained-backbone false", {"policy": {"pretrained_backbone": False}}),
        ("--policy.pretrained-backbone weights.pth", {"policy": {"pretrained_backbone": "weights.pth"}}),
        ("--policy.temporal-ensemble-coeff 0.01", {"policy": {"temporal_ensemble_coeff": 0.01}}),
        ("--policy.temporal-ensemble-coeff none", {"policy": {"temporal_ensemble_coeff": None}}),
        ("--policy.normalization-mapping {VISUAL: IDENTITY}", None),
        ("--steps 5 --steps 6", {"steps": 6}),
        # LeRobot's documentation
        ("--policy-name act --dataset-repo-id a/b --num-train-steps 9", {"dataset": Path("a/b"), "steps": 9}),
        ("--wandb-enable true --policy.lr 5e-5", {"wandb": True, "policy": {"lr": 5e-5}}),
        # LeRobot 0.6
        ("--dataset.repo_id=a/b --policy.type=act", {"dataset": Path("a/b")}),
        ("--dataset.root=/there --dataset.repo_id=a/b", {"dataset": Path("/there")}),
        ("--policy.optimizer_lr=1e-4 --policy.device=cuda", {"policy": {"lr": 1e-4}, "device": "cuda"}),
        ("--wandb.enable=true --seed=3 --num_workers=4", {"wandb": True, "seed": 3, "num_workers": 4}),
        ("--policy.push_to_hub=false --policy.path=a/b", {"init_from": "a/b"}),
    ],
)
def test_words_become_settings(words: str, expected: dict[str, Any] | None) -> None:
    split = words.split(" ", 1) if expected is None else words.split()
    expected = {"policy": {"normalization_mapping": {"VISUAL": "IDENTITY"}}} if expected is None else expected
    assert settings_from({}, split) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stepz 5", "unknown option --stepz; nearest: --steps"),
        ("--policy.chunksize 5", "unknown option --policy.chunksize; nearest: --policy.chunk-size"),
        ("--chunk-size 5", "unknown option --chunk-size; nearest: --policy.chunk-size"),
        ("--steps", "--steps: has no value"),
        ("--steps five", "--steps 'five': Input should be a valid integer"),
        ("--schedule step", "--schedule 'step': Input should be 'constant', 'cosine' or 'linear'"),
        ("--resume maybe 1", "unknown option --maybe"),
        ("--policy.type diffusion", "--policy.type diffusion: can only be act here"),
        ("--policy.push_to_hub=true", "can only be false here"),
    ],
)
def test_mistakes_are_named(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings_from({}, words.split())
    assert message in str(error.value)


def test_yaml_lies_below_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    nested = {"steps": 7, "policy": {"optimizer_lr": "2e-4", "dim_model": 64}, "wandb": {"enable": False}}
    file.write_text(yaml.safe_dump({**nested, "dataset": {"repo_id": str(tmp_path)}, "augment": {"shift_px": 2}}))
    words = ["--config", str(file), "--policy.dim-model", "128", "--output-dir", str(tmp_path / "out")]
    config = config_from(words)
    assert (config.dataset, config.steps, config.wandb, config.augment.shift_px) == (tmp_path, 7, False, 2)
    assert config.policy == {"lr": 2e-4, "dim_model": 128}
    file.write_text("steps: 7\nsteppes: 8\n")
    with pytest.raises(ConfigError, match="unknown option --steppes; nearest: --steps"):
        config_from(words)


def test_the_shipped_recipe_is_accepted(tmp_path: Path) -> None:
    recipe = str(ROOT / "aloha_runtime/policies/demo.yaml")
    config = config_from(["--config", recipe, "--dataset", str(tmp_path), "--output-dir", str(tmp_path / "out")])
    assert (config.policy["lr"], config.steps) == (5e-4, 8000)
    assert ACTConfig(**config.policy).vision_backbone == "small_cnn"


def test_every_field_is_an_option_and_in_the_help() -> None:
    fields = {item.name for item in dataclasses.fields(TrainConfig)} - {"policy", "augment"}
    fields |= {f"policy.{item.name}" for item in dataclasses.fields(ACTConfig)}
    assert fields <= set(known_options())
    assert set(ALIASES.values()) <= set(known_options())
    result = CliRunner().invoke(app, ["train", "--help"])
    assert result.exit_code == 0
    for name in (*fields, *ALIASES):
        assert f"--{name}" in result.output.replace("-", "_").replace("__", "--"), name
    assert "Steps over which the KL weight rises linearly" in result.output


def test_a_name_is_looked_for_where_lerobot_keeps_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    (tmp_path / "user/there").mkdir(parents=True)
    assert find_dataset(Path("user/there")) == tmp_path / "user/there"
    with pytest.raises(DatasetError, match=f"no dataset user/gone: neither a folder .* nor {tmp_path}/user/gone"):
        find_dataset(Path("user/gone"))
    monkeypatch.delenv("HF_LEROBOT_HOME")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "hf/lerobot/user/cached").mkdir(parents=True)
    assert find_dataset(Path("user/cached")) == tmp_path / "hf/lerobot/user/cached"
