"""Training: the loss falls, checkpoints load, a resumed run is the uninterrupted one, data is cut as ACT wants it."""

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policy as small
import torch
from power_cut import watch
from safetensors.torch import load_file

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.augment import Augmentation
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, STATE
from aloha_runtime.act.dataset import STD_FLOOR, TrainingData
from aloha_runtime.act.model import IS_PAD
from aloha_runtime.act.optimize import learning_rate_scale
from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.errors import DatasetError

EPISODES, LENGTH = 4, 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path, EPISODES, LENGTH)
    return path


def run(dataset: Path, output: Path, **changes: Any) -> TrainConfig:
    policy = {**small.TINY, "lr": 2e-3, **changes.pop("policy", {})}
    values: dict[str, Any] = {
        "steps": 20,
        "batch_size": 8,
        "threads": 1,
        "validation_fraction": 0.25,
        "eval_freq": 20,
        "save_freq": 20,
        "log_freq": 5,
        "curves": False,
        "tensorboard": False,
        **changes,
    }
    return TrainConfig(dataset, output, policy=policy, frame_cache=output / "frames", **values)


def losses(lines: list[str], part: str) -> list[float]:
    return [float(line.split(f" {part} ")[1].split()[0]) for line in lines if f" {part} " in line and "steps/s" in line]


@pytest.mark.parametrize("use_vae", [False, True])
def test_twenty_steps_lower_the_loss(dataset: Path, tmp_path: Path, use_vae: bool) -> None:
    lines: list[str] = []
    extra = {"use_vae": use_vae, "n_vae_encoder_layers": 1, "latent_dim": 4, "kl_weight": 1.0}
    best = train(run(dataset, tmp_path, policy=extra), lines.append)
    course = losses(lines, "loss")
    assert len(course) == 4
    assert course[-1] < 0.7 * course[0]
    assert bool(losses(lines, "kld")) == use_vae
    assert any("validation" in line and "estimate" in line for line in lines)
    policy = ACTPolicy.from_pretrained(best)
    assert policy.config.cameras == {"cam_high": (small.HEIGHT, small.WIDTH)}
    assert policy.predict_action_chunk(small.observation()).shape == (8, 14)


def test_resumed_run_is_the_uninterrupted_one(dataset: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"schedule": "cosine", "warmup_steps": 3, "ema_decay": 0.9, "policy": {"dropout": 0.1}}
    common["augment"] = Augmentation(brightness=0.1, contrast=0.1, shift_px=1, state_noise=0.01)
    whole = train(run(dataset, tmp_path / "whole", steps=12, save_freq=6, eval_freq=6, **common), lambda _: None)

    class KilledError(Exception):
        pass

    def kill_after_first_checkpoint(line: str) -> None:
        if "step 9/12" in line:
            raise KilledError

    config = run(dataset, tmp_path / "parts", steps=12, save_freq=6, eval_freq=6, log_freq=3, **common)
    with pytest.raises(KilledError):
        train(config, kill_after_first_checkpoint)
    with pytest.raises(TrainingError, match="already holds checkpoints"):
        train(config, lambda _: None)
    resumed = train(
        run(dataset, tmp_path / "parts", steps=12, save_freq=6, eval_freq=6, resume=True, **common), lambda _: None
    )
    for name in ("last", "best"):
        one = load_file(whole.parents[1] / name / "pretrained_model" / "model.safetensors")
        other = load_file(resumed.parents[1] / name / "pretrained_model" / "model.safetensors")
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, atol=1e-6, rtol=1e-5)


def test_resuming_with_another_policy_is_refused(dataset: Path, tmp_path: Path) -> None:
    train(run(dataset, tmp_path, steps=2), lambda _: None)
    with pytest.raises(Exception, match="another configuration"):
        train(run(dataset, tmp_path, steps=4, resume=True, policy={"dim_model": 64}), lambda _: None)


@pytest.mark.parametrize(("keep", "expected"), [(None, {2, 4, 6, 8, 10}), (1, {10}), (2, {8, 10})])
def test_checkpoints_are_kept_as_asked(dataset: Path, tmp_path: Path, keep: int | None, expected: set[int]) -> None:
    best = train(run(dataset, tmp_path, steps=10, save_freq=2, eval_freq=3, keep=keep), lambda _: None)
    root = tmp_path / "checkpoints"
    kept = {int(path.name) for path in root.iterdir() if not (path.is_symlink() or path.name.startswith("."))}
    assert kept == expected | {int((root / "best").resolve().name)}
    assert (root / "last").resolve().name == "000010"
    assert best.exists()


