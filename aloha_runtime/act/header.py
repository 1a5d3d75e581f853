"""What the files of a policy directory say about themselves, read without torch.

`aloha deploy` refuses a wrong directory with this before it starts anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from aloha_runtime.act import config_file, pipeline_file, processing
from aloha_runtime.act.config import ACTConfig, PolicyConfigError
from aloha_runtime.act.json_file import read_json
from aloha_runtime.act.pipeline_file import Pipelines
from aloha_runtime.act.processing import Processing
from aloha_runtime.damaged import reads
from aloha_runtime.errors import CheckpointError

CONFIG = "config.json"
OURS = "aloha.json"
WEIGHTS = "model.safetensors"
LONGEST_HEADER = 4 << 20
MOST_TENSORS = 10_000
"""Of a file of weights; 100 layers of each kind have 6000. A line of the header has some 100 bytes."""
reads_checkpoint = reads(
    CheckpointError, "Copy the whole policy directory again, or save it again.", (SafetensorError, OSError)
)
"""Of functions that read a policy directory."""


@dataclass(frozen=True)
class Header:
    """Everything of a policy directory but weights and statistics, by the names that the rig knows."""

    config: ACTConfig
    processing: Processing
    pipelines: Pipelines | None
    """None in a directory of LeRobot's up to 0.3, which has its statistics inside the weights."""
    dropped: tuple[str, ...]
    """Inputs that the files list and for which the network has no weights."""


@reads_checkpoint
def load_config(directory: Path) -> ACTConfig:
    """The configuration alone, without reading the weights. Raises `CheckpointError`."""
    return load_header(directory).config


def load_header(directory: Path) -> Header:
    """Configuration and pipelines, without reading the weights. Raises `CheckpointError` for what cannot be carried
    out as LeRobot does."""
    if not directory.exists():
        raise CheckpointError(f"checkpoint {directory} does not exist; give the path of a policy directory")
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory} is a file; give the directory that holds {CONFIG} and {WEIGHTS}")
    if not (directory / CONFIG).exists():
        inner = [path.parent for path in sorted(directory.glob(f"**/pretrained_model/{CONFIG}"))]
        hint = f"did you mean {inner[-1]}?" if inner else "it is not a LeRobot policy directory"
        raise CheckpointError(f"checkpoint {directory} has no {CONFIG}; {hint}")
    ours = read_json(directory / OURS) if (directory / OURS).exists() else None
    lerobot = read_json(directory / CONFIG)
    try:
        config = config_file.config_from_json(lerobot, ours)
    except PolicyConfigError as error:
        raise CheckpointError(f"checkpoint {directory} cannot be used: {error}") from error
    dropped = config_file.without_weights(lerobot)
    pipelines = pipeline_file.read(directory)
    if pipelines is None:
        return Header(config, Processing.of(config), None, dropped)
    found = processing.compiled(pipelines, config)
    shapes = {found.renamed.get(name, name): shape for name, shape in config.input_shapes.items()}
    return Header(replace(config, input_shapes=shapes), found, pipelines, dropped)


def check_cameras(config: ACTConfig, cameras: Mapping[str, tuple[int, int]], directory: Path) -> None:
    """Raise `CheckpointError` unless every camera of the policy is among the rig's `{name: (height, width)}`."""
    for name, (height, width) in config.cameras.items():
        if name not in cameras:
            there = ", ".join(cameras) or "none"
            raise CheckpointError(
                f"checkpoint {directory} needs camera {name!r}, the rig has: {there}; map the policy's camera names to "
                "the rig's in the configuration, or use a checkpoint trained on this rig"
            )
        if tuple(cameras[name]) != (height, width):
            have = f"{cameras[name][1]}x{cameras[name][0]}"
            raise CheckpointError(
                f"checkpoint {directory} was trained on {width}x{height} images of {name!r}, the rig delivers {have}; "
                f"set `resize: [{width}, {height}]` of that camera in the rig file, with the `crop` that the training "
                "pictures had"
            )


def refuse_many_tensors(path: Path) -> None:
    """Raise `CheckpointError` for a safetensors file whose header describes more tensors than any policy has, each of
    which would cost its reader time."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise CheckpointError(f"{path} is truncated or not a safetensors file (a header of {length} bytes)")
        try:
            tensors = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError):
            return  # its own reader says what is wrong
    if len(tensors) > MOST_TENSORS:
        raise CheckpointError(f"{path} holds {len(tensors)} tensors, more than {MOST_TENSORS}; it is no ACT policy")


@reads_checkpoint
def check_weights(directory: Path) -> None:
    """Raise `CheckpointError` unless the weights are there and as long as their own header says."""
    path = directory / WEIGHTS
    if not path.exists():
        raise CheckpointError(f"{path} is missing; copy the whole policy directory")
    refuse_many_tensors(path)
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error
