"""Which goal a joint is to hold when its arm gets torque, or keeps it, from what its servos say. Pure.

A position loop without I gain lets a joint sag under its goal, and Present_Position falls back into one turn when
torque goes on in position control. So neither the position nor an earlier reading is the goal that moves nothing:

- without torque: where the joint will read once it has torque;
- with torque: the goal that it has, as long as that is no further from the joint than the lead;
- else, and after a trip of the watchdog with a goal that the joint's load does not explain: the goal that keeps the
  present drive.
"""

from collections.abc import Sequence
from typing import NamedTuple

from aloha_runtime.config_parts import MOST_SAG_RAD
from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.robot import RAD_PER_TICK, TICKS_PER_TURN, Servo

ADDRESS = registers.TORQUE_ENABLE.address
SIZE = registers.PRESENT_POSITION.address + registers.PRESENT_POSITION.size - ADDRESS
"""The block of RAM that decides. Longer reads of it say the same."""
EEPROM_ADDRESS = registers.OPERATING_MODE.address
EEPROM_SIZE = registers.HOMING_OFFSET.address + registers.HOMING_OFFSET.size - EEPROM_ADDRESS
"""The block with mode and Homing_Offset."""
ONE_TURN_OFFSET = 1024
"""In position control a Homing_Offset beyond this is ignored (e-manual, item 20)."""
SAG_TICKS = round(MOST_SAG_RAD / RAD_PER_TICK)
STILL_TICKS = round(0.01 / RAD_PER_TICK)
"""Goals this near each other move nothing that anybody sees."""
LIMIT_SLACK_TICKS = round(0.10 / RAD_PER_TICK)
"""A joint this far outside its limits (an arm asleep on its stop) may get torque: it moves in by no more than this."""
PWM_PER_TICK = 128
"""Goal minus present, in ticks, times P gain over this is Present_PWM (e-manual, item 84)."""


class State:
    """The registers of one servo, from its two blocks; `eeprom` empty where nobody asked for it."""

    def __init__(self, ram: bytes, eeprom: bytes = b"") -> None:
        self._ram, self._eeprom = ram, eeprom

    def __getitem__(self, register: Register) -> int:
        data, start = (self._eeprom, EEPROM_ADDRESS) if register.eeprom else (self._ram, ADDRESS)
        at = register.address - start
        return register.decode(data[at : at + register.size])

    def with_eeprom(self, eeprom: bytes) -> "State":
        return State(self._ram, eeprom)

    @property
    def torque(self) -> bool:
        return bool(self[registers.TORQUE_ENABLE])

    @property
    def tripped(self) -> bool:
        return self[registers.BUS_WATCHDOG] < 0

    @property
    def present(self) -> int:
        return self[registers.PRESENT_POSITION]

    @property
    def goal(self) -> int:
        return self[registers.GOAL_POSITION]


class Hold(NamedTuple):
    """`goal`: for the register. `expected`: what Present_Position will say with torque. `outside`: the joint stands so
    far outside its limits that it must not get torque."""

    goal: int
    expected: int
    outside: bool = False


def folded(state: State) -> int:
    """What Present_Position will say when torque goes on."""
    if state[registers.OPERATING_MODE] != registers.MODE_POSITION:
        return state.present
    offset = state[registers.HOMING_OFFSET]
    if abs(offset) > ONE_TURN_OFFSET:
        offset = 0
    return (state.present - offset) % TICKS_PER_TURN + offset


def drive_ticks(state: State, p_gain: int) -> int:
    """Goal minus present that gives the drive of now at a P gain, at most one static sag."""
    ticks = round(state[registers.PRESENT_PWM] * PWM_PER_TICK / p_gain) if p_gain else 0
    return min(SAG_TICKS, max(-SAG_TICKS, ticks))


def hold_limp(servo: Servo, state: State) -> Hold:
    """For a servo without torque."""
    tick = folded(state)
    goal = within(servo, tick)
    return Hold(goal, tick, abs(goal - tick) > LIMIT_SLACK_TICKS)


def hold_driven(
    servo: Servo, state: State, p_gain: int, lead_ticks: int, remembered: Sequence[int], grips: bool
) -> Hold:
    """For a servo with torque. `p_gain`: what it is about to have. `remembered`: the goal that it was last told, when
    that is known. `grips`: it holds things, under a limit of its current, so that its goal may lie inside of them."""
    present, goal = state.present, state.goal
    if grips:
        return Hold(goal, present)
    drive = drive_ticks(state, p_gain)
    balanced = present + drive
    if state.tripped:
        # A servo that trips holds the place where it stands, so the joint has sagged once more: what its load explains
        # is the goal of before, one sag above that place, or that place itself. All else was a motion.
        for known in (*remembered, goal):
            if abs(known - balanced) <= abs(drive) + STILL_TICKS:
                return Hold(within(servo, known), present)
        return Hold(within(servo, balanced), present)
    # A joint that returns to the goal of before a trip is two sags away from it at first.
    most = max(lead_ticks, 2 * SAG_TICKS) if goal in remembered else lead_ticks
    if state[registers.POSITION_P_GAIN] == p_gain and abs(goal - present) <= most:
        return Hold(goal, present)
    return Hold(within(servo, balanced), present)


def within(servo: Servo, tick: int) -> int:
    """The tick inside the servo's limits that is nearest to another."""
    return min(servo.max_tick, max(servo.min_tick, tick))
