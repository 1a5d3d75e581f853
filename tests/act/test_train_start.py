"""What a run may start from and how it computes: fine-tuning, image statistics, precision, files it leaves."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policy as small
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aloha_runtime.act import ACTPolicy, batches
from aloha_runtime.act.augment import Augmentation, augmented
from aloha_runtime.act.config import STATE, ACTConfig
from aloha_runtime.act.normalize import Stats
from aloha_runtime.act.optimize import kl_weight, learning_rate_scale, make_optimizer
from aloha_runtime.act.start import IMAGENET_STATS, image_stats
from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.errors import AlohaError, DatasetError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path)
    return path


def run(dataset: Path, output: Path, **changes: Any) -> tuple[Path, list[str]]:
    """Train a few steps; the best policy's directory, and what was said."""
    policy = {} if "init_from" in changes else {**small.TINY, "lr": 2e-3}
    common = {"steps": 8, "batch_size": 4, "threads": 1, "curves": False, "tensorboard": False, "log_freq": 1}
    lines: list[str] = []
    config = TrainConfig(
        dataset,
        output,
        policy={**policy, **changes.pop("policy", {})},
        **{**common, "validation_fraction": 0.25, **changes},
    )
    return train(config, lines.append), lines


def weights(policy: Path) -> dict[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def rows(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_fine_tuning_starts_from_the_other_policy(dataset: Path, tmp_path: Path) -> None:
    first, _ = run(dataset, tmp_path / "first")
    second, _ = run(dataset, tmp_path / "second", init_from=str(first), policy={"lr": 0.0, "lr_backbone": 0.0})
    before, after = weights(first), weights(second)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert ACTPolicy.from_pretrained(second).config.lr == 0.0
    assert json.loads((second / "provenance.json").read_text())["training"]["settings"]["init_from"] == str(first)
    with pytest.raises(TrainingError, match=r"policy.dim_model = 64: .* has 32, .* What may change: lr, "):
        run(dataset, tmp_path / "third", init_from=str(first), policy={"dim_model": 64})


def test_fine_tuning_on_other_cameras_is_refused(dataset: Path, tmp_path: Path) -> None:
    policy = ACTPolicy(small.config(input_shapes={"observation.images.cam_low": (3, 48, 64), STATE: (14,)}), None)
    policy.save_pretrained(tmp_path / "other")
    with pytest.raises(AlohaError, match="cam_low"):
        run(dataset, tmp_path / "out", init_from=str(tmp_path / "other"))


def test_named_cameras_take_the_places_of_the_other_policy_s(dataset: Path, tmp_path: Path) -> None:
    stats = {name.replace("cam_high", "top"): values for name, values in small.stats().items()}
    policy = ACTPolicy(small.config(input_shapes={"observation.images.top": (3, 48, 64), STATE: (14,)}), stats)
    policy.save_pretrained(tmp_path / "other")
    still = {"lr": 0.0, "lr_backbone": 0.0}
    best, _ = run(dataset, tmp_path / "out", init_from=str(tmp_path / "other"), cameras=("cam_high",), policy=still)
    assert list(ACTPolicy.from_pretrained(best).config.cameras) == ["cam_high"]
    assert all(torch.equal(weights(best)[name], value) for name, value in policy.state_dict().items())
    with pytest.raises(TrainingError, match="looks through 1: top; name as many"):
        run(dataset, tmp_path / "two", init_from=str(tmp_path / "other"), cameras=("cam_high", "cam_low"))


@pytest.mark.parametrize(
    ("asked", "policy", "imagenet"),
    [
        (None, {"vision_backbone": "resnet18", "pretrained_backbone": True}, True),
        (None, {"vision_backbone": "resnet18", "pretrained_backbone": False}, False),
        (None, small.TINY, False),
        (True, small.TINY, True),
        (False, {"vision_backbone": "resnet18", "pretrained_backbone": True}, False),
    ],
)
def test_imagenet_statistics_are_those_of_pretrained_resnets(
    asked: bool | None, policy: dict[str, Any], imagenet: bool
) -> None:
    shapes = {small.CAMERA: (3, small.HEIGHT, small.WIDTH), STATE: (14,)}
    stats: Stats = small.stats()
    made = image_stats(
        TrainConfig(Path("data"), Path("out"), use_imagenet_stats=asked),
        ACTConfig(input_shapes=shapes, **policy),
        stats,
    )
    expected = torch.tensor(IMAGENET_STATS["mean"]) if imagenet else stats[small.CAMERA]["mean"].flatten()
    torch.testing.assert_close(made[small.CAMERA]["mean"].flatten(), expected)
    assert made[STATE] == stats[STATE]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_nearly_as_full(dataset: Path, tmp_path: Path, precision: Any) -> None:
    steps = 8 if precision == "bf16" else 24  # fp16 leaves out steps until its scale of the loss fits
    run(dataset, tmp_path / "full", steps=steps)
    best, _ = run(dataset, tmp_path / "half", mixed_precision=precision, steps=steps)
    full, half = ([row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("full", "half"))
    assert half != full  # it is another arithmetic,
    compared = steps if precision == "bf16" else 1
    assert half[:compared] == pytest.approx(full[:compared], rel=0.1)  # and a near one
    assert half[-1] < 0.7 * half[0]
    assert {value.dtype for value in weights(best).values()} == {torch.float32}
    state = json.loads((tmp_path / "half/checkpoints/last/training_state/training_step.json").read_text())
    assert bool(state["scaler"]) == (precision == "fp16")


def test_gradient_checkpointing_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    plain, _ = run(dataset, tmp_path / "plain", policy={"dropout": 0.1})
    saving, _ = run(dataset, tmp_path / "saving", policy={"dropout": 0.1, "use_gradient_checkpointing": True})
    before, after = weights(plain), weights(saving)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)


def test_fused_adamw_is_adamw() -> None:
    """The small trunk's weights are channels-last in memory, their gradients and moments too."""
    policies = []
    for fused in (True, False):
        torch.manual_seed(0)
        policy = ACTPolicy(small.config(lr=1e-3, lr_backbone=1e-3), small.stats())
        optimizer = make_optimizer(policy)
        optimizer = optimizer if fused else torch.optim.AdamW(optimizer.param_groups, weight_decay=1e-4, fused=False)
        for seed in range(5):
            batch = {**small.observation(4, seed), "action": np.full((4, 8, 14), 0.1 * seed, np.float32)}
            optimizer.zero_grad()
            policy.compute_loss(policy(batch), batch).backward()
            optimizer.step()
        policies.append(policy.state_dict())
    for name, value in policies[0].items():
        if not name.endswith(("in_proj_bias", "heat.bias")):  # rounding errors: a softmax cancels them
            torch.testing.assert_close(policies[1][name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_warm_up_and_go_where_they_should(schedule: Any) -> None:
    config = TrainConfig(Path("data"), Path("out"), steps=100, warmup_steps=9, schedule=schedule)
    scale = [learning_rate_scale(config, step) for step in range(100)]
    assert scale[0] == pytest.approx(0.1)
    assert scale[9] == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in pairwise(scale[9:]))
    middle, end = {"constant": (1.0, 1.0), "linear": (0.5, 0.0), "cosine": (0.5, 0.0)}[schedule]
    assert scale[9 + 91 // 2] == pytest.approx(middle, abs=0.02)
    assert scale[99] == pytest.approx(end, abs=0.02)
    assert not math.isnan(sum(scale))


def test_kl_annealing_is_linear() -> None:
    config = TrainConfig(Path("data"), Path("out"), kl_warmup_steps=10)
    assert [kl_weight(config, 20.0, step) for step in (0, 5, 10, 99)] == [0.0, 10.0, 20.0, 20.0]
    assert kl_weight(TrainConfig(Path("data"), Path("out")), 20.0, 0) == 20.0


def test_batches_come_in_order_and_only_a_few_ahead() -> None:
    made: list[int] = []

    def make(step: int) -> batches.Batch:
        made.append(step)
        return {"step": torch.tensor(step)}

    for workers in (0, 1, 3):
        made.clear()
        with batches.ahead(make, 5, 25, workers) as prepared:
            assert next(prepared)["step"] == 5
            assert len(made) <= 2 + 2 * workers
            assert [int(batch["step"]) for batch in prepared] == list(range(6, 25))


def test_an_error_of_a_batch_arrives_with_it() -> None:
    def make(step: int) -> batches.Batch:
        if step == 2:
            raise DatasetError("frame 2 is damaged")
        return {}

    with batches.ahead(make, 0, 9, 1) as prepared:
        next(prepared), next(prepared)
        with pytest.raises(DatasetError, match="frame 2"):
            next(prepared)


def test_a_share_of_a_batch_is_augmented_as_in_the_whole(dataset: Path) -> None:
    augment = Augmentation(brightness=0.2, contrast=0.2, shift_px=2, state_noise=0.1)
    whole = {name: torch.as_tensor(value) for name, value in small.observation(6).items()}
    expected = augmented(whole, augment, np.random.default_rng(1))
    part = slice(2, 5)
    share = augmented({name: value[part] for name, value in whole.items()}, augment, np.random.default_rng(1), part, 6)
    for name, value in share.items():
        torch.testing.assert_close(value, expected[name][part])


def test_curves_and_event_files_are_there_and_say_the_same(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path, curves=True, tensorboard=True, eval_freq=4)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = {row["step"]: row["loss"] for row in rows(tmp_path) if "loss" in row}
    assert {item.step: item.value for item in events.Scalars("train/loss")} == pytest.approx(losses)
    errors = {row["step"]: row["validation_l1"] for row in rows(tmp_path) if "validation_l1" in row}
    assert {item.step: item.value for item in events.Scalars("validation/l1")} == pytest.approx(errors)
    assert sorted(errors) == [4, 8]


def test_a_logger_that_is_not_installed_is_named_first(dataset: Path, tmp_path: Path) -> None:
    try:
        import wandb  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(TrainingError, match="wandb is not installed"):
            run(dataset, tmp_path / "out", wandb=True)
        assert not (tmp_path / "out").exists()


def test_best_is_the_checkpoint_with_the_lowest_validation_error(dataset: Path, tmp_path: Path) -> None:
    best, _ = run(dataset, tmp_path, steps=24, eval_freq=3, save_freq=100, policy={"lr": 3e-2, "lr_backbone": 3e-2})
    errors = {row["step"]: row["validation_l1"] for row in rows(tmp_path) if "validation_l1" in row}
    assert len(errors) == 8
    assert int(best.resolve().parent.name) == min(errors, key=lambda step: errors[step])
    provenance = json.loads((best / "provenance.json").read_text())
    assert provenance["training"]["figures"]["validation_l1"] == min(errors.values())
    assert list(provenance["frames"]) == ["cam_high"]
    assert all((best / name).stat().st_size < 20_000 for name in provenance["frames"]["cam_high"])
