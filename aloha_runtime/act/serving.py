"""A checkpoint as a policy server offers it: its card, what it looks at, and the engine that runs it."""

from collections.abc import Callable
from pathlib import Path

from aloha_runtime.act import opening
from aloha_runtime.act.card import KNOWN
from aloha_runtime.act.config import IMAGE_PREFIX, ACTConfig
from aloha_runtime.act.device import choose_device
from aloha_runtime.act.engine_files import digest
from aloha_runtime.act.engines import Engine
from aloha_runtime.act.header import check_weights, load_config
from aloha_runtime.errors import CheckpointError
from aloha_runtime.remote.frames import Inputs
from aloha_runtime.remote.server import Served
from aloha_runtime.remote.wire import CARD_BYTES
from aloha_runtime.robot import CONTROL_HZ

ENOUGH_MS = 5.0
"""What needs no more is not tried to be made faster: the network takes its time as well."""


def served(directory: Path) -> Served:
    """What a server says of the checkpoint that it serves; raises CheckpointError."""
    load_config(directory)
    check_weights(directory)
    names = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    files = {name: (directory / name).read_bytes() for name in names if KNOWN.fullmatch(name)}
    if "policy_preprocessor.json" not in files:
        raise CheckpointError(
            f"checkpoint {directory} keeps its statistics inside its weights, as LeRobot did up to 0.3: save a copy "
            "with ACTPolicy.from_pretrained(...).save_pretrained(...) and serve that"
        )
    size = sum(map(len, files.values()))
    if size > CARD_BYTES:
        raise CheckpointError(f"{directory}: statistics and pictures have {size} bytes, more than {CARD_BYTES}")
    return Served(digest(directory), files, CONTROL_HZ)


def inputs_of(config: ACTConfig) -> Inputs:
    """What a policy looks at, as messages carry it."""
    shapes = config.input_shapes
    pictures = {name: (shape[1], shape[2]) for name, shape in shapes.items() if name.startswith(IMAGE_PREFIX)}
    return Inputs(pictures, {name: shape[0] for name, shape in shapes.items() if name not in pictures})


def open_engine(
    directory: Path, wanted: str, device: str, threads: int, report: Callable[[str], None]
) -> tuple[ACTConfig, Engine, str]:
    """The policy's configuration, its engine, warmed up, and what was chosen, for people. `device`: cpu, cuda, or auto,
    which takes a GPU where there is one. Raises CheckpointError, ConfigError for a device that is not there."""
    place = choose_device(device, wanted)
    config, choice = opening.open_engine(directory, wanted, place, threads, ENOUGH_MS, report)
    return config, choice.engine, f"{place}, {choice}"