def test_a_checkpoint_survives_a_power_cut(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    cut = watch(tmp_path / "run", monkeypatch)
    train(run(dataset, tmp_path / "run", steps=4, save_freq=2, eval_freq=2, keep=1), lambda _: None)
    assert [name for name in cut.hurried if name.endswith(("safetensors", ".json"))] == []
    assert [path for path in cut.lost() if path.startswith("checkpoints/")] == []
    after = cut.rebuild(tmp_path / "after") / "checkpoints"
    assert (after / "last").resolve().name == "000004"
    assert ACTPolicy.from_pretrained(after / "last/pretrained_model").config.chunk_size == 8
    monkeypatch.undo()
    lines: list[str] = []
    shutil.copytree(after, tmp_path / "again/checkpoints", symlinks=True)
    train(run(dataset, tmp_path / "again", steps=6, save_freq=2, eval_freq=2, keep=1, resume=True), lines.append)
    assert (tmp_path / "again/checkpoints/last").resolve().name == "000006"


def test_resnet_policy_trains_too(dataset: Path, tmp_path: Path) -> None:
    trunk = {"small_cnn_width": 32, "small_cnn_keypoints": 16, "estimate_dim": 0}
    policy = {"vision_backbone": "resnet18", "pretrained_backbone": False, **trunk}
    best = train(run(dataset, tmp_path, steps=2, batch_size=2, policy=policy), lambda _: None)
    assert not (best / "aloha.json").exists()


def test_environment_state_can_take_the_place_of_images(dataset: Path, tmp_path: Path) -> None:
    config = run(dataset, tmp_path, cameras=(), use_environment_state=True, policy={"estimate_dim": 0})
    policy = ACTPolicy.from_pretrained(train(config, lambda _: None))
    observation = {STATE: np.zeros(14, np.float32), ENVIRONMENT_STATE: np.zeros(3, np.float32)}
    assert policy.predict_action_chunk(observation).shape == (8, 14)


def test_chunks_follow_the_observation_and_are_padded_at_the_end(dataset: Path, tmp_path: Path) -> None:
    data = TrainingData(dataset, None, tmp_path, lambda _: None)
    frames = np.array([0, 10, LENGTH - 1, LENGTH, EPISODES * LENGTH - 3])
    batch = data.batch(frames, 5, Augmentation(), np.random.default_rng(0))
    actions = data.vectors[ACTION]
    for row, frame in enumerate(frames):
        end = (frame // LENGTH + 1) * LENGTH
        for offset in range(5):
            np.testing.assert_array_equal(batch[ACTION][row, offset], actions[min(frame + offset, end - 1)])
            assert batch[IS_PAD][row, offset] == (frame + offset >= end)
        np.testing.assert_array_equal(batch[small.CAMERA][row], data.images["cam_high"][frame])
        np.testing.assert_array_equal(batch[STATE][row], data.vectors[STATE][frame])


def test_split_is_by_episode_and_complete(dataset: Path, tmp_path: Path) -> None:
    data = TrainingData(dataset, None, tmp_path, lambda _: None)
    training, validation = data.split(0.25, seed=1)
    assert sorted([*training, *validation]) == list(range(EPISODES * LENGTH))
    assert len({frame // LENGTH for frame in validation}) == 1
    assert not {frame // LENGTH for frame in validation} & {frame // LENGTH for frame in training}
    assert len(data.split(0.99, seed=1)[0]) == LENGTH  # something is always left to train on


def test_frames_are_decoded_once(dataset: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = TrainingData(dataset, None, tmp_path, lines.append)
    again = TrainingData(dataset, None, tmp_path, lines.append)
    assert sum("decoding" in line for line in lines) == 1
    np.testing.assert_array_equal(first.images["cam_high"], again.images["cam_high"])
    other = tmp_path / "other"
    small.write_dataset(other, EPISODES + 1, LENGTH)
    TrainingData(other, None, tmp_path, lines.append)
    assert sum("decoding" in line for line in lines) == 2


def test_deviation_of_resting_joints_has_a_floor(dataset: Path, tmp_path: Path) -> None:
    data = TrainingData(dataset, None, tmp_path, lambda _: None)
    assert data.vectors[STATE][:, 0].std() == 0
    assert data.stats[STATE]["std"][0] == pytest.approx(STD_FLOOR)


def test_augmentation_changes_pixels_within_bounds_and_not_the_labels(dataset: Path, tmp_path: Path) -> None:
    data = TrainingData(dataset, None, tmp_path, lambda _: None)
    frames = np.arange(8)
    plain = data.batch(frames, 3, Augmentation(), np.random.default_rng(0))
    strong = Augmentation(brightness=0.3, contrast=0.3, shift_px=3, state_noise=0.1)
    changed = data.batch(frames, 3, strong, np.random.default_rng(0))
    images = changed[small.CAMERA]
    assert images.shape == (8, 3, small.HEIGHT, small.WIDTH)
    assert 0 <= images.min() <= images.max() <= 1
    assert (images - plain[small.CAMERA].movedim(-1, 1) / 255).abs().mean() > 0.02
    torch.testing.assert_close(changed[ACTION], plain[ACTION])
    assert 0.05 < (changed[STATE] - plain[STATE]).std() < 0.2


def test_a_shift_moves_the_picture_by_whole_pixels(dataset: Path, tmp_path: Path) -> None:
    data = TrainingData(dataset, None, tmp_path, lambda _: None)
    frame = np.zeros(1, dtype=np.int64)
    plain = data.batch(frame, 1, Augmentation(), np.random.default_rng(0))[small.CAMERA].movedim(-1, 1)[0] / 255
    for seed in range(5):
        moved = data.batch(frame, 1, Augmentation(shift_px=2), np.random.default_rng(seed))[small.CAMERA][0]
        inner = moved[:, 2:-2, 2:-2]
        places = [(row, column) for row in range(5) for column in range(5)]
        height, width = inner.shape[1:]
        assert any(torch.equal(inner, plain[:, r : r + height, c : c + width]) for r, c in places)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": ("cam_left",)}, "no camera 'cam_left'; it has: cam_high"),
        ({"policy": {"estimate_dim": 9}}, "estimate_dim = 9"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises((DatasetError, TrainingError), match=words):
        train(run(dataset, tmp_path, **changes), lambda _: None)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 0}, {"schedule": "step"}, {"ema_decay": 1.0}, {"validation_fraction": 1.0}]
)
def test_wrong_training_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        TrainConfig(Path("data"), Path("out"), **wrong)


def test_divergence_stops_with_advice(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite.*lower policy.lr"):
        train(run(dataset, tmp_path, policy={"lr": 1e30}), lambda _: None)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    config = TrainConfig(Path("data"), Path("out"), steps=100, warmup_steps=9, schedule="cosine")
    scale = [learning_rate_scale(config, step) for step in range(100)]
    assert scale[0] == pytest.approx(0.1)
    assert scale[9] == pytest.approx(1.0)
    assert max(scale) <= 1
    assert all(later <= earlier for earlier, later in pairwise(scale[9:]))
    assert scale[99] < 0.001
    assert not math.isnan(sum(scale))


def test_localiser_learns_to_find_a_square_it_has_not_seen() -> None:
    torch.manual_seed(0)
    policy = ACTPolicy(small.config(small_cnn_width=16), small.stats())
    parameters = [*policy.model.backbone.parameters(), *policy.model.spatial.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    random = np.random.default_rng(0)

    def views(count: int) -> tuple[dict[str, Any], torch.Tensor]:
        places = random.random((count, 2))
        pictures = np.stack([small.scene(x, y) for x, y in places])
        return {small.CAMERA: pictures, STATE: np.zeros((count, 14), np.float32)}, torch.tensor(places).float()

    for _ in range(50):
        batch, places = views(8)
        error = (policy(batch)["estimate"][:, :2] - 3 * (places - 0.5)).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    batch, places = views(64)
    final = (policy(batch)["estimate"][:, :2] / 3 + 0.5 - places).abs().mean().item()
    assert final < 0.1  # of the picture; a guess of the middle is off by 0.25
