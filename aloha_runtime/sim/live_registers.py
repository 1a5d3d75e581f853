"""The registers of an emulated servo that tell what it is doing now, from what was sensed and what it follows."""

import struct

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.robot import RAD_S_PER_UNIT
from aloha_runtime.sim.firmware import Firmware
from aloha_runtime.sim.motors import MOTORS

IN_POSITION, PROFILE_ONGOING, FOLLOWING_ERROR = 0x01, 0x02, 0x08
"""Bits of Moving_Status; its bits 4 and 5 name the profile."""
STEP, RECTANGULAR, TRAPEZOIDAL = 0x00, 0x10, 0x30
IN_POSITION_TICKS, FOLLOWING_TICKS = 20, 200
"""Deviations at which the two bits change; the e-manual calls the first predefined and names neither."""
_LIVE = struct.Struct("<HBBhhiiii")
"""Registers 120 to 143, from Realtime_Tick to Position_Trajectory."""
FULL_PWM = 885
FULL_LOAD = 1000


def store(servo: Firmware, state: tuple[int, int, int], now_ns: int) -> None:
    """Put a sensed state (current, velocity, position) and all that follows from it into the control table."""
    servo.sense(state[2], now_ns)
    current, velocity, position = state[0], state[1], servo.present_tick
    positioned = servo.torque and servo.mode in reg.POSITION_MODES
    wanted, wanted_velocity = position, 0
    if positioned:
        wanted, wanted_velocity = servo.goal_tick, 0
        if servo.followed is not None:
            angle, speed = servo.followed
            wanted = round(servo.zero_tick + servo.ticks_per_rad * angle)
            wanted_velocity = round(servo.units_per_rad_s * speed)
    elif servo.torque and servo.mode == reg.MODE_VELOCITY:
        wanted_velocity = servo.get(reg.GOAL_VELOCITY)
    ongoing = positioned and servo.followed is not None and servo.ongoing
    servo.moving = ongoing or abs(velocity) > servo.get(reg.MOVING_THRESHOLD)
    _LIVE.pack_into(
        servo.table,
        reg.REALTIME_TICK.address,
        now_ns // 1_000_000 % 32768,
        servo.moving,
        _moving_status(servo, wanted - position, position, ongoing) if positioned else 0,
        _pwm(servo, wanted - position, current, velocity) if servo.torque else 0,
        max(-32768, min(32767, current)),
        velocity,
        position,
        wanted_velocity,
        wanted,
    )
    servo.table[reg.PRESENT_TEMPERATURE.address] = servo.temperature


def _moving_status(servo: Firmware, lag: int, position: int, ongoing: bool) -> int:
    profile = STEP if servo.direct else TRAPEZOIDAL if servo.get(reg.PROFILE_ACCELERATION) else RECTANGULAR
    arrived = IN_POSITION if abs(servo.goal_tick - position) <= IN_POSITION_TICKS else 0
    behind = FOLLOWING_ERROR if abs(lag) > FOLLOWING_TICKS else 0
    return profile | arrived | behind | (PROFILE_ONGOING if ongoing else 0)


def _pwm(servo: Firmware, error: int, current: int, velocity: int) -> int:
    """Output in 1/885 of the voltage.

    E-manual, items 80 to 84: P/128 of the error, at most Goal_PWM. Where something else takes part (an I gain, other
    modes) the output is that which a motor needs for its torque and its speed.
    """
    most = abs(servo.get(reg.GOAL_PWM))
    if servo.mode == reg.MODE_PWM:
        return servo.get(reg.GOAL_PWM)
    if servo.mode in reg.POSITION_MODES and not servo.get(reg.POSITION_I_GAIN):
        output = servo.get(reg.POSITION_P_GAIN) / 128 * error
    else:
        motor = MOTORS[servo.servo.model]
        stall = motor.stall_current * 1000 * servo.current_unit if servo.model.has_current else FULL_LOAD
        output = FULL_PWM * (current / stall + velocity * RAD_S_PER_UNIT / motor.no_load_speed)
    return max(-most, min(most, round(output)))
