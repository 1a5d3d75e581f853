"""Two real processes train one policy as one process does with the same whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_policy as small
import torch
from safetensors.torch import load_file

from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.commands.train import config_from

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)  # three processes that import PyTorch: minutes on a machine under a load of 15
SETTINGS = [
    *(f"policy.{name}={value}" for name, value in {**small.TINY, "use_vae": True, "latent_dim": 4, "lr": 1e-4}.items()),
    "policy.n_vae_encoder_layers=1", "policy.lr_backbone=1e-4", "threads=1", "curves=false", "tensorboard=false",
    "device=cpu", "steps=12", "batch_size=6", "log_freq=1", "eval_freq=6", "save_freq=6", "validation_fraction=0.25",
    "grad_clip_norm=1", "ema_decay=0.9", "augment.brightness=0.1", "augment.shift_px=1", "augment.state_noise=0.01",
]  # fmt: skip
"""Without dropout, whose draws each process has for itself; chunks of 8 in episodes of 12, so that much is padding."""

CANCELS = ("self_attn.in_proj_bias", "multihead_attn.in_proj_bias", "backbone.heat.bias")
"""Biases that a softmax cancels: their gradients are rounding errors, which AdamW blows up to whole steps."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path)
    return path


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def torchrun(words: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += ["-m", "aloha_runtime.cli", "train", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_two_processes_train_as_one(dataset: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(config_from([f"dataset={dataset}", f"output_dir={alone}", *SETTINGS]), lambda _: None)
    result = torchrun([f"dataset={dataset}", f"output_dir={together}", *SETTINGS])
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("best policy") == 1  # one of them speaks
    one, other = rows(alone), rows(together)
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for first, second in zip(one, other, strict=True):
        for name in set(first) - {"steps_per_s", "data_wait"}:
            assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-6), (first["step"], name)
    for name in ("last", "best"):
        expected, found = (
            load_file(path / "checkpoints" / name / "pretrained_model" / "model.safetensors")
            for path in (alone, together)
        )
        for key, value in expected.items():
            tolerance = 1e-3 if key.endswith(CANCELS) else 1e-5
            torch.testing.assert_close(found[key], value, atol=tolerance, rtol=1e-5)


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(TrainingError, match=r"batch_size = 6 .* all 4 processes .* try 8"):
        train(TrainConfig(dataset, dataset / "out", batch_size=6), lambda _: None)
