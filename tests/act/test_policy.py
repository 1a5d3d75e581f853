"""The promises of `ACTPolicy`: raw units in and out, with or without a batch, and clear words for wrong inputs."""

import numpy as np
import pytest
import small_policy as small
import torch

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, STATE
from aloha_runtime.act.model import IS_PAD


def make_policy(**changes: object) -> ACTPolicy:
    torch.manual_seed(0)
    return ACTPolicy(small.config(**changes), small.stats()).eval()


def test_chunk_has_a_batch_dimension_only_when_the_observation_has() -> None:
    policy = make_policy()
    batch = small.observation(batch=3)
    chunks = policy.predict_action_chunk(batch)
    assert chunks.shape == (3, 8, 14)
    one = policy.predict_action_chunk({name: value[1] for name, value in batch.items()})
    assert one.shape == (8, 14)
    torch.testing.assert_close(one, chunks[1], atol=1e-5, rtol=0)


def test_uint8_and_float_images_are_the_same() -> None:
    policy = make_policy()
    observation = small.observation()
    as_float = {**observation, small.CAMERA: observation[small.CAMERA].transpose(2, 0, 1).astype(np.float32) / 255}
    expected = policy.predict_action_chunk(observation)
    torch.testing.assert_close(policy.predict_action_chunk(as_float), expected, atol=1e-5, rtol=0)
    tensors = {name: torch.from_numpy(value) for name, value in as_float.items()}
    torch.testing.assert_close(policy.predict_action_chunk(tensors), expected, atol=1e-5, rtol=0)


def test_output_is_in_raw_units() -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.model.action_head.weight.zero_()
        policy.model.action_head.bias.fill_(2.0)
    mean, std = small.stats()[ACTION]["mean"], small.stats()[ACTION]["std"]
    chunk = policy.predict_action_chunk(small.observation())
    torch.testing.assert_close(chunk, (mean + 2 * std).expand(8, 14))


def test_prediction_in_training_mode_is_that_of_evaluation() -> None:
    policy = make_policy(dropout=0.5)
    expected = policy.predict_action_chunk(small.observation())
    policy.train()
    torch.testing.assert_close(policy.predict_action_chunk(small.observation()), expected)
    assert policy.training


def test_select_action_executes_a_chunk_open_loop_then_predicts_again() -> None:
    policy = make_policy(n_action_steps=3)
    chunks = [policy.predict_action_chunk(small.observation(seed=seed)) for seed in range(6)]
    for tick, (source, place) in enumerate([(0, 0), (0, 1), (0, 2), (3, 0), (3, 1), (3, 2)]):
        action = policy.select_action(small.observation(seed=tick))
        torch.testing.assert_close(action, chunks[source][place], atol=1e-6, rtol=0)
    policy.reset()
    torch.testing.assert_close(policy.select_action(small.observation(seed=5)), chunks[5][0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("coefficient", [None, 0.01])
def test_select_action_with_a_batch_is_each_alone(coefficient: float | None) -> None:
    policy = make_policy(n_action_steps=1, temporal_ensemble_coeff=coefficient)
    together = [policy.select_action(small.observation(batch=2, seed=seed)) for seed in range(4)]
    policy.reset()
    for seed in range(4):
        alone = {name: value[1] for name, value in small.observation(batch=2, seed=seed).items()}
        torch.testing.assert_close(policy.select_action(alone), together[seed][1], atol=1e-5, rtol=0)


def test_the_latent_matters_in_training_and_is_zero_at_run_time() -> None:
    policy = make_policy(use_vae=True, n_vae_encoder_layers=1, latent_dim=4)
    batch = {
        **small.observation(batch=2),
        ACTION: np.random.default_rng(1).normal(size=(2, 8, 14)).astype(np.float32),
        IS_PAD: np.zeros((2, 8), dtype=bool),
    }
    noisy = policy(batch, torch.full((2, 4), 3.0))
    quiet = policy(batch, torch.zeros(2, 4))
    assert noisy["mu"].shape == noisy["log_var"].shape == (2, 4)
    assert (noisy["action"] - quiet["action"]).abs().max() > 1e-4
    inference = policy(small.observation(batch=2))
    assert "mu" not in inference
    torch.testing.assert_close(inference["action"], policy.predict_action_chunk(small.observation(batch=2)))


def test_padded_steps_do_not_count_in_the_loss() -> None:
    policy = make_policy()
    actions = np.random.default_rng(2).normal(size=(2, 8, 14)).astype(np.float32)
    pad = np.zeros((2, 8), dtype=bool)
    pad[:, 5:] = True
    batch = {**small.observation(batch=2), ACTION: actions, IS_PAD: pad}
    output = policy(batch)
    loss = policy.losses(output, batch)["l1_loss"]
    actions[:, 5:] += 100
    torch.testing.assert_close(policy.losses(output, batch)["l1_loss"], loss)
    std = small.stats()[ACTION]["std"]
    expected = ((output["action"][:, :5] - torch.from_numpy(actions[:, :5])).abs() / std).mean()
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(policy.losses(output, {**batch, IS_PAD: np.ones((2, 8), dtype=bool)})["loss"])


def test_estimate_of_the_environment_state_is_trained_when_the_batch_has_the_truth() -> None:
    policy = make_policy()
    batch = {**small.observation(batch=2), ACTION: np.zeros((2, 8, 14), np.float32), IS_PAD: np.zeros((2, 8), bool)}
    output = policy(batch)
    assert output["estimate"].shape == (2, 3)
    assert "estimate_loss" not in policy.losses(output, batch)
    stats = small.stats()[ENVIRONMENT_STATE]
    truth = stats["mean"] + stats["std"] * torch.cat([output["estimate"].detach(), torch.zeros(2, 4)], dim=1)
    losses = policy.losses(output, {**batch, ENVIRONMENT_STATE: truth})
    assert losses["estimate_loss"].item() == pytest.approx(0, abs=1e-9)
    assert policy.estimate_error(output["estimate"], truth + 0.25) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({STATE: None}, "lacks observation.state"),
        ({STATE: np.zeros(13, np.float32)}, r"observation.state has shape \(13,\)"),
        ({small.CAMERA: np.zeros((small.WIDTH, small.HEIGHT, 3), np.uint8)}, r"must be \(48, 64, 3\) for uint8"),
        ({small.CAMERA: np.zeros((small.HEIGHT, small.WIDTH, 3), np.float32)}, r"must be \(3, 48, 64\) for float32"),
        ({small.CAMERA: np.full((3, small.HEIGHT, small.WIDTH), 200, np.float32)}, "outside 0..1"),
        ({STATE: np.zeros((2, 14), np.float32)}, "same batch dimension"),
    ],
)
def test_wrong_observations_are_named(change: dict[str, np.ndarray | None], words: str) -> None:
    observation = {**small.observation(), **change}
    observation = {name: value for name, value in observation.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        make_policy().predict_action_chunk(observation)
