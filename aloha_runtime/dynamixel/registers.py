"""The X-series control table, models and baud rates, as far as the ALOHA arms use them.

Source: https://emanual.robotis.com/docs/en/dxl/x/ (pages xm430-w350, xm540-w270, xl430-w250, xc430-w150).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Register:
    """One entry. `low..high`: range of a write, ends included; `initial`: factory value (RAM: value at power-up)."""

    name: str
    address: int
    size: int
    initial: int = 0
    low: int = 0
    high: int = 0
    writable: bool = True
    eeprom: bool = False
    signed: bool = False

    def encode(self, value: int) -> bytes:
        """Value to little-endian bytes; raises OverflowError when it does not fit the register's width."""
        return value.to_bytes(self.size, "little", signed=value < 0)

    def decode(self, data: bytes) -> int:
        """Little-endian bytes to value."""
        return int.from_bytes(data, "little", signed=self.signed)


def _rom(name: str, address: int, size: int, initial: int, span: tuple[int, int], *, signed: bool = False) -> Register:
    return Register(name, address, size, initial, *span, eeprom=True, signed=signed)


def _ram(name: str, address: int, size: int, initial: int, span: tuple[int, int], *, signed: bool = False) -> Register:
    return Register(name, address, size, initial, *span, signed=signed)


def _fixed(
    name: str, address: int, size: int, initial: int = 0, *, eeprom: bool = False, signed: bool = False
) -> Register:
    return Register(name, address, size, initial, writable=False, eeprom=eeprom, signed=signed)


