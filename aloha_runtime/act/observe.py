"""The rig's frames and joint states as the policy's own observation, or why there is none."""

from pathlib import Path
from typing import Any

import numpy as np

from aloha_runtime import messages
from aloha_runtime.act.card import is_card
from aloha_runtime.act.config import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, ACTConfig
from aloha_runtime.act.header import check_cameras, check_weights, load_config
from aloha_runtime.bus import Bus
from aloha_runtime.config import RigConfig
from aloha_runtime.control.sync import Missing, Observation
from aloha_runtime.errors import CheckpointError
from aloha_runtime.inputs import RigInputs
from aloha_runtime.messages import SimState


class PolicyInputs:
    """Subscribes to what one policy needs of one rig."""

    def __init__(self, bus: Bus, rig: RigConfig, config: ACTConfig) -> None:
        """The policy must be one that `refuse_unfit` lets through."""
        self._features = {rig.policy.cameras.get(name, name): IMAGE_PREFIX + name for name in config.cameras}
        self._rig = RigInputs(bus, rig, self._features)
        self._sim = bus.subscribe(messages.SIM_STATE) if ENVIRONMENT_STATE in config.input_shapes else None

    def at(self, tick: int) -> tuple[Observation, dict[str, Any]] | Missing:
        """What the robot knew at the start of a tick, and the same as the network's inputs."""
        self._rig.poll()
        seen = self._rig.at(tick)
        if isinstance(seen, Missing):
            return seen
        found, images = seen
        inputs: dict[str, Any] = {STATE: np.asarray(found.position, dtype=np.float32)}
        inputs |= {self._features[camera]: image for camera, image in images.items()}
        if self._sim is not None:
            sim: SimState | None = self._sim.latest()
            if sim is None:
                return Missing("sim_state: the world has published nothing yet", "sim_state")
            inputs[ENVIRONMENT_STATE] = np.asarray(sim.environment_state, dtype=np.float32)
        return found, inputs


def camera_sizes(rig: RigConfig) -> dict[str, tuple[int, int]]:
    """(height, width) of every camera that a policy may see, under the names that policies use."""
    sizes = {name: camera.shape for name, camera in rig.cameras.items() if not camera.recorded_only}
    return sizes | {theirs: sizes[ours] for theirs, ours in rig.policy.cameras.items()}


def refuse_unfit(directory: Path, rig: RigConfig) -> None:
    """Raise `CheckpointError` unless this policy directory is whole (or the card of a remote policy, without weights),
    and this rig has what the policy looks at."""
    config = load_config(directory)
    refuse_inputs(config, directory, rig)
    if not is_card(directory):
        check_weights(directory)


def refuse_inputs(config: ACTConfig, directory: Path, rig: RigConfig) -> None:
    """Raise `CheckpointError` unless this rig has what the policy looks at."""
    if hidden := [name for name in config.cameras if name in rig.cameras and rig.cameras[name].recorded_only]:
        raise CheckpointError(
            f"checkpoint {directory} needs camera {hidden[0]!r}, which rig {rig.name} only records: take"
            " `recorded_only` out of it in the rig file, or use a checkpoint trained without it"
        )
    check_cameras(config, camera_sizes(rig), directory)
    if ENVIRONMENT_STATE in config.input_shapes and rig.sim is None:
        raise CheckpointError(
            f"checkpoint {directory} needs {ENVIRONMENT_STATE}, which only the simulated rig can give; rig {rig.name} "
            "is a real one: use a checkpoint trained on images"
        )
