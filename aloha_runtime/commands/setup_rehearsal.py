"""`aloha setup` rehearsed on the simulated rig: emulated arms, and hands that do to them what a person is asked for."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aloha_runtime.config import RigConfig
from aloha_runtime.robot import JOINTS, KITS
from aloha_runtime.sim.chain_control import Place, Plug, Request, Unplug
from aloha_runtime.sim.standalone import EmulatedArm


class Hands:
    """Does what `Person.does` asks for, by its name: `unplug.leader_left`."""

    def __init__(self, rig: RigConfig, arms: dict[str, EmulatedArm]) -> None:
        self._rig, self._arms = rig, arms

    def __call__(self, name: str) -> None:
        verb, _, arm = name.partition(".")
        kit = KITS[self._rig.kit].gripper("leader" if arm.startswith("leader") else "follower")
        gripper = JOINTS.index("gripper")
        work: dict[str, list[Request]] = {
            "unplug": [Unplug()],
            "plug": [Plug()],
            "open": [Place(gripper, kit.angle_open)],
            "close": [Place(gripper, kit.angle_close)],
            "zero": [Place(joint, 0.0) for joint in range(gripper)],
        }
        for request in work.get(verb, []):
            self._arms[arm].ask(request)


@contextlib.contextmanager
def rehearsal(rig: RigConfig) -> Iterator[tuple[Path, Hands]]:
    """Emulated arms of `rig` as long as it lasts: the folder of their adapters, and hands for them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aloha-setup-")))
        yield folder, Hands(rig, {name: stack.enter_context(EmulatedArm(folder, name)) for name in map(str, rig.arms)})
