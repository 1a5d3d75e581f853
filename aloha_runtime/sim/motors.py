"""The motors of the servos: what they can do at 12 V, and the position control that drives them.

With `Position_P_Gain` 800 a Dynamixel X servo applies its full voltage at an error of 0.217 rad, and a DC motor's
torque falls linearly with speed, so

    torque = stall * clip(error / 0.217, -1, 1) - stall / no_load_speed * velocity

(ROBOTIS e-manual, X series, "Position Control" and the performance graphs).
"""

from dataclasses import dataclass

from aloha_runtime.robot import RAD_PER_TICK

P_GAIN = 800
FULL_VOLTAGE_ERROR_RAD = 885 / (P_GAIN / 128) * RAD_PER_TICK
"""Position error that saturates the output: 885 PWM units are 100 %, the gain register is divided by 128."""


@dataclass(frozen=True)
class Motor:
    """One servo at 12 V (ROBOTIS e-manual): stall torque (N m), no-load speed (rad/s), stall current (A), and the
    rotor's inertia seen behind the gears (kg m^2, estimated: the manual does not state it)."""

    stall_torque: float
    no_load_speed: float
    stall_current: float
    reflected_inertia: float

    @property
    def stiffness(self) -> float:
        """N m per rad of error."""
        return self.stall_torque / FULL_VOLTAGE_ERROR_RAD

    @property
    def damping(self) -> float:
        """N m s/rad: back-EMF."""
        return self.stall_torque / self.no_load_speed

    @property
    def torque_per_ma(self) -> float:
        return self.stall_torque / self.stall_current / 1000

    @property
    def friction(self) -> float:
        """Gear friction (N m): about 2 % of the stall torque."""
        return 0.02 * self.stall_torque


XM540_W270 = Motor(10.6, 3.14, 4.4, 0.02)
XM430_W350 = Motor(4.1, 4.82, 2.3, 0.01)
XL430_W250 = Motor(1.5, 6.39, 1.4, 0.005)
XC430_W150 = Motor(1.6, 11.1, 1.4, 0.005)

MOTORS = {
    "XM540-W270": XM540_W270,
    "XM430-W350": XM430_W350,
    "XL430-W250": XL430_W250,
    "XC430-W150": XC430_W150,
}
