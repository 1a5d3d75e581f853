"""A checkpoint's own `temporal_ensemble_coeff` and `n_action_steps` are followed unless the operator says otherwise."""

import pytest
from pydantic import ValidationError

from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.execution import execution_of
from aloha_runtime.config_parts import PolicyConfig

ENSEMBLED = ACTConfig(temporal_ensemble_coeff=-0.02, chunk_size=60)
OPEN_LOOP = ACTConfig(n_action_steps=25, chunk_size=60)


def test_what_the_checkpoint_says_is_used() -> None:
    own = execution_of(ENSEMBLED)
    assert (own.mode, own.coefficient) == ("paper", -0.02)
    assert str(own) == "temporal ensembling, coefficient -0.02, the oldest chunk first (as the checkpoint says)"
    own = execution_of(OPEN_LOOP)
    assert (own.mode, own.steps) == ("off", 25)
    assert str(own) == "25 actions of each chunk, no ensembling (as the checkpoint says)"


def test_what_the_operator_says_comes_first_and_the_rest_stays_the_checkpoints() -> None:
    assert (execution_of(OPEN_LOOP, "paper").mode, execution_of(OPEN_LOOP, "paper").coefficient) == ("paper", 0.01)
    assert execution_of(OPEN_LOOP, "newest", 0.1).coefficient == 0.1
    assert execution_of(ENSEMBLED, "newest").coefficient == -0.02
    assert execution_of(ENSEMBLED, "off").steps == 60, "an ensembled policy says 1, which is no stretch"
    chosen = execution_of(OPEN_LOOP, "off", steps=100)
    assert chosen.steps == 60, "a chunk has no more"
    assert "the checkpoint says n_action_steps 25" in str(chosen)


@pytest.mark.parametrize(
    "settings", [{"ensemble_m": 0.1}, {"n_action_steps": 5}, {"ensemble": "off", "ensemble_m": 0.1}]
)
def test_a_setting_that_would_not_count_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="counts with `ensemble:"):
        PolicyConfig(**settings)  # type: ignore[arg-type]


def test_a_slower_motion_makes_fewer_trained_steps_in_a_tick() -> None:
    assert execution_of(ENSEMBLED).ensemble(0.5).coefficient == pytest.approx(-0.01)
    assert execution_of(OPEN_LOOP).ensemble(0.3).execute_steps == 84
