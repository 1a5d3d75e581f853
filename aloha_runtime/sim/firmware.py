"""The firmware of one emulated X-series servo: its control table, what may be written when, and what a write does.

Pure. Sources: the e-manual pages named in `dynamixel.registers`; where it is silent, the stricter reading, or what a
public report says (named where it is used). Where neither says it, `faults.Faults` selects.
"""

import math

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import ALERT, StatusError
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.robot import CENTRE_TICK, MA_PER_UNIT, RAD_PER_TICK, RAD_S_PER_UNIT, Servo
from aloha_runtime.sim.faults import GoalAtTorque, GoalAtTrip

TABLE_SIZE = 662
"""Addresses 0..661 exist; gaps between registers read as 0."""
RAM_START = 64
BOOT_NS = 200_000_000
"""A rebooting servo is silent for about this long."""
NEVER_NS = 1 << 62
"""When a servo without power will be awake."""
LOAD_PER_MA = 1000 / 1400
"""Present_Load (0.1 %) of models without current sensing, from the XL430's stall current of 1.4 A at 12 V."""
RAD_S2_PER_UNIT = 214.577 * 2 * math.pi / 3600
"""Profile_Acceleration unit: 214.577 rev/min^2."""
KIT_VELOCITY_LIMIT = 131
"""Velocity_Limit of every servo of the kits: 3.14 rad/s."""

TICKS_PER_TURN = 4096
ONE_TURN_OFFSET = 1024
"""Position control ignores a Homing_Offset beyond this (e-manual, item 20)."""
FOLDING_MODES = (reg.MODE_POSITION, reg.MODE_EXTENDED_POSITION)
"""Modes whose choice puts Present_Position back into one turn: the e-manual names one at item 132, one at item 116."""

_BY_ADDRESS = {entry.address: entry for entry in reg.REGISTERS}
_GOALS = (reg.GOAL_PWM, reg.GOAL_CURRENT, reg.GOAL_VELOCITY, reg.GOAL_POSITION)
_GAINS = tuple(entry for entry in reg.REGISTERS if entry.name.endswith("_Gain"))
"""A change of the operating mode resets them (e-manual, item 11): to the values of power-up, by lack of others."""
_CURRENT_ONLY = (reg.CURRENT_LIMIT, reg.GOAL_CURRENT)
_INDIRECT_DATA = {
    data + index: pointers + 2 * index for pointers, data in reg.INDIRECT_BLOCKS for index in range(reg.INDIRECT_COUNT)
}
"""Address of an indirect data byte -> address of the pointer that says where it lies."""
_POINTERS = frozenset(_INDIRECT_DATA.values())


