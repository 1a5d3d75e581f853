"""What an emulated arm weighs and how stiffly its servos hold it: why a joint stands beside its goal.

Plain floats: a plant asks at 200 Hz for each arm. Positive turns the joint in its own direction.
"""

import math
from collections.abc import Sequence

from aloha_runtime.control.gravity import GRAVITY_M_S2, NM_PER_A, WIDOWX_250, Link
from aloha_runtime.robot import JOINTS, SERVOS, Role
from aloha_runtime.sim.motors import FULL_VOLTAGE_ERROR_RAD, MOTORS, XM430_W350

VIPERX_300 = (
    Link(2, (0.0, 0.0, 0.079), 0.798614, (0.000259, -0.000003, 0.011613)),
    Link(1, (0.0, 0.0, 0.04805), 0.792592, (0.020695, 0.0, 0.226459)),
    Link(1, (0.05955, 0.0, 0.3), 0.322228, (0.105723, 0.0, 0.0)),
    Link(0, (0.2, 0.0, 0.0), 0.414823, (0.051348, 0.006805, 0.0)),
    Link(1, (0.1, 0.0, 0.0), 0.115395, (0.046743, -0.000008, 0.010565)),
    Link(0, (0.069744, 0.0, 0.0), 0.329253, (0.049665, 0.0, 0.003062)),
)
"""A ViperX-300 6DOF: masses of the model in `gym_aloha`, gripper and fingers put together. See `gravity.WIDOWX_250`."""
LINKS: dict[Role, tuple[Link, ...]] = {"leader": WIDOWX_250, "follower": VIPERX_300}


def weight_torques(role: Role, angles: Sequence[float]) -> list[float]:
    """Torques (6,) in Nm with which gravity turns the joints of an arm at `angles` (rad, at least 6)."""
    links = LINKS[role]
    # Rows of the rotation that give the world's x and y; the waist turns about the vertical and changes nothing.
    xx, xy, xz, yx, yy, yz = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    x = y = 0.0
    joints = []
    for index in range(1, 6):
        (axis, (ox, oy, oz), mass, (cx, cy, cz)), angle = links[index], angles[index]
        x += xx * ox + xy * oy + xz * oz
        y += yx * ox + yy * oy + yz * oz
        cosine, sine = math.cos(angle), math.sin(angle)
        if axis == 1:
            axis_x, axis_y = xy, yy
            xx, xz = xx * cosine - xz * sine, xx * sine + xz * cosine
            yx, yz = yx * cosine - yz * sine, yx * sine + yz * cosine
        else:
            axis_x, axis_y = xx, yx
            xy, xz = xy * cosine + xz * sine, xz * cosine - xy * sine
            yy, yz = yy * cosine + yz * sine, yz * cosine - yy * sine
        com_x, com_y = x + xx * cx + xy * cy + xz * cz, y + yx * cx + yy * cy + yz * cz
        joints.append((axis_x, axis_y, x, y, mass, mass * com_x, mass * com_y))
    torques = [0.0]
    mass = moment_x = moment_y = 0.0
    for axis_x, axis_y, x, y, own, own_x, own_y in reversed(joints):
        mass, moment_x, moment_y = mass + own, moment_x + own_x, moment_y + own_y
        torques.append(GRAVITY_M_S2 * (axis_y * (moment_x - mass * x) - axis_x * (moment_y - mass * y)))
    return [torques[0], *reversed(torques[1:])]


class Stiffness:
    """What the motors of each joint of an arm do together, (7,) in the order of `robot.JOINTS`.

    `nm_per_rad`: torque by position error at a P gain of 800: 885 PWM units are the stall torque. `nm_per_ma`: torque
    by the current of one motor. `inertia`: of the rotors, kg m^2.
    """

    def __init__(self, role: Role) -> None:
        motors = [[MOTORS[servo.model] for servo in SERVOS[role] if servo.joint == joint] for joint in JOINTS]
        self.motors = [len(own) for own in motors]
        self.nm_per_rad = [sum(motor.stall_torque for motor in own) / FULL_VOLTAGE_ERROR_RAD for own in motors]
        self.inertia = [sum(motor.reflected_inertia for motor in own) for own in motors]
        # The leaders' current must fit their gravity compensation, which takes Trossen's figure.
        self.nm_per_ma = [
            len(own) * (NM_PER_A * 1e-3 if role == "leader" and own[0] is XM430_W350 else own[0].torque_per_ma)
            for own in motors
        ]
