"""What happens around a network: crop and resize, normalisation, relative actions. LeRobot's pipelines as one value.

`compiled` makes it of a policy directory's pipelines, in the order in which their steps stand there; an order whose
result would be another than this runtime's is refused by name. `pipeline_save.py` is the way back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from aloha_runtime.act import pipeline_file
from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, STATE, ACTConfig, feature_type
from aloha_runtime.act.pipeline_file import AFTER, BEFORE, CropResize, Normalize, Pipelines, Relative, Step
from aloha_runtime.errors import CheckpointError

EPS = 1e-8
"""Added to a standard deviation before dividing by it; LeRobot's `normalizer_processor` has the same default."""

LARGEST = 4096
"""Pixels in a row or column that a picture may be resized to; no camera of a rig has more."""

Crop = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


@dataclass(frozen=True)
class Processing:
    """Everything between the rig's units and the network's, by the names that the rig knows."""

    norm_map: Mapping[str, str]
    """`{type of feature: mode}` of the inputs."""
    action_mode: str = "IDENTITY"
    eps: float = EPS
    action_eps: float = EPS
    unnormalized: frozenset[str] = frozenset()
    """Inputs that pass unchanged whatever their type."""
    crops: Mapping[str, Crop] = field(default_factory=dict)
    resize: tuple[int, int] | None = None
    """(height, width) of every image as the network sees it."""
    relative: Relative | None = None
    """The network's actions are offsets from the state of their observation; its settings say which numbers."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """`{name in the files: name that the rig knows}` of inputs where both differ."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """The steps as a person reads them."""

    @classmethod
    def of(cls, config: ACTConfig) -> "Processing":
        """What a configuration alone says, as for a policy of ours."""
        modes = config.normalization_mapping
        return cls(norm_map=dict(modes), action_mode=modes.get("ACTION", "IDENTITY"))

    def mode(self, name: str) -> str:
        """How an input or the action is normalised."""
        if name == ACTION:
            return self.action_mode
        return "IDENTITY" if name in self.unnormalized else self.norm_map.get(feature_type(name), "IDENTITY")

    def with_names(self, names: Mapping[str, str]) -> "Processing":
        """The same for a policy whose inputs are called otherwise, `{old: new}`."""
        return replace(
            self,
            unnormalized=frozenset(names.get(name, name) for name in self.unnormalized),
            crops={names.get(name, name): crop for name, crop in self.crops.items()},
        )

    def mask(self, size: int) -> tuple[bool, ...]:
        """Which numbers of an action (`size`,) are offsets from the state; none where actions are absolute."""
        if self.relative is None:
            return (False,) * size
        excluded = [name.lower() for name in self.relative.exclude_joints or () if name]
        names = [name.lower() for name in self.relative.action_names or ()] if excluded else []
        given = [not any(token in name for token in excluded) for name in names[:size]]
        return (*given, *(True,) * (size - len(given)))


def compiled(pipelines: Pipelines, config: ACTConfig) -> Processing:
    """The pipelines of a policy whose inputs `config` names as the network does. Raises `CheckpointError`."""
    before, after = _by_name(pipelines.before), _by_name(pipelines.after)
    normalizer = _needed(before, "normalizer_processor", pipelines, BEFORE)
    unnormalizer = _needed(after, "unnormalizer_processor", pipelines, AFTER)
    rename, cropper = before.get("rename_observations_processor"), before.get("image_crop_resize_processor")
    relative, absolute = before.get("relative_actions_processor"), after.get("absolute_actions_processor")
    for step in (rename, cropper, relative):
        if step is not None and step.index > normalizer.index:
            raise step.refuse("stands after normalizer_processor: only numbers in raw units are executed")
    if absolute is not None and absolute.index < unnormalizer.index:
        raise absolute.refuse("stands before unnormalizer_processor: only numbers in raw units are executed")
    renamed = _renamed(rename, config)
    named = renamed if rename is None or cropper is None or rename.index < cropper.index else {}
    settings: Normalize = normalizer.settings
    return Processing(
        norm_map=settings.norm_map,
        action_mode=unnormalizer.settings.norm_map.get("ACTION", "IDENTITY"),
        eps=settings.eps,
        action_eps=unnormalizer.settings.eps,
        unnormalized=frozenset(renamed.get(name, name) for name in _unnormalized(normalizer, settings, config)),
        crops={}
        if cropper is None
        else _crops(cropper, named, {renamed.get(n, n): s for n, s in config.images.items()}),
        resize=None if cropper is None else _size(cropper),
        relative=_relative(relative, absolute, config),
        renamed=renamed,
        before=tuple(map(_said, pipelines.before)),
        after=tuple(map(_said, pipelines.after)),
    )


def _by_name(steps: tuple[Step, ...]) -> dict[str, Step]:
    """The steps that change a number, by name; each may be there once."""
    found: dict[str, Step] = {}
    for step in steps:
        if step.name in pipeline_file.BATCH or step.name == "device_processor":
            continue
        if step.name in found:
            raise step.refuse(f"is there twice (step {found[step.name].index} as well); one is executed")
        found[step.name] = step
    return found


def _needed(steps: Mapping[str, Step], name: str, pipelines: Pipelines, pipeline: str) -> Step:
    if name not in steps:
        raise CheckpointError(f"{pipelines.directory / pipeline}.json has no {name} step; it is damaged")
    return steps[name]


def _renamed(step: Step | None, config: ACTConfig) -> dict[str, str]:
    """`{the network's name: the name before the renaming}` of the inputs that are renamed."""
    names: Mapping[str, str] = (step.settings.rename_map or {}) if step else {}
    found: dict[str, str] = {}
    for old, new in names.items():
        if step is None or new not in config.input_shapes or old == new:
            continue  # what the network does not read
        if new in found:
            raise step.refuse(f"renames both {found[new]} and {old} to {new}; name one")
        if not (old.startswith(IMAGE_PREFIX) and new.startswith(IMAGE_PREFIX)):
            raise step.refuse(f"renames {old} to {new}; the rig gives no {old}, only cameras can have other names")
        found[new] = old
    for name in config.input_shapes:
        if step is not None and names.get(name, name) != name and name not in found:
            raise step.refuse(f"renames {name} to {names[name]}, and nothing else becomes the network's {name}")
    twice = set(found.values()) & (set(config.input_shapes) - set(found))
    if twice and step is not None:
        raise step.refuse(f"gives {min(twice)} to two inputs of the network")
    return found


def _unnormalized(step: Step, settings: Normalize, config: ACTConfig) -> set[str]:
    """Inputs that this step leaves as they are, whatever `norm_map` says of their type."""
    keys = settings.normalize_observation_keys
    left = set()
    for name in config.input_shapes:
        feature = settings.features.get(name)
        if feature is None or (keys is not None and name not in keys):
            left.add(name)
        elif feature.type != feature_type(name):
            raise step.refuse(f"{name} is of type {feature.type}, must be {feature_type(name)}")
    return left


def _crops(step: Step, named: Mapping[str, str], images: Mapping[str, tuple[int, ...]]) -> dict[str, Crop]:
    """Crops of the images that the network sees, each inside its image."""
    settings: CropResize = step.settings
    crops: dict[str, Crop] = {}
    for name, crop in (settings.crop_params_dict or {}).items():
        ours = named.get(name, name)
        if ours not in images:
            continue  # an image that the network does not see
        (_, height, width), (top, left, rows, columns) = images[ours], crop
        if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
            raise step.refuse(f"crop {list(crop)} of {name} is not inside its {width}x{height} image")
        crops[ours] = crop
    return crops


def _size(step: Step) -> tuple[int, int] | None:
    settings: CropResize = step.settings
    if settings.resize_size is not None and not all(1 <= size <= LARGEST for size in settings.resize_size):
        raise step.refuse(f"resize_size {list(settings.resize_size)} must be two numbers of 1 to {LARGEST}")
    return settings.resize_size


def _relative(before: Step | None, after: Step | None, config: ACTConfig) -> Relative | None:
    """The settings of a pair that is switched on; both or neither must be."""
    is_relative, is_absolute = (step is not None and step.settings.enabled for step in (before, after))
    if is_relative and not is_absolute and before is not None:
        raise before.refuse("actions are relative, and no absolute_actions_processor makes them absolute again")
    if is_absolute and not is_relative and after is not None:
        raise after.refuse("makes actions absolute that no relative_actions_processor made relative")
    if before is None or not is_relative:
        return None
    settings: Relative = before.settings
    if settings.exclude_joints and settings.action_names is None:
        raise before.refuse("exclude_joints names joints, and action_names does not say which number is which")
    if config.state_dim < config.action_dim:
        raise before.refuse(f"actions of {config.action_dim} numbers are relative to {STATE} of {config.state_dim}")
    return settings


def _said(step: Step) -> str:
    """A step for people: its name and what it is set to."""
    settings = step.settings
    if isinstance(settings, Normalize):
        modes = ", ".join(f"{kind} {mode}" for kind, mode in settings.norm_map.items())
        keys = settings.normalize_observation_keys
        only = "" if keys is None else f", only {', '.join(keys) or 'nothing'}"
        return f"{step.name} ({modes or 'nothing'}; eps {settings.eps:g}{only})"
    values = {key: value for key, value in msgspec.structs.asdict(settings).items() if value not in (None, {}, [])}
    said = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"{step.name} ({said})" if said else step.name