class Firmware:
    """One servo. Attributes that the bus needs at every packet are plain fields, kept equal to the table."""

    def __init__(self, servo: Servo, version: int = 46, mount_ticks: int = 0) -> None:
        """`mount_ticks`: how far the horn sits from where it should (a shadow is never mounted perfectly)."""
        self.servo = servo
        self.model = reg.MODEL_BY_NAME[servo.model]
        self.version = version
        self.table = bytearray(TABLE_SIZE)
        # The horn turns with the joint or against it; a kit's Drive_Mode makes all read in the joint's direction.
        self._mount = (-1 if servo.reversed else 1, mount_ticks)
        self.current_unit = 1 / MA_PER_UNIT if self.model.has_current else LOAD_PER_MA
        self.present_tick = CENTRE_TICK
        self.moving = False
        self.followed: tuple[float, float] | None = None
        """Angle and speed (rad, rad/s) to which a profile has come; None: the goal itself is followed."""
        self.ongoing = False
        """The profile has not yet arrived."""
        self.temperature = reg.PRESENT_TEMPERATURE.initial
        self.registered = b""
        """Address and data of a registered write."""
        self.booted_at_ns = 0
        self.goal_at_torque: GoalAtTorque = "keep"
        self.goal_at_trip: GoalAtTrip = "present"
        self._turns = self._offset = 0
        """Whole turns that the reported position leaves out, and the Homing_Offset that is in force."""
        self._reset_eeprom()
        self._deliver()
        self._reset_ram()

    def _deliver(self) -> None:
        """EEPROM as the kits set it up (hardware notes of the published drivers)."""
        servo = self.servo
        for entry, value in (
            (reg.ID, servo.id),
            (reg.BAUD_RATE, 3),
            (reg.RETURN_DELAY_TIME, 0),
            (reg.DRIVE_MODE, int(servo.reversed)),
            (reg.SECONDARY_ID, 255 if servo.shadow_of is None else servo.shadow_of),
            (reg.VELOCITY_LIMIT, KIT_VELOCITY_LIMIT),
            (reg.MAX_POSITION_LIMIT, servo.max_tick),
            (reg.MIN_POSITION_LIMIT, servo.min_tick),
        ):
            self.set(entry, value)

    def get(self, entry: Register) -> int:
        """Value of a register."""
        return entry.decode(bytes(self.table[entry.address : entry.address + entry.size]))

    def set(self, entry: Register, value: int) -> None:
        """Set a register from inside, past every rule."""
        self.table[entry.address : entry.address + entry.size] = entry.encode(value)

    def _reset_eeprom(self) -> None:
        for entry in reg.REGISTERS:
            if entry.eeprom:
                self.set(entry, self.model.initial.get(entry.name, entry.initial))
        self.set(reg.MODEL_NUMBER, self.model.number)
        self.set(reg.FIRMWARE_VERSION, self.version)

    def _reset_ram(self) -> None:
        for entry in reg.REGISTERS:
            if not entry.eeprom:
                self.set(entry, self.model.initial.get(entry.name, entry.initial))
        for pointers, data in reg.INDIRECT_BLOCKS:
            for index in range(reg.INDIRECT_COUNT):
                self.table[pointers + 2 * index : pointers + 2 * index + 2] = (data + index).to_bytes(2, "little")
                self.table[data + index] = 0
        self.registered = b""
        self.waking = True
        """It has not yet looked at its encoder since it got its supply."""
        self._restore_goals()
        self.refresh()

    def _restore_goals(self) -> None:
        """Goals and profile as after power-up or a change of the operating mode."""
        self.set(reg.GOAL_PWM, self.get(reg.PWM_LIMIT))
        self.set(reg.GOAL_CURRENT, self.get(reg.CURRENT_LIMIT) if self.model.has_current else 0)
        self.set(reg.GOAL_VELOCITY, 0)
        self.set(reg.PROFILE_ACCELERATION, 0)
        self.set(reg.PROFILE_VELOCITY, 0)

    def refresh(self) -> None:
        """Take the fields that the bus and the drive use from the table."""
        self.id = self.get(reg.ID)
        self.baud = reg.BAUD_RATES[self.get(reg.BAUD_RATE)]
        self.secondary_id = self.get(reg.SECONDARY_ID)
        self.return_delay_ns = self.get(reg.RETURN_DELAY_TIME) * reg.RETURN_DELAY_UNIT_US * 1000
        self.status_level = self.get(reg.STATUS_RETURN_LEVEL)
        self.torque = bool(self.get(reg.TORQUE_ENABLE))
        self.mode = self.get(reg.OPERATING_MODE)
        self.watchdog = self.get(reg.BUS_WATCHDOG)
        self.alert = ALERT if self.get(reg.HARDWARE_ERROR_STATUS) else 0
        self.limits = (self.get(reg.MIN_POSITION_LIMIT), self.get(reg.MAX_POSITION_LIMIT))
        self.torque_by_goal = bool(self.get(reg.DRIVE_MODE) & reg.DRIVE_MODE_TORQUE_BY_GOAL)
        self._plain_goal = self.watchdog >= 0 and self.mode == reg.MODE_POSITION and not self.torque_by_goal
        if self.watchdog >= 0:  # after a trip it stands, whatever the goal
            self.goal_tick = self.get(reg.GOAL_POSITION)
        growth = self.get(reg.PROFILE_ACCELERATION)
        timed = self.get(reg.DRIVE_MODE) & reg.DRIVE_MODE_TIME_PROFILE
        self.acceleration = growth * RAD_S2_PER_UNIT if growth and not timed else math.inf
        self.direct = not growth and not self.get(reg.PROFILE_VELOCITY)
        turned, offset = self._mount
        direction = -1 if self.get(reg.DRIVE_MODE) & reg.DRIVE_MODE_REVERSE else 1
        # Present = actual + Homing_Offset, whose sign the reverse mode does not change (e-manual, item 20).
        wanted = self.get(reg.HOMING_OFFSET)
        self._offset = 0 if self.mode == reg.MODE_POSITION and abs(wanted) > ONE_TURN_OFFSET else wanted
        self.ticks_per_rad = direction * turned / RAD_PER_TICK
        self.zero_tick = CENTRE_TICK + direction * offset + self._offset - TICKS_PER_TURN * self._turns
        self.units_per_rad_s = direction * turned / RAD_S_PER_UNIT
        units_per_ma = direction * turned * self.current_unit
        self.scale = (self.zero_tick, self.ticks_per_rad, self.units_per_rad_s, units_per_ma)

    def cruise(self, distance_rad: float) -> float:
        """Speed (rad/s) at which the profile goes to a new goal; infinite where Profile_Velocity is 0."""
        value = self.get(reg.PROFILE_VELOCITY)
        if not value:
            return math.inf
        if self.get(reg.DRIVE_MODE) & reg.DRIVE_MODE_TIME_PROFILE:  # milliseconds for the whole way
            return distance_rad / (value * 1e-3)
        return min(value, self.get(reg.VELOCITY_LIMIT)) * RAD_S_PER_UNIT

    @property
    def goal_rad(self) -> float:
        """Joint angle that the goal position asks for."""
        return (self.goal_tick - self.zero_tick) / self.ticks_per_rad

    @property
    def push_ma(self) -> float:
        """Current in the joint's direction in current mode; none after a trip of the watchdog."""
        if not self.torque or self.mode != reg.MODE_CURRENT or self.watchdog < 0:
            return 0.0
        return self.get(reg.GOAL_CURRENT) / self.scale[3]

    def sense(self, position: int, now_ns: int) -> None:
        """Take in what the encoder says, in ticks as reported until now."""
        self.present_tick = position
        if self.waking and now_ns >= self.booted_at_ns:
            self._wake()

    def read(self, address: int, size: int) -> tuple[int, bytes]:
        """Error number and data of a read; indirect data bytes come from where their pointers say."""
        if size == 0 or address + size > TABLE_SIZE:
            return StatusError.ACCESS, b""
        data = self.table[address : address + size]
        if address + size > reg.INDIRECT_BLOCKS[0][1]:
            for index in range(size):
                data[index] = self.table[self._resolve(address + index)]
        return StatusError.NONE, bytes(data)

    def _resolve(self, address: int) -> int:
        """Where an indirect data byte lies; a byte that points at indirect data is a plain byte itself."""
        pointer = _INDIRECT_DATA.get(address)
        if pointer is None:
            return address
        target = self.table[pointer] | self.table[pointer + 1] << 8
        return address if target in _INDIRECT_DATA else target

    def write(self, address: int, data: bytes) -> int:
        """Write a block: everything or, with the error number of the first offence, nothing."""
        if address + len(data) > TABLE_SIZE:
            return StatusError.ACCESS
        parts: list[tuple[Register | None, int, bytes]] = []
        targets = [self._resolve(address + index) for index in range(len(data))]
        at = 0
        while at < len(data):
            entry = _entry(targets[at])
            size = 1 if entry is None else entry.size
            if targets[at] in _POINTERS:
                size = 2
            elif entry is None and targets[at] not in _INDIRECT_DATA:
                return StatusError.ACCESS
            if targets[at : at + size] != list(range(targets[at], targets[at] + size)):
                return StatusError.DATA_LENGTH
            parts.append((entry, targets[at], data[at : at + size]))
            at += size
        for entry, target, value in parts:
            error = self._refusal(entry, target, value)
            if error:
                return error
        for entry, target, value in parts:
            self._apply(entry, target, value)
        return StatusError.NONE

    def _refusal(self, entry: Register | None, target: int, data: bytes) -> int:
        """Error number of one register's write, 0 when it may be carried out."""
        if entry is None:
            value = int.from_bytes(data, "little")
            bad_pointer = target in _POINTERS and not RAM_START <= value < TABLE_SIZE
            return StatusError.DATA_RANGE if bad_pointer else StatusError.NONE
        value = entry.decode(data)
        absent = entry in _CURRENT_ONLY and not self.model.has_current
        locked = entry.eeprom and self.torque
        dead = entry is reg.TORQUE_ENABLE and value != 0 and self.shut_down  # only a reboot brings torque back
        if not entry.writable or absent or locked or dead:
            return StatusError.ACCESS
        if entry in _GOALS:
            return self._goal_refusal(entry, value)
        wrong = (
            not entry.low <= value <= (self.model.current_limit if entry is reg.CURRENT_LIMIT else entry.high)
            or (entry is reg.OPERATING_MODE and value not in self.model.modes)
            or (entry is reg.BUS_WATCHDOG and self.watchdog < 0 and value != 0)
        )
        return StatusError.DATA_RANGE if wrong else StatusError.NONE

    def _goal_refusal(self, entry: Register, value: int) -> int:
        if self.watchdog < 0:
            return StatusError.DATA_RANGE  # goals are read-only after a trip
        if entry is reg.GOAL_POSITION:
            low, high = self.limits if self.mode == reg.MODE_POSITION else (entry.low, entry.high)
            return StatusError.NONE if low <= value <= high else StatusError.DATA_LIMIT
        source = {
            reg.GOAL_PWM: reg.PWM_LIMIT,
            reg.GOAL_CURRENT: reg.CURRENT_LIMIT,
            reg.GOAL_VELOCITY: reg.VELOCITY_LIMIT,
        }
        return StatusError.NONE if abs(value) <= self.get(source[entry]) else StatusError.DATA_LIMIT

    def _apply(self, entry: Register | None, target: int, data: bytes) -> None:
        self.table[target : target + len(data)] = data
        if entry is reg.TORQUE_ENABLE and data[0] and not self.torque:
            if self.mode == reg.MODE_POSITION:
                self.fold()
            if self.goal_at_torque == "present":
                self._hold_present()
        elif entry is reg.OPERATING_MODE and data[0] != self.mode:
            self._restore_goals()
            for gain in _GAINS:
                self.set(gain, self.model.initial.get(gain.name, gain.initial))
            if data[0] in FOLDING_MODES:
                self.fold()
        elif entry is reg.GOAL_POSITION and self.torque_by_goal and not self.shut_down:
            if self.mode == reg.MODE_POSITION and not self.torque:
                self.fold()
            self.set(reg.TORQUE_ENABLE, 1)
        if entry is not None:
            self.refresh()

    def write_goal(self, tick: int) -> int:
        """Goal_Position alone, the write of every cycle: as `write`, ten times faster."""
        low, high = self.limits
        if not self._plain_goal or not low <= tick <= high:
            return self.write(reg.GOAL_POSITION.address, reg.GOAL_POSITION.encode(tick))
        self.table[116:120] = tick.to_bytes(4, "little", signed=True)
        self.goal_tick = tick
        return StatusError.NONE

    def fold(self) -> None:
        """Report the position within one turn from now on: the encoder's value 0..4095, shifted by Homing_Offset.

        E-manual, item 132. So an XC430 at 3700 with an offset of -512 reads -396 after torque off and on, and goes
        round a whole turn when it is sent to 3700 again (forum.robotis.com, topic 7814, firmware 49).
        """
        count = self.present_tick - self._offset
        self._turns += count // TICKS_PER_TURN
        self.refresh()
        self.present_tick = count % TICKS_PER_TURN + self._offset
        self.set(reg.PRESENT_POSITION, self.present_tick)

    def _wake(self) -> None:
        """The end of booting: turns are forgotten, and the goal is where the servo stands."""
        self.waking = False
        self.fold()
        self._hold_present()

    def _hold_present(self) -> None:
        """Make the present position the goal."""
        self.goal_tick = self.present_tick
        self.set(reg.GOAL_POSITION, self.present_tick)

    def trip_watchdog(self) -> None:
        """Stop where the motor is; goals stay read-only until Bus_Watchdog is written 0.

        The e-manual (item 98) says that it stops and that the profile is set to 0. It does not say what becomes of the
        goal; a report of firmware that put a wrong position there (dynamixel-sdk issue 584) shows that it is replaced.
        """
        self.set(reg.BUS_WATCHDOG, -1)
        for entry in (reg.GOAL_VELOCITY, reg.PROFILE_ACCELERATION, reg.PROFILE_VELOCITY):
            self.set(entry, 0)
        self.goal_tick = self.present_tick
        if self.goal_at_trip == "present":
            self._hold_present()
        self.refresh()

    @property
    def shut_down(self) -> bool:
        """An error that `Shutdown` lists has switched torque off."""
        return bool(self.get(reg.HARDWARE_ERROR_STATUS) & self.get(reg.SHUTDOWN))

    def raise_error(self, bits: int) -> None:
        """Set bits of Hardware_Error_Status; those that `Shutdown` lists switch torque off."""
        self.set(reg.HARDWARE_ERROR_STATUS, self.get(reg.HARDWARE_ERROR_STATUS) | bits)
        if self.shut_down:
            self.set(reg.TORQUE_ENABLE, 0)
        self.refresh()

    def reboot(self, now_ns: int) -> None:
        """RAM as at power-up, torque off, errors gone; silent for `BOOT_NS`."""
        self._reset_ram()
        self.booted_at_ns = now_ns + BOOT_NS

    def power_off(self) -> None:
        """No supply: RAM is lost and nothing is heard, until `reboot`."""
        self._reset_ram()
        self.booted_at_ns = NEVER_NS

    def factory_reset(self, scope: int, now_ns: int) -> None:
        """EEPROM as delivered by the maker. `scope`: 0xFF everything, 1 all but the id, 2 all but id and baud rate."""
        kept = {0x01: (reg.ID,), 0x02: (reg.ID, reg.BAUD_RATE)}.get(scope, ())
        values = [(entry, self.get(entry)) for entry in kept]
        self._reset_eeprom()
        for entry, value in values:
            self.set(entry, value)
        self.reboot(now_ns)


def _entry(address: int) -> Register | None:
    return _BY_ADDRESS.get(address)
