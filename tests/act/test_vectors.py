"""Agreement with LeRobot 0.6.1 on every reference vector: outputs, ensembled actions, losses, and weight names."""

import numpy as np
import pytest
import reference_vectors as vectors
import torch
from reference_vectors import NAMES, Vector

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=NAMES)
def vector(request: pytest.FixtureRequest) -> Vector:
    return vectors.load(request.param)


def test_weight_names_and_shapes_are_those_of_lerobot(vector: Vector) -> None:
    ours = {name: list(tensor.shape) for name, tensor in vector.policy.state_dict().items()}
    assert ours == vector.spec["state_dict"]


def test_chunks_agree_as_a_batch_and_one_by_one(vector: Vector) -> None:
    policy = vector.policy.eval()
    expected = vector.arrays["chunks"]
    batched = policy.predict_action_chunk(vector.observation(slice(0, 4))).numpy()
    np.testing.assert_allclose(batched, expected, atol=TOLERANCE, rtol=0)
    single = policy.predict_action_chunk(vector.observation(2)).numpy()
    assert single.shape == expected.shape[1:]
    np.testing.assert_allclose(single, expected[2], atol=TOLERANCE, rtol=0)


def test_ensembled_actions_agree(vector: Vector) -> None:
    policy = vector.make_policy(n_action_steps=1, temporal_ensemble_coeff=0.01)
    actions = [policy.select_action(vector.observation(index)).numpy() for index in range(24)]
    np.testing.assert_allclose(np.stack(actions), vector.arrays["ensembled"], atol=TOLERANCE, rtol=0)


def test_losses_agree(vector: Vector) -> None:
    policy = vector.policy.train()
    batch = {
        **vector.observation(slice(0, 4)),
        "action": vector.arrays["actions"],
        "action_is_pad": vector.arrays["action_is_pad"],
    }
    noise = vector.arrays.get("latent_noise")
    output = policy(batch, None if noise is None else torch.from_numpy(noise))
    losses = policy.losses(output, batch)
    assert losses["loss"].item() == pytest.approx(float(vector.arrays["loss"]), rel=TOLERANCE)
    torch.testing.assert_close(policy.compute_loss(output, batch), losses["loss"])
    assert losses["l1_loss"].item() == pytest.approx(float(vector.arrays["l1_loss"]), rel=TOLERANCE)
    if vector.config().use_vae:
        assert losses["kld_loss"].item() == pytest.approx(float(vector.arrays["kld_loss"]), rel=TOLERANCE)
    else:
        assert "kld_loss" not in losses
        assert "mu" not in output
