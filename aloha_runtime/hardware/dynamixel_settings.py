"""What every register of a servo must hold before its arm gets torque: checked, written at a start, or left alone.

Every register of the control table is in exactly one of these, so that a new one has to be thought about. Published
kits set Baud_Rate 3, Return_Delay_Time 0, Drive_Mode, both position limits, Secondary_ID and Velocity_Limit 131
(Interbotix, `interbotix_xsarm_control/config/aloha_vx300s.yaml` and `aloha_wx250s.yaml`); LeRobot's driver for ALOHA
set Secondary_ID, and Velocity_Limit 131 on followers only. What they leave alone has the maker's value, so both count.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.registers import MODEL_BY_NAME, Model, Register
from aloha_runtime.robot import MA_PER_UNIT, Role, Servo

NO_SECONDARY_ID = 255
KIT_VELOCITY_LIMIT = 131
"""3.14 rad/s: what the kits write, behind the gate's own limit."""
COOLER = 10
"""Degrees below the maker's Temperature_Limit that still let an arm work for a whole day."""
LEAST_MIN_VOLTAGE, MOST_MIN_VOLTAGE, LEAST_MAX_VOLTAGE = 60, 105, 135
"""0.1 V. The supply has 12 V and dips below 11 under load: a servo must report neither that nor 13 V as an error."""


class Must(NamedTuple):
    """Values `low` to `high` are accepted; the remedy writes `right`."""

    right: int
    low: int
    high: int

    def accepts(self, value: int) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.right}" if self.low == self.high else f"{self.low} to {self.high}"


def _exactly(value: int) -> Must:
    return Must(value, value, value)


def factory(model: Model, register: Register) -> int:
    """The maker's value of a register (RAM: after power-up)."""
    return model.initial.get(register.name, register.initial)


def checked(role: Role, servo: Servo, homing_offset: int = 0) -> dict[Register, Must]:
    """EEPROM values without which an arm is refused; only a person writes them. `homing_offset`: of a master, as the
    rig file records it; a shadow's follows from its master (`dynamixel_setup.align`)."""
    model = MODEL_BY_NAME[servo.model]
    coolest, hottest = model.temperature_limit - COOLER, model.temperature_limit
    voltage = factory(model, reg.MIN_VOLTAGE_LIMIT), factory(model, reg.MAX_VOLTAGE_LIMIT)
    velocities = sorted((KIT_VELOCITY_LIMIT, factory(model, reg.VELOCITY_LIMIT)))
    found = {
        reg.RETURN_DELAY_TIME: _exactly(0),
        reg.DRIVE_MODE: _exactly(int(servo.reversed)),
        reg.SECONDARY_ID: _exactly(NO_SECONDARY_ID if servo.shadow_of is None else servo.shadow_of),
        reg.MIN_POSITION_LIMIT: _exactly(servo.min_tick),
        reg.MAX_POSITION_LIMIT: _exactly(servo.max_tick),
        reg.SHUTDOWN: _exactly(factory(model, reg.SHUTDOWN)),
        reg.STARTUP_CONFIGURATION: _exactly(0),
        reg.PWM_LIMIT: _exactly(factory(model, reg.PWM_LIMIT)),
        reg.VELOCITY_LIMIT: Must(KIT_VELOCITY_LIMIT, *velocities),
        reg.TEMPERATURE_LIMIT: Must(hottest, coolest, hottest),
        reg.MIN_VOLTAGE_LIMIT: Must(voltage[0], LEAST_MIN_VOLTAGE, MOST_MIN_VOLTAGE),
        reg.MAX_VOLTAGE_LIMIT: Must(voltage[1], LEAST_MAX_VOLTAGE, reg.MAX_VOLTAGE_LIMIT.high),
    }
    if model.has_current and servo.joint != "gripper":
        found[reg.CURRENT_LIMIT] = _exactly(model.current_limit)
    if servo.shadow_of is None:
        found[reg.HOMING_OFFSET] = _exactly(homing_offset)
    return found


WHY: Mapping[Register, str] = MappingProxyType(
    {
        reg.RETURN_DELAY_TIME: "its answers come too late for the cycle",
        reg.DRIVE_MODE: "it may turn the wrong way, take times for speeds, or get torque with a goal",
        reg.SECONDARY_ID: "of two servos on one joint both must hear the same goals, and nobody else",
        reg.MIN_POSITION_LIMIT: "it decides how far the joint may turn",
        reg.MAX_POSITION_LIMIT: "it decides how far the joint may turn",
        reg.SHUTDOWN: "overload, electrical shock and overheating must switch it off, and a dip of the supply must not",
        reg.STARTUP_CONFIGURATION: "it may move by itself when the power comes, or keep old goals and gains",
        reg.PWM_LIMIT: "the joint would be weak, and sag or fall",
        reg.CURRENT_LIMIT: "the joint would be weak, and sag or fall",
        reg.VELOCITY_LIMIT: "the joint would lag behind its goals, or be faster than the kit's",
        reg.TEMPERATURE_LIMIT: "it protects the windings, and switches the arm off where it is lower",
        reg.MIN_VOLTAGE_LIMIT: "an ordinary supply of 12 V would be an error, or a bad one none",
        reg.MAX_VOLTAGE_LIMIT: "an ordinary supply of 12 V would be an error",
        reg.HOMING_OFFSET: "it turns the joint's zero and with it every limit of the joint",
    }
)
"""What a wrong value does, for messages."""