MODEL_NUMBER = _fixed("Model_Number", 0, 2, eeprom=True)
MODEL_INFORMATION = _fixed("Model_Information", 2, 4, eeprom=True)
FIRMWARE_VERSION = _fixed("Firmware_Version", 6, 1, 46, eeprom=True)
ID = _rom("ID", 7, 1, 1, (0, 252))
BAUD_RATE = _rom("Baud_Rate", 8, 1, 1, (0, 7))
RETURN_DELAY_TIME = _rom("Return_Delay_Time", 9, 1, 250, (0, 254))
DRIVE_MODE = _rom("Drive_Mode", 10, 1, 0, (0, 13))
OPERATING_MODE = _rom("Operating_Mode", 11, 1, 3, (0, 16))
SECONDARY_ID = _rom("Secondary_ID", 12, 1, 255, (0, 255))
PROTOCOL_TYPE = _rom("Protocol_Type", 13, 1, 2, (1, 22))
HOMING_OFFSET = _rom("Homing_Offset", 20, 4, 0, (-1_044_479, 1_044_479), signed=True)
MOVING_THRESHOLD = _rom("Moving_Threshold", 24, 4, 10, (0, 1023))
TEMPERATURE_LIMIT = _rom("Temperature_Limit", 31, 1, 80, (0, 100))
MAX_VOLTAGE_LIMIT = _rom("Max_Voltage_Limit", 32, 2, 160, (60, 160))
MIN_VOLTAGE_LIMIT = _rom("Min_Voltage_Limit", 34, 2, 95, (60, 160))
PWM_LIMIT = _rom("PWM_Limit", 36, 2, 885, (0, 885))
CURRENT_LIMIT = _rom("Current_Limit", 38, 2, 1193, (0, 1193))
VELOCITY_LIMIT = _rom("Velocity_Limit", 44, 4, 200, (0, 1023))
MAX_POSITION_LIMIT = _rom("Max_Position_Limit", 48, 4, 4095, (0, 4095))
MIN_POSITION_LIMIT = _rom("Min_Position_Limit", 52, 4, 0, (0, 4095))
STARTUP_CONFIGURATION = _rom("Startup_Configuration", 60, 1, 0, (0, 3))
SHUTDOWN = _rom("Shutdown", 63, 1, 52, (0, 255))
TORQUE_ENABLE = _ram("Torque_Enable", 64, 1, 0, (0, 1))
LED = _ram("LED", 65, 1, 0, (0, 1))
STATUS_RETURN_LEVEL = _ram("Status_Return_Level", 68, 1, 2, (0, 2))
REGISTERED_INSTRUCTION = _fixed("Registered_Instruction", 69, 1)
HARDWARE_ERROR_STATUS = _fixed("Hardware_Error_Status", 70, 1)
VELOCITY_I_GAIN = _ram("Velocity_I_Gain", 76, 2, 1920, (0, 16383))
VELOCITY_P_GAIN = _ram("Velocity_P_Gain", 78, 2, 100, (0, 16383))
POSITION_D_GAIN = _ram("Position_D_Gain", 80, 2, 0, (0, 16383))
POSITION_I_GAIN = _ram("Position_I_Gain", 82, 2, 0, (0, 16383))
POSITION_P_GAIN = _ram("Position_P_Gain", 84, 2, 800, (0, 16383))
FEEDFORWARD_2ND_GAIN = _ram("Feedforward_2nd_Gain", 88, 2, 0, (0, 16383))
FEEDFORWARD_1ST_GAIN = _ram("Feedforward_1st_Gain", 90, 2, 0, (0, 16383))
BUS_WATCHDOG = _ram("Bus_Watchdog", 98, 1, 0, (0, 127), signed=True)
"""Units of 20 ms; 0 off; reads -1 after a trip, then goals are read-only until it is written 0."""
GOAL_PWM = _ram("Goal_PWM", 100, 2, 885, (-885, 885), signed=True)
GOAL_CURRENT = _ram("Goal_Current", 102, 2, 1193, (-1193, 1193), signed=True)
GOAL_VELOCITY = _ram("Goal_Velocity", 104, 4, 0, (-1023, 1023), signed=True)
PROFILE_ACCELERATION = _ram("Profile_Acceleration", 108, 4, 0, (0, 32767))
PROFILE_VELOCITY = _ram("Profile_Velocity", 112, 4, 0, (0, 32767))
GOAL_POSITION = _ram("Goal_Position", 116, 4, 0, (-1_048_575, 1_048_575), signed=True)
REALTIME_TICK = _fixed("Realtime_Tick", 120, 2)
MOVING = _fixed("Moving", 122, 1)
MOVING_STATUS = _fixed("Moving_Status", 123, 1)
PRESENT_PWM = _fixed("Present_PWM", 124, 2, signed=True)
PRESENT_CURRENT = _fixed("Present_Current", 126, 2, signed=True)
"""2.69 mA units on current-capable models, load in 0.1 % on the others."""
PRESENT_VELOCITY = _fixed("Present_Velocity", 128, 4, signed=True)
PRESENT_POSITION = _fixed("Present_Position", 132, 4, signed=True)
VELOCITY_TRAJECTORY = _fixed("Velocity_Trajectory", 136, 4, signed=True)
POSITION_TRAJECTORY = _fixed("Position_Trajectory", 140, 4, signed=True)
PRESENT_INPUT_VOLTAGE = _fixed("Present_Input_Voltage", 144, 2, 120)
PRESENT_TEMPERATURE = _fixed("Present_Temperature", 146, 1, 30)
BACKUP_READY = _fixed("Backup_Ready", 147, 1)

REGISTERS: tuple[Register, ...] = tuple(entry for entry in list(globals().values()) if isinstance(entry, Register))
"""Every named register, by address."""
BY_NAME: Mapping[str, Register] = MappingProxyType({entry.name: entry for entry in REGISTERS})

INDIRECT_COUNT = 28
"""Indirect entries per block; there are two blocks: (first address entry, first data byte)."""
INDIRECT_BLOCKS = ((168, 224), (578, 634))

STATE_BLOCK = (PRESENT_CURRENT.address, 10)
"""Address and size of present current (2), velocity (4), position (4): one contiguous read."""

FAST_SYNC_READ_FIRMWARE = 45
"""First firmware version that answers Fast Sync Read."""
WATCHDOG_UNIT_MS = 20
DRIVE_MODE_REVERSE = 0x01
DRIVE_MODE_TIME_PROFILE = 0x04
DRIVE_MODE_TORQUE_BY_GOAL = 0x08
RETURN_DELAY_UNIT_US = 2

