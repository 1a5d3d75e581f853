"""Between a chain's raw units and the contract's rad, rad/s and mA, with the check that a reading can be true.

Drive_Mode already turns every joint the contract's way, so a tick means the same angle on every servo.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from aloha_runtime.dynamixel.registers import MODEL_BY_NAME
from aloha_runtime.hardware.base import ArmReading, ArmVector
from aloha_runtime.hardware.dynamixel_frames import CURRENT, POSITION, STRIDE, VELOCITY
from aloha_runtime.robot import CENTRE_TICK, JOINTS, MA_PER_UNIT, RAD_PER_TICK, RAD_S_PER_UNIT, Role, Servo

SPEED_LIMIT_RAD_S: Mapping[Role, tuple[float, float]] = {"follower": (6.3, 16.0), "leader": (12.6, 30.0)}
"""(joints, gripper): a reading that moved faster since the last one is not believed. Followers: twice the servos'
no-load speed at 12 V (3.1 rad/s); their grippers' more than three times (4.8), since the simulated one gets to 12.
Leaders are moved by hand, their grippers by fingers."""
NOISE_RAD = 0.02
"""A reading may always differ by this much: backlash and 13 ticks of noise."""


class ArmUnits:
    """Units of the seven master servos of an arm, in the order of `robot.JOINTS`, and its last believed angles."""

    def __init__(self, role: Role, masters: Sequence[Servo], carried: Sequence[str] = ()) -> None:
        """`carried`: joints that may be given currents."""
        self._carried = [index for index, servo in enumerate(masters) if servo.joint in carried]
        self._limits = [(servo.min_tick, servo.max_tick) for servo in masters]
        self._effort_units = [MA_PER_UNIT if MODEL_BY_NAME[servo.model].has_current else 1.0 for servo in masters]
        joint, gripper = SPEED_LIMIT_RAD_S[role]
        self._speed_limits = [gripper if name == "gripper" else joint for name in JOINTS]
        self.forget()

    def forget(self) -> None:
        """Believe the next reading whatever it is: the chain was out of sight."""
        self._last: list[float] | None = None
        self._last_ns = 0

    def ticks(self, goal: ArmVector) -> list[int] | None:
        """Goals (7,) rad in ticks, or None when one is not finite or outside its servo's limits: servos drop such a
        goal without a word, and the other joints must not move without that one."""
        ticks = []
        for angle, (low, high) in zip(goal.tolist(), self._limits, strict=True):
            place = angle / RAD_PER_TICK + CENTRE_TICK
            if not low - 0.5 <= place <= high + 0.5:  # so is NaN
                return None
            ticks.append(min(high, max(low, round(place))))
        return ticks

    def currents(self, currents_ma: ArmVector | None) -> list[int] | None:
        """Goal_Current of the carried joints for currents (7,) in mA, or None when one is not finite."""
        if currents_ma is None or not np.isfinite(currents_ma).all():
            return None
        return [round(currents_ma[index] / MA_PER_UNIT) for index in self._carried]

    def reading(self, state: tuple[int, ...], stamp_ns: int, errors: dict[str, int]) -> ArmReading | None:
        """A flat state (masters first) in contract units; None when it cannot be true."""
        mine = state[: STRIDE * len(JOINTS)]
        angles = [(tick - CENTRE_TICK) * RAD_PER_TICK for tick in mine[POSITION::STRIDE]]
        if not self._believable(angles, stamp_ns):
            return None
        velocities = [raw * RAD_S_PER_UNIT for raw in mine[VELOCITY::STRIDE]]
        efforts = [raw * unit for raw, unit in zip(mine[CURRENT::STRIDE], self._effort_units, strict=True)]
        block = np.array((angles, velocities, efforts))  # one array, since making it is what costs
        return ArmReading(stamp_ns, block[0], block[1], block[2], errors)

    def _believable(self, angles: list[float], stamp_ns: int) -> bool:
        """A CRC lets one damaged packet in 10^5 through: nothing moves faster than its servo or a hand can."""
        if self._last is not None:
            elapsed = (stamp_ns - self._last_ns) / 1e9
            for angle, last, speed in zip(angles, self._last, self._speed_limits, strict=True):
                if abs(angle - last) > speed * elapsed + NOISE_RAD:
                    return False
        self._last, self._last_ns = angles, stamp_ns
        return True