def written(role: Role, servo: Servo, gripper_current_ma: float) -> dict[Register, int]:
    """EEPROM values that a start writes where they differ, as the published drivers do."""
    if role == "follower" and servo.joint == "gripper":
        current = round(gripper_current_ma / MA_PER_UNIT)
        return {reg.OPERATING_MODE: reg.MODE_CURRENT_POSITION, reg.CURRENT_LIMIT: current}
    return {reg.OPERATING_MODE: reg.MODE_POSITION}


def written_in_ram(role: Role, servo: Servo) -> dict[Register, int]:
    """RAM values that a start writes where they differ: another program may have left others until the next power-up.

    All are the maker's; P and I gains of followers are the torque switch's, because they change how far an arm sags.
    """
    model = MODEL_BY_NAME[servo.model]
    kept = [
        reg.STATUS_RETURN_LEVEL,
        reg.VELOCITY_I_GAIN,
        reg.VELOCITY_P_GAIN,
        reg.POSITION_D_GAIN,
        reg.FEEDFORWARD_2ND_GAIN,
        reg.FEEDFORWARD_1ST_GAIN,
        reg.GOAL_PWM,
    ]
    if role == "leader":
        kept += [reg.POSITION_I_GAIN, reg.POSITION_P_GAIN]
    return {register: factory(model, register) for register in kept}


ELSEWHERE: Mapping[Register, str] = MappingProxyType(
    {
        reg.MODEL_NUMBER: "compared with the rig file (dynamixel_setup)",
        reg.FIRMWARE_VERSION: "decides whether Fast Sync Read is used (dynamixel_setup)",
        reg.ID: "a servo with another one is silent, or of another model (dynamixel_setup)",
        reg.BAUD_RATE: "a servo with another one is silent (dynamixel_setup)",
        reg.PROTOCOL_TYPE: "a servo with another one is silent (dynamixel_setup)",
        reg.HOMING_OFFSET: "a shadow's is set so that it agrees with its master (dynamixel_setup.align)",
        reg.TORQUE_ENABLE: "dynamixel_torque",
        reg.BUS_WATCHDOG: "dynamixel_torque",
        reg.GOAL_POSITION: "dynamixel_torque, then every cycle",
        reg.GOAL_CURRENT: "dynamixel_torque, for the follower's gripper and carried leaders; else without effect",
        reg.PROFILE_ACCELERATION: "dynamixel_torque",
        reg.PROFILE_VELOCITY: "dynamixel_torque",
        reg.POSITION_P_GAIN: "dynamixel_torque, for followers",
        reg.POSITION_I_GAIN: "dynamixel_torque, for followers",
        reg.HARDWARE_ERROR_STATUS: "read beside the cycle (dynamixel_health)",
        reg.PRESENT_TEMPERATURE: "read beside the cycle (dynamixel_health)",
        reg.PRESENT_INPUT_VOLTAGE: "read beside the cycle (dynamixel_health)",
        reg.PRESENT_CURRENT: "read in every cycle",
        reg.PRESENT_VELOCITY: "read in every cycle",
        reg.PRESENT_POSITION: "read in every cycle",
    }
)
"""Registers of which another part takes care."""

HARMLESS: Mapping[Register, str] = MappingProxyType(
    {
        reg.MODEL_INFORMATION: "read only, says nothing",
        reg.MOVING_THRESHOLD: "sets the bit Moving only, which nobody here reads",
        reg.LED: "a light",
        reg.REGISTERED_INSTRUCTION: "read only; nobody here sends an action for registered writes",
        reg.GOAL_VELOCITY: "obeyed in velocity mode only",
        reg.REALTIME_TICK: "read only",
        reg.MOVING: "read only",
        reg.MOVING_STATUS: "read only",
        reg.PRESENT_PWM: "read only",
        reg.VELOCITY_TRAJECTORY: "read only",
        reg.POSITION_TRAJECTORY: "read only",
        reg.BACKUP_READY: "read only; the backup is restored by Startup_Configuration, which must be 0",
        reg.CURRENT_LIMIT: "of a leader's gripper: position control does not use it",
    }
)
"""Registers whose value changes nothing that an arm does, with the reason."""