BAUD_RATES: Mapping[int, int] = MappingProxyType(
    {0: 9_600, 1: 57_600, 2: 115_200, 3: 1_000_000, 4: 2_000_000, 5: 3_000_000, 6: 4_000_000, 7: 4_500_000}
)
"""Value of Baud_Rate (address 8) to bits per second."""

MODE_CURRENT, MODE_VELOCITY, MODE_POSITION = 0, 1, 3
MODE_EXTENDED_POSITION, MODE_CURRENT_POSITION, MODE_PWM = 4, 5, 16
POSITION_MODES = (MODE_POSITION, MODE_EXTENDED_POSITION, MODE_CURRENT_POSITION)
_WITHOUT_CURRENT = (MODE_VELOCITY, MODE_POSITION, MODE_EXTENDED_POSITION, MODE_PWM)
_WITH_CURRENT = (MODE_CURRENT, MODE_VELOCITY, MODE_POSITION, MODE_EXTENDED_POSITION, MODE_CURRENT_POSITION, MODE_PWM)


@dataclass(frozen=True)
class Model:
    """One servo model. `initial`: register values that differ from the table above, which is the XM430-W350's.

    `has_current` False: no `Current_Limit`, no `Goal_Current`, and address 126 holds load in 0.1 %.
    """

    name: str
    number: int
    has_current: bool
    initial: Mapping[str, int]

    @property
    def modes(self) -> tuple[int, ...]:
        """Operating modes that the model accepts."""
        return _WITH_CURRENT if self.has_current else _WITHOUT_CURRENT

    @property
    def temperature_limit(self) -> int:
        """Degrees Celsius above which it switches itself off."""
        return self.initial.get("Temperature_Limit", TEMPERATURE_LIMIT.initial)

    @property
    def current_limit(self) -> int:
        """Largest value of `Current_Limit`, in current units; 0 without current control."""
        return self.initial.get("Current_Limit", CURRENT_LIMIT.high) if self.has_current else 0


MODELS: tuple[Model, ...] = (
    Model("XM430-W350", 1020, True, {}),
    Model("XM540-W270", 1120, True, {"Current_Limit": 2047, "Goal_Current": 2047, "Velocity_Limit": 128}),
    Model(
        "XL430-W250",
        1060,
        False,
        {
            "Temperature_Limit": 72,
            "Max_Voltage_Limit": 140,
            "Min_Voltage_Limit": 60,
            "Velocity_Limit": 265,
            "Velocity_I_Gain": 1000,
            "Position_D_Gain": 4000,
            "Position_P_Gain": 640,
        },
    ),
    Model(
        "XC430-W150",
        1070,
        False,
        {"Moving_Threshold": 20, "Min_Voltage_Limit": 60, "Velocity_Limit": 460, "Position_P_Gain": 460},
    ),
)
MODEL_BY_NUMBER: Mapping[int, Model] = MappingProxyType({model.number: model for model in MODELS})
MODEL_BY_NAME: Mapping[str, Model] = MappingProxyType({model.name: model for model in MODELS})

HARDWARE_ERRORS: Mapping[int, str] = MappingProxyType(
    {0x01: "input voltage", 0x04: "overheating", 0x08: "motor encoder", 0x10: "electrical shock", 0x20: "overload"}
)
"""Bits of Hardware_Error_Status (address 70). A servo in error needs a reboot."""


def describe_hardware_error(bits: int) -> str:
    """Hardware_Error_Status for people: `overload, overheating`; `none` for 0. Bit 0x80 is the alert of a status
    packet, which says that there is an error, not which."""
    named = [name for bit, name in HARDWARE_ERRORS.items() if bits & bit]
    if named or not bits:
        return ", ".join(named) or "none"
    return "an error" if bits == 0x80 else f"unknown (0x{bits:02x})"
