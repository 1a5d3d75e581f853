"""Temperature and current of the servos, judged before the servos judge themselves. Pure.

A servo in overheating or overload switches its torque off, and then the arm falls. Motion ends a little earlier, with
the joint and the value named; parking and arming stay possible, since a hot arm wants to lie down.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from aloha_runtime.dynamixel.registers import MODEL_BY_NAME
from aloha_runtime.messages import MS
from aloha_runtime.robot import DOF, JOINTS, NAMES, SIDE_SLICE, Role, Servo, Side, Vector

TEMPERATURE_MARGIN_C = 5.0
"""Below the servo's Temperature_Limit. A motor that works hard gains 1 to 2 degrees in the second between readings."""
STALL_MA = {"XM540-W270": 4400.0, "XM430-W350": 2300.0}
"""Stall current at 12 V (ROBOTIS e-manual)."""
CURRENT_SHARE = 0.8
"""Of the stall current, longer than `SUSTAINED_NS`. The shoulder of a stretched arm with 0.75 kg in hand takes 64 %;
more than this for so long is a heavier load or an obstacle, and the servos shut down for overload when it lasts. A
gripper squeezes for long, but the kits limit its current to less than this."""
SUSTAINED_NS = 1000 * MS


class Margins:
    """`most_ma` (14,): largest sustained current. `most_c`: Temperature_Limit by joint, such as `left_elbow_shadow`."""

    def __init__(self, most_ma: Vector, most_c: Mapping[str, float]) -> None:
        self._most_ma, self._most_c = most_ma, most_c
        self._below_ns = np.zeros(len(NAMES), dtype=np.int64)
        self._begun = False

    def current(self, now_ns: int, effort_ma: Vector) -> str:
        """Which joint (14,) has drawn too much for too long, and what to do; empty when none. Ask it every cycle."""
        fine = np.abs(effort_ma) <= self._most_ma
        if not self._begun or fine.all():
            self._below_ns[:] = now_ns
            self._begun = True
            return ""
        self._below_ns[fine] = now_ns
        since_ns = now_ns - self._below_ns
        index = int(np.argmax(since_ns))
        if since_ns[index] <= SUSTAINED_NS:
            return ""
        return (
            f"{NAMES[index]} has drawn {abs(effort_ma[index]):.0f} mA (at most {self._most_ma[index]:.0f} mA) for "
            f"{since_ns[index] // MS} ms; see what holds or loads the arm, then arm again"
        )

    def temperature(self, celsius: Mapping[str, float]) -> str:
        """Which joint is nearly too hot, and what to do; empty when none."""
        for joint, value in celsius.items():
            most = self._most_c.get(joint, np.inf)
            if value > most - TEMPERATURE_MARGIN_C:
                return (
                    f"{joint} has {value:.0f} degrees C (it switches itself off above {most:.0f}); "
                    "park the arms and let it cool"
                )
        return ""


def margins_for(role: Role, servos: Mapping[Side, Sequence[Servo]]) -> Margins:
    """The margins of a pair of arms by their servos.

    Leaders have no bound on currents: they are in a person's hands, and carry their own weight by design.
    """
    most_ma, most_c = np.full(DOF, np.inf), {}
    for side, chain in servos.items():
        for servo in chain:
            shadow = "_shadow" if servo.shadow_of is not None else ""
            most_c[f"{side}_{servo.joint}{shadow}"] = float(MODEL_BY_NAME[servo.model].temperature_limit)
            if role == "follower" and not shadow:
                index = SIDE_SLICE[side].start + JOINTS.index(servo.joint)
                most_ma[index] = CURRENT_SHARE * STALL_MA.get(servo.model, np.inf)
    return Margins(most_ma, most_c)
