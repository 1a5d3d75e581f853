"""What a person should know when a training run goes on, or starts with few episodes."""

from collections.abc import Callable, Iterator
from pathlib import Path

from aloha_runtime.act import provenance
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.optimize import learning_rate_scale
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.act.training_state import read_position, saved_settings


def refuse_other_dataset(last: Path, config: TrainConfig, report: Callable[[str], None]) -> None:
    """Raise TrainingError when the run in `last` was trained on another dataset, or on this one before it changed.

    With `allow_other_dataset` it is only said.
    """
    before = provenance.read(last / "pretrained_model").get("dataset", {})
    now = provenance.dataset(config.dataset)
    if not before.get("fingerprint") or before["fingerprint"] == now["fingerprint"]:
        return
    moved = before.get("path") != now["path"]
    what = f"was trained on {before.get('path')}, not {now['path']}" if moved else f"began before {now['path']} changed"
    said = (
        f"{last}: the run {what} (fingerprints differ: {before.get('total_episodes')} episodes with"
        f" {before.get('total_frames')} frames then, {now.get('total_episodes')} with {now.get('total_frames')} now)"
    )
    if not config.allow_other_dataset:
        raise TrainingError(
            f"{said}. Name the dataset it began on, fine-tune instead (--init-from {last / 'pretrained_model'} with a"
            " new --output-dir), or go on all the same with --allow-other-dataset."
        )
    report(f"{said}; going on, as --allow-other-dataset asks")


def remarks(config: TrainConfig, data: TrainingData, last: Path | None) -> Iterator[str]:
    """Lines for people: nothing is held out; what the learning rate does when a finished schedule is prolonged."""
    if config.validation_fraction and not data.held_out(config.validation_fraction):
        yield (
            f"none of the {len(data.starts)} episodes is held out (--validation-fraction {config.validation_fraction:g}"
            " is less than one of them): nothing is validated, and `best` is the newest checkpoint"
        )
    if last is None or config.schedule == "constant":
        return
    step, before = read_position(last).step, saved_settings(config.output_dir).get("steps", config.steps)
    if before == config.steps:
        return
    then = TrainConfig(dataset=config.dataset, output_dir=config.output_dir, steps=before, schedule=config.schedule,
                       warmup_steps=config.warmup_steps)  # fmt: skip
    from_scale = learning_rate_scale(then, min(step, before))
    to_scale = learning_rate_scale(config, min(step, config.steps))
    yield (
        f"the learning rate ({config.schedule}) was to end at step {before} and now ends at step {config.steps}: it"
        f" goes from {from_scale:.0%} to {to_scale:.0%} of its full value at step {step}, then down to 0 again"
    )
