"""What goes wrong in training is named as it happens: each trouble is provoked for real."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_policy as small
import torch
from safetensors.torch import load_file

from aloha_runtime.act import health
from aloha_runtime.act.health import Health, out_of_memory_named
from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainConfig, TrainingError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path)
    return path


def run(dataset: Path, output: Path, policy: dict[str, Any], **changes: Any) -> list[str]:
    """Train, and return what was said."""
    common = {"batch_size": 8, "threads": 1, "curves": False, "tensorboard": False, "validation_fraction": 0.0}
    lines: list[str] = []
    config = TrainConfig(dataset, output, policy={**small.TINY, **policy}, **{**common, **changes})
    train(config, lines.append)
    return lines


def test_kl_collapse_is_named_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "COLLAPSED_STEPS", 30)
    latent = {"use_vae": True, "latent_dim": 4, "n_vae_encoder_layers": 1, "kl_weight": 100.0, "lr": 2e-3}
    said = [line for line in run(dataset, tmp_path, latent, steps=120) if "KL collapse" in line]
    assert len(said) == 1
    assert "below 0.001 for 30 steps" in said[0]
    assert "--kl-warmup-steps" in said[0]
    assert "--policy.kl-weight (now 100" in said[0]


def test_no_collapse_is_named_without_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "COLLAPSED_STEPS", 30)
    latent = {"use_vae": True, "latent_dim": 4, "n_vae_encoder_layers": 1, "kl_weight": 1e-4, "lr": 2e-3}
    assert not [line for line in run(dataset, tmp_path, latent, steps=60) if "warning" in line]


def test_divergence_is_named_once(dataset: Path, tmp_path: Path) -> None:
    """The learning rate rises until it is too high."""
    lines = run(dataset, tmp_path, {"lr": 100.0, "lr_backbone": 100.0}, steps=120, warmup_steps=5000)
    said = [line for line in lines if "the loss diverges" in line]
    assert len(said) == 1
    assert "lower --policy.lr (now 100)" in said[0]
    assert "--grad-clip-norm 1" in said[0]


def test_a_rising_kl_weight_is_no_divergence() -> None:
    said: list[str] = []
    config = TrainConfig(Path("data"), Path("out"), kl_warmup_steps=200)
    watch = Health(config, small.config(use_vae=True), said.append)
    for step in range(1, 400):
        watch.notice(step, {"loss": 0.3 + 10 * min(1, step / 200), "kld_loss": 1.0})
    assert not said


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(dataset: Path, tmp_path: Path) -> None:
    """The learning rate explodes after the first checkpoint."""
    config = {"lr": 1e30, "lr_backbone": 1e-4, "weight_decay": 0.0}
    run(dataset, tmp_path, {**config, "lr": 1e-3}, steps=5)
    with pytest.raises(TrainingError, match=r"not finite.*lower policy.lr \(now 1e\+30\).*policy.lr_backbone"):
        run(dataset, tmp_path, config, steps=60, resume=True, save_freq=100)
    saved = load_file(tmp_path / "checkpoints/last/pretrained_model/model.safetensors")
    assert all(value.isfinite().all() for value in saved.values())


def test_out_of_memory_says_which_batch_size_to_try(dataset: Path, tmp_path: Path) -> None:
    limited = (
        "import resource, sys, torch, torch._dynamo, torch.optim\n"
        "from aloha_runtime.cli import main\n"
        "from aloha_runtime.commands import train\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20),) * 2)\n"
        "sys.argv = ['aloha', 'train', *sys.argv[1:]]\n"
        "main()\n"
    )
    words = [f"policy.{name}={value}" for name, value in small.TINY.items()]
    words += [f"dataset={dataset}", f"output_dir={tmp_path}", "batch_size=6000", "threads=1", "curves=false"]
    words += ["tensorboard=false", "steps=2", "device=cpu"]
    result = subprocess.run(
        [sys.executable, "-c", limited, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "out of memory on cpu with batch_size = 6000: try --batch-size 3000" in result.stderr
    assert "Traceback" not in result.stderr


def test_out_of_memory_of_a_gpu_is_recognised() -> None:
    config = TrainConfig(Path("data"), Path("out"), batch_size=1)
    words, gpu = "batch_size = 1: try fewer or smaller cameras", torch.device("cuda")
    with pytest.raises(TrainingError, match=words), out_of_memory_named(config, gpu):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_named(config, gpu):
        raise RuntimeError("something else")
