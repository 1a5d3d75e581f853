"""Where a training run starts from: data and a policy, new or fine-tuned from another one's weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aloha_runtime.act.config import ENVIRONMENT_STATE, IMAGE_PREFIX, RESNETS, TRAINING_FIELDS, ACTConfig
from aloha_runtime.act.dataset import TrainingData
from aloha_runtime.act.ensemble import PAPER_COEFFICIENT
from aloha_runtime.act.fit import refuse_unfit_data
from aloha_runtime.act.normalize import Stats
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.act.train_config import TrainConfig, TrainingError
from aloha_runtime.config import policy_path
from aloha_runtime.data.reader import Dataset

IMAGENET_STATS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of pixels in 0..1, what torchvision's pretrained ResNets (and VIP) were trained with."""


def load_data(config: TrainConfig, report: Callable[[str], None]) -> tuple[TrainingData, ACTPolicy | None]:
    """The dataset's frames, and the policy to fine-tune, whose cameras then are the ones to use."""
    source = ACTPolicy.from_pretrained(policy_path(config.init_from)) if config.init_from else None
    cameras = config.cameras
    if source is not None:
        cameras = tuple(source.config.cameras) if cameras is None else cameras
        source = looking_through(source, cameras)
    cache = config.frame_cache or config.output_dir / "frames"
    data = TrainingData(config.dataset, cameras, cache, report, cache_gb=config.frame_cache_gb)
    return data, source


def looking_through(source: ACTPolicy, cameras: Sequence[str]) -> ACTPolicy:
    """The same policy with `cameras` in the places of its own, in order."""
    own = list(source.config.images)
    if len(own) != len(cameras):
        raise TrainingError(
            f"cameras = {','.join(cameras)}: the policy to start from looks through {len(own)}: "
            f"{', '.join(source.config.cameras)}; name as many, in that order"
        )
    names = dict(zip(own, (IMAGE_PREFIX + camera for camera in cameras), strict=True))
    shapes = {names.get(name, name): shape for name, shape in source.config.input_shapes.items()}
    stats = {names.get(name, name): values for name, values in source.normalizer.stats.items()}
    made = replace(source.config, input_shapes=shapes)
    policy = ACTPolicy(made, stats, source.processing.with_names(names), pretrained_backbone=False)
    policy.load_state_dict(source.state_dict())
    return policy


def make_policy(config: TrainConfig, data: TrainingData, source: ACTPolicy | None, *, pretrained: bool) -> ACTPolicy:
    """The policy as training starts with it; `pretrained` False when a checkpoint's weights will replace these."""
    torch.manual_seed(config.seed)
    if source is None:
        made = policy_config(config, data)
        return ACTPolicy(made, image_stats(config, made, data.stats), pretrained_backbone=pretrained)
    made = _changed(source.config, config)
    refuse_unfit_data(Dataset(config.dataset), made, policy_stats=source.normalizer.stats)
    _check_estimate(config, made, data)
    policy = ACTPolicy(made, source.normalizer.stats, source.processing, pretrained_backbone=False)
    policy.load_state_dict(source.state_dict())
    return policy


def policy_config(config: TrainConfig, data: TrainingData) -> ACTConfig:
    """A new policy's configuration, with the dataset's features filled in."""
    inputs, outputs = data.shapes(use_environment_state=config.use_environment_state)
    made = ACTConfig(**{"input_shapes": inputs, "output_shapes": outputs, **_as_run(config.policy)})
    _check_estimate(config, made, data)
    return made


def _as_run(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of a new policy, which says that it is run with the paper's ensembling unless they say how else."""
    said = {"temporal_ensemble_coeff", "n_action_steps"} & set(policy)
    return policy if said else {"temporal_ensemble_coeff": PAPER_COEFFICIENT, **policy}


def _check_estimate(config: TrainConfig, made: ACTConfig, data: TrainingData) -> None:
    if made.estimate_dim > (data.vectors[ENVIRONMENT_STATE].shape[1] if ENVIRONMENT_STATE in data.vectors else 0):
        raise TrainingError(
            f"estimate_dim = {made.estimate_dim}: {config.dataset} has no {ENVIRONMENT_STATE} that long; set"
            " it to 0, or make the demonstrations again with `aloha demonstrate --with-object-poses`"
        )


def _changed(found: ACTConfig, config: TrainConfig) -> ACTConfig:
    """The fine-tuned policy's configuration with those of `config.policy` that are no matter of its shape."""
    made = replace(found, **config.policy)
    changed = other_shape(found, made)
    if changed:
        raise TrainingError(
            f"policy.{changed} = {getattr(made, changed)!r}: {config.init_from} has {getattr(found, changed)!r}, and "
            f"its weights fit no other; leave it out. What may change: {', '.join(TRAINING_FIELDS)}"
        )
    return made


def other_shape(one: ACTConfig, other: ACTConfig) -> str | None:
    """The first field in which two configurations differ and with which their weights do; None when they agree."""
    for name in ACTConfig.__dataclass_fields__:
        if name not in TRAINING_FIELDS and _plain(getattr(one, name)) != _plain(getattr(other, name)):
            return name
    return None


def _plain(value: Any) -> Any:
    return {key: tuple(item) for key, item in value.items()} if isinstance(value, dict) else value


def image_stats(config: TrainConfig, made: ACTConfig, stats: Stats) -> dict[str, dict[str, Tensor]]:
    """The dataset's statistics; those of images are ImageNet's when the trunk was trained with them."""
    result = {name: dict(values) for name, values in stats.items()}
    pretrained_resnet = made.vision_backbone in RESNETS and bool(made.pretrained_backbone or made.use_vip)
    if pretrained_resnet if config.use_imagenet_stats is None else config.use_imagenet_stats:
        for name in made.images:
            for key, value in IMAGENET_STATS.items():
                result[name][key] = torch.tensor(value).reshape(3, 1, 1)
    return result
