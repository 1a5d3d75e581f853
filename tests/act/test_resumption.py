"""What a resumed run says and refuses: another dataset, a prolonged schedule, nothing held out."""

import json
from pathlib import Path
from typing import Any

import pytest
import small_policy as small

from aloha_runtime.act.train import train
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.data import edit


def run(dataset: Path, out: Path, **changes: Any) -> list[str]:
    said: list[str] = []
    settings: dict[str, Any] = {
        "steps": 2, "batch_size": 2, "num_workers": 0, "curves": False, "tensorboard": False, "device": "cpu",
        "policy": small.TINY, "threads": 1, "validation_frames": 4,
    }  # fmt: skip
    train(TrainConfig(dataset=dataset, output_dir=out, **settings | changes), said.append)
    return said


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares"
    small.write_dataset(path, episodes=5)
    return path


def test_a_run_goes_on_with_its_own_dataset_only(squares: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    said = run(squares, out)
    assert any("none of the 5 episodes is held out" in line for line in said)
    small.write_dataset(other, episodes=6)
    with pytest.raises(TrainingError, match=r"trained on .*squares, not .*other .* 5 episodes .*--allow-other-dataset"):
        run(other, out, steps=3, resume=True)
    said = run(other, out, steps=3, resume=True, allow_other_dataset=True)
    assert any("going on, as --allow-other-dataset asks" in line for line in said)
    settings = json.loads((out / "checkpoints/last/training_state/train_config.json").read_text())
    assert "allow_other_dataset" not in settings, "it is asked for each time"


def test_a_dataset_that_changed_since_is_another(tmp_path: Path) -> None:
    path, out = tmp_path / "squares", tmp_path / "out"
    small.write_dataset(path)
    run(path, out)
    edit.delete(path, ["0"])
    with pytest.raises(TrainingError, match=r"began before .* changed .* 4 episodes .* then, 3 with"):
        run(path, out, steps=3, resume=True)


def test_a_prolonged_schedule_says_what_the_learning_rate_does(squares: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run(squares, out, schedule="cosine", validation_fraction=0.2)
    assert not any("held out" in line for line in said), "one of five is"
    said = run(squares, out, schedule="cosine", validation_fraction=0.2, steps=4, resume=True)
    assert any("(cosine) was to end at step 2 and now ends at step 4: it goes from 0% to 50%" in line for line in said)
    said = run(squares, tmp_path / "constant", schedule="constant")
    assert not any("learning rate (" in line for line in said)
