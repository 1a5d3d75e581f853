"""Grippers whose horns are mounted elsewhere than the kit's: who starts teleoperation, and how far followers close.

In virtual time, with the real loops of supervisor, arms and teleoperation over emulated chains. Both kits, each arm
with a range of its own, as `aloha setup` writes it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

from aloha_runtime import config, messages
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.commands.faults.virtual_parts import Bus
from aloha_runtime.commands.faults.virtual_rig import VirtualRig
from aloha_runtime.config import RigConfig
from aloha_runtime.messages import Health, Mode
from aloha_runtime.processes.teleop import TeleopLoop
from aloha_runtime.robot import KITS, SIDES, START_POSE, Role
from aloha_runtime.sim.servo import ServoPlant

SHIFTS_RAD = {"0.25 rad lower than the kit's": -0.25, "0.39 rad higher than the kit's": 0.39}
"""How far the range of a gripper lies from its kit's: with the first a threshold in the kit's angles starts
teleoperation with nobody there, with the second it can never start."""
EACH = "each at another place"
SINKS_S = (0.1, 2.0)
"""A gripper that nobody holds sinks from half open to wherever it rests in so many seconds."""
NOBODY_S, PERSON_S, FOLLOWS_S = 3.0, 1.0, 1.0
SQUEEZED = -0.1
"""Openings: a leader squeezed past its closed end, as hands do."""
CLOSES_WITHIN = 0.01
"""Openings: how near to where its leader is a free follower gripper ends; a few ticks of either."""


def rig_of(kit: str, shifts_rad: Mapping[str, float]) -> RigConfig:
    """The simulated rig with a kit's grippers, each arm's range shifted by so much."""
    plain = config.load("sim").model_dump(mode="json") | {"kit": kit}
    for arm, shift_rad in shifts_rad.items():
        role: Role = "leader" if arm.startswith("leader") else "follower"
        usual = KITS[kit].gripper(role)
        plain["arms"][arm]["gripper"] = {
            "angle_open": usual.angle_open + shift_rad,
            "angle_close": usual.angle_close + shift_rad,
        }
    return RigConfig.model_validate(plain)


class Table:
    """The rig, and the hands (or the weight) at its leader grippers."""

    def __init__(self, rig: RigConfig, sinks_s: Mapping[str, float], rests: Mapping[str, float]) -> None:
        """`sinks_s`, `rests`: of each leader, in how many seconds its gripper sinks, and to which opening."""
        self.settings, self._sinks_s, self._rests = rig, sinks_s, rests
        self.opening: float | None = None
        """Where a person holds both grippers; None: nobody is there."""
        self._let_go_ns = 0
        self.rig = VirtualRig(rig, self._plant, self._drive)
        service = SimpleNamespace(rig=rig, bus=self.rig.bus)
        self.teleop = TeleopLoop(service)  # type: ignore[arg-type]

    def _plant(self, arm: str) -> ServoPlant:
        role: Role = "leader" if arm.startswith("leader") else "follower"
        gripper = self._gripper(arm)
        angles = (*START_POSE, gripper.angle_from_action(0.5 if role == "leader" else 0.0))
        return ServoPlant(role, angles, (lambda: self._hand(arm)) if role == "leader" else (lambda: None))

    def _gripper(self, arm: str) -> Any:
        role, _, side = arm.partition("_")
        return self.settings.gripper(role, side)  # type: ignore[arg-type]

    def _hand(self, arm: str) -> list[float]:
        """Arms stay in the start pose; a gripper is where a person holds it, or sinks."""
        opening = self.opening
        if opening is None:
            if not self._let_go_ns:
                return [*START_POSE, self._gripper(arm).angle_from_action(0.5)]
            share = min(1.0, (self.rig.time.now - self._let_go_ns) / 1e9 / self._sinks_s[arm])
            opening = 0.5 + share * (self._rests[arm] - 0.5)
        return [*START_POSE, self._gripper(arm).angle_from_action(opening)]

    def _drive(self, bus: Bus, now_ns: int) -> None:
        bus.publisher(messages.health_topic("teleop")).send(Health(stamp_ns=now_ns, process="teleop", pid=1))
        if not self._let_go_ns and self.rig.beats and self.rig.word.mode is Mode.ARMED:
            self._let_go_ns = now_ns
        self.teleop.cycle(now_ns)

    def follower_openings(self) -> list[float]:
        """Where both follower grippers are, by their motors."""
        arms = [f"follower_{side}" for side in SIDES]
        return [self._gripper(arm).action_from_angle(self.rig.wires[arm].plant.angles[-1]) for arm in arms]

    def _mode(self) -> Mode:
        return Mode(self.rig.word.mode)

    def story(self) -> Trial:
        """Nobody for a while; then a person opens and squeezes, leads, and squeezes past the closed end."""
        rig = self.rig
        rig.run(0.3)
        if not (reply := rig.ask("arm", "start")).ok:
            return Trial(broken=reply.text)
        rig.run(NOBODY_S)
        if self._mode() is not Mode.ARMED:
            return Trial(broken=f"nobody was there, and the mode is {self._mode()} ({rig.word.cause})")
        for opening, seconds in ((1.0, 0.3), (0.0, PERSON_S)):
            self.opening = opening
            rig.run(seconds)
        if self._mode() is not Mode.TELEOP:
            return Trial(broken=f"a person opened and squeezed; the mode is {self._mode()} ({self.teleop.message})")
        gaps = []
        for opening in (1.0, SQUEEZED):
            self.opening = opening
            rig.run(FOLLOWS_S)
            gaps += [abs(found - opening) for found in self.follower_openings()]
        outside = sum(sum(wire.monitor.report().counts.values()) for wire in rig.wires.values())
        return Trial(f"{outside} goals outside the envelope" if outside else "", max(gaps))


def _scenario(kit: str, where: str) -> Scenario:
    def try_once(_: None, chance: Random) -> Trial:
        arms = [str(arm) for arm in config.load("sim").arms]
        shifts = {arm: SHIFTS_RAD.get(where, chance.uniform(*SHIFTS_RAD.values())) for arm in arms}
        sinks = {arm: chance.uniform(*SINKS_S) for arm in shifts}
        rests = {arm: chance.uniform(-0.05, 0.5) for arm in shifts}
        table = Table(rig_of(kit, shifts), sinks, rests)
        with table.rig:
            return table.story()

    name = f"{kit}: grippers mounted {where}"
    promise = "nobody starts nothing, a person starts, and followers open and close fully"
    return Scenario(name, promise, "openings from the leader", CLOSES_WITHIN, try_once, 2, 20)


@contextmanager
def _nothing_to_share() -> Iterator[None]:
    yield None


GRIPPER_RANGES = Family(
    "gripper ranges", _nothing_to_share, tuple(_scenario(kit, where) for kit in KITS for where in (*SHIFTS_RAD, EACH))
)
