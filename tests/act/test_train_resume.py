"""A run that is killed or stopped goes on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_policy as small
import torch
from safetensors.torch import load_file

from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainingStopped
from aloha_runtime.commands.train import config_from
from aloha_runtime.errors import CheckpointError

ROOT = Path(__file__).parents[2]
STEPS = 60
pytestmark = pytest.mark.timeout(600)  # processes that import PyTorch: a minute each on a machine under a load of 15

SETTINGS = [
    *(f"policy.{name}={value}" for name, value in {**small.TINY, "use_vae": True, "latent_dim": 4, "lr": 2e-3}.items()),
    "policy.n_vae_encoder_layers=1", "policy.dropout=0.1", "threads=1", "curves=false", "tensorboard=false",
    f"steps={STEPS}", "save_freq=10", "eval_freq=15", "log_freq=5", "validation_fraction=0.25", "ema_decay=0.9",
    "schedule=cosine", "warmup_steps=5", "kl_warmup_steps=20", "augment.brightness=0.1", "augment.state_noise=0.01",
    "augment.shift_px=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path)
    return path


def start(words: list[str]) -> "subprocess.Popen[str]":
    """`aloha train` in a process of its own."""
    command = [sys.executable, "-m", "aloha_runtime.cli", "train", *words]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> list[str]:
    """Its lines until it reports that step."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("step ") and int(line.split()[1].split("/")[0]) >= step:
            return lines
    raise AssertionError(f"ended before step {step}:\n{''.join(lines)}")


def rows(output: Path) -> list[dict[str, Any]]:
    """`metrics.jsonl` without the figures of speed, which no two runs share."""
    found = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("steps_per_s", "data_wait")} for row in found]


def weights(output: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / name / "pretrained_model" / "model.safetensors")


def run(words: list[str], report: Callable[[str], None] = lambda _: None) -> None:
    train(config_from(words), report)


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    run([f"dataset={dataset}", f"output_dir={output}", *SETTINGS])
    return output


def test_a_killed_run_goes_on_bit_for_bit(dataset: Path, uninterrupted: Path, tmp_path: Path) -> None:
    draw = random.Random()
    # Anywhere, also inside a save; but not before the first one, at 10, is done: the report of step 10 comes before it.
    at, pause = draw.randrange(11, STEPS - 10), draw.uniform(0, 0.1)
    process = start([f"dataset={dataset}", f"output_dir={tmp_path}", *SETTINGS])
    wait_for_step(process, at)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run(["--resume", "--output-dir", str(tmp_path)])
    where = f"killed {pause:.3f} s after step {at}"
    assert rows(tmp_path) == rows(uninterrupted), where
    for name in ("last", "best"):
        one, other = weights(uninterrupted, name), weights(tmp_path, name)
        assert all(torch.equal(other[key], value) for key, value in one.items()), where
    checkpoints = [sorted(os.listdir(path / "checkpoints")) for path in (uninterrupted, tmp_path)]
    assert checkpoints[0] == checkpoints[1], where


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_says_how_to_go_on(
    dataset: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def stop_at_25(line: str) -> None:
        if line.startswith("step 25/"):
            os.kill(os.getpid(), number)

    with pytest.raises(TrainingStopped, match=f"step 25 of 60 .*: aloha train --resume --output-dir {tmp_path}"):
        run([f"dataset={dataset}", f"output_dir={tmp_path}", *SETTINGS], stop_at_25)
    assert os.readlink(tmp_path / "checkpoints/last") == "000025"
    run(["--resume", "--output-dir", str(tmp_path)])
    one, other = weights(uninterrupted), weights(tmp_path)
    assert all(torch.equal(other[key], value) for key, value in one.items())
    assert rows(tmp_path) == rows(uninterrupted)


def test_resuming_replaces_what_may_change_and_refuses_the_rest(uninterrupted: Path) -> None:
    resumed = config_from(["--resume", "--output-dir", str(uninterrupted), "policy.lr=1e-5", "steps=70"])
    assert (resumed.steps, resumed.policy["lr"], resumed.policy["dim_model"]) == (70, 1e-5, 32)
    assert resumed.augment.shift_px == 1
    with pytest.raises(CheckpointError, match=r"policy\.latent_dim = 4, not 5"):
        run(["--resume", "--output-dir", str(uninterrupted), "policy.latent_dim=5", "steps=70"])


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        config_from(["--resume", "--output-dir", str(tmp_path)])
