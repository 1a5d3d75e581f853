"""Switching torque of a whole arm with a few block writes, each read back: some milliseconds, between two cycles.

A tripped watchdog makes goals read-only, and a servo that gets torque runs to whatever goal it has. So the watchdog is
cleared first, then every goal becomes where its joint is, then the watchdog is set, and torque comes last.
"""

from collections.abc import Mapping, Sequence

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import Register, describe_hardware_error
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.base import ArmSilentError
from aloha_runtime.hardware.dynamixel_exchange import read_all, write_all
from aloha_runtime.hardware.dynamixel_frames import WIDE_ADDRESS, WIDE_SIZE
from aloha_runtime.hardware.dynamixel_health import Health
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.robot import MA_PER_UNIT, RAD_PER_TICK, Role, Servo

WATCHDOG = 5
"""Bus_Watchdog: a servo stops by itself when it hears nothing for 100 ms."""
WATCHDOG_NS = WATCHDOG * registers.WATCHDOG_UNIT_MS * 1_000_000
STANDARD_P_GAIN = 800
"""Position gain of the kits (with I = 0); a controller used before may have left a soft one, which sags."""
LIMIT_SLACK_TICKS = round(0.10 / RAD_PER_TICK)
"""A joint this far outside its limits (an arm asleep on its stop) may get torque: it moves in by no more than this."""
ATTEMPTS = 3
"""Block writes have no acknowledgement: a lost one shows when reading back, and is sent again."""

_ERROR_BLOCK = (registers.HARDWARE_ERROR_STATUS.address - 6, 7)
"""Address and size of a block that ends with Hardware_Error_Status: a size that no other question here has."""
_Wanted = Mapping[Register, Mapping[int, int]]
"""Register -> servo id -> value."""


class TorqueSwitch:
    """Torque of one arm. `port` may be replaced after unplugging. Methods raise HardwareError and PortLostError."""

    def __init__(
        self, arm: str, port: SerialPort, role: Role, servos: Sequence[Servo], gripper_current_ma: float
    ) -> None:
        self.port = port
        self._arm = arm
        self._servos = {servo.id: servo for servo in servos}
        self._all = list(self._servos)
        self._masters = [servo for servo in servos if servo.shadow_of is None]
        self._gripper = self._masters[-1].id
        self._held: dict[int, bool] = {}
        self._carrying: list[int] = []
        """Servos in current control."""
        self._ram: dict[Register, dict[int, int]] = {
            registers.PROFILE_ACCELERATION: dict.fromkeys(self._all, 0),
            registers.PROFILE_VELOCITY: dict.fromkeys(self._all, 0),
        }
        if role == "follower":
            self._ram[registers.POSITION_P_GAIN] = dict.fromkeys(self._all, STANDARD_P_GAIN)
            self._ram[registers.POSITION_I_GAIN] = dict.fromkeys(self._all, 0)
            self._ram[registers.GOAL_CURRENT] = {self._gripper: round(gripper_current_ma / MA_PER_UNIT)}

    def hold_present(self) -> None:
        """Watchdog cleared, RAM set, every goal where its joint is, watchdog set. Torque stays as it is.

        A program that died left goals its servos had not reached; a tripped watchdog froze them.
        """
        goals = self._present()  # sent right behind the clearing: a servo set free goes on to the goal it has
        freed = {registers.BUS_WATCHDOG: dict.fromkeys(self._all, 0), registers.GOAL_POSITION: goals}
        self._apply(freed | self._ram)
        self._apply({registers.BUS_WATCHDOG: dict.fromkeys(self._all, WATCHDOG)})

    def switch(self, joints: bool, gripper: bool, obeying: bool) -> None:
        """Torque of the joints (shadows included) and of the gripper. Before any goes on: `hold_present`.

        `obeying`: the servos have followed goals until now. Then those that keep their torque while others lose theirs
        keep their goals: where a joint sags, its present position as a goal would let it down with a jerk.
        """
        self._end_carrying()
        held = {servo_id: gripper if servo_id == self._gripper else joints for servo_id in self._all}
        gives = any(on and not self._held.get(servo_id) for servo_id, on in held.items())
        takes = any(self._held.get(servo_id) and not on for servo_id, on in held.items())
        if any(held.values()) and (gives or not takes or not obeying):
            self.hold_present()
        self._apply({registers.TORQUE_ENABLE: {servo_id: int(on) for servo_id, on in held.items()}})
        self._held = held

    def carry(self, goal_currents: Mapping[int, int]) -> None:
        """Current control with these currents (Goal_Current by id of the master, obeyed by its shadow); torque off
        elsewhere. Nothing holds the arm while the modes are written: some milliseconds, in a person's hands."""
        master = {servo.id: servo.id if servo.shadow_of is None else servo.shadow_of for servo in self._servos.values()}
        self._carrying = [servo_id for servo_id in self._all if master[servo_id] in goal_currents]
        self._apply({registers.TORQUE_ENABLE: dict.fromkeys(self._all, 0)})
        self._apply({registers.OPERATING_MODE: dict.fromkeys(self._carrying, registers.MODE_CURRENT)})
        currents = {servo_id: goal_currents[master[servo_id]] for servo_id in self._carrying}
        self._apply({registers.BUS_WATCHDOG: dict.fromkeys(self._all, 0), registers.GOAL_CURRENT: currents})
        self._apply({registers.BUS_WATCHDOG: dict.fromkeys(self._all, WATCHDOG)})
        self._held = {servo_id: servo_id in currents for servo_id in self._all}
        self._apply({registers.TORQUE_ENABLE: {servo_id: int(on) for servo_id, on in self._held.items()}})

    def _end_carrying(self) -> None:
        """Back to position control, in which a servo can hold."""
        if self._carrying:
            self._apply({registers.TORQUE_ENABLE: dict.fromkeys(self._all, 0)})
            self._held = {}
            self._apply({registers.OPERATING_MODE: dict.fromkeys(self._carrying, registers.MODE_POSITION)})
            self._carrying = []

    def complaint(self, heard: Mapping[int, Health], since_ns: int) -> str:
        """Which servo has lost what `switch` gave it, by what it said after `since_ns`; empty when all is well."""
        for servo_id, health in heard.items():
            who = f"servo {servo_id} ({self._servos[servo_id].joint})"
            if health.stamp_ns < since_ns or health.hardware_error:
                continue  # an error is reported as such, and is why torque is off
            if self._held.get(servo_id) and not health.torque:
                return f"{who} has lost its torque (a power cut?); `aloha arm`, when its power is steady"
            if health.watchdog != WATCHDOG:
                what = "a tripped" if health.watchdog < 0 else "lost its"
                return f"{who} has {what} watchdog ({health.watchdog}); `aloha arm` sets it again"
        return ""

    def _present(self) -> dict[int, int]:
        """Present positions of the masters, moved into their limits where they are a little outside.

        Read as a block of a size that nothing else has: a late reply to another question must not become a goal.
        """
        blocks = self._read([servo.id for servo in self._masters], WIDE_ADDRESS, WIDE_SIZE)
        goals = {}
        for servo in self._masters:
            tick = registers.PRESENT_POSITION.decode(blocks[servo.id][-registers.PRESENT_POSITION.size :])
            goals[servo.id] = min(servo.max_tick, max(servo.min_tick, tick))
            if abs(goals[servo.id] - tick) > LIMIT_SLACK_TICKS:
                raise HardwareError(
                    f"{self._arm}: servo {servo.id} ({servo.joint}) is at tick {tick}, outside its limits "
                    f"{servo.min_tick}..{servo.max_tick}; move that joint by hand into its range, then start again"
                )
        return goals

    def _apply(self, wanted: _Wanted) -> None:
        """Write registers in this order until all read back; raises HardwareError naming one that does not."""
        wrong: list[tuple[int, Register, int]] = []
        for _ in range(ATTEMPTS):
            for register, values in wanted.items():
                write_all(self.port, register, values)
            wrong = self._wrong(wanted)
            if not wrong:
                return
        servo_id, register, found = wrong[0]
        bits = self._read([servo_id], *_ERROR_BLOCK)[servo_id][-1]
        why = f"it reports {describe_hardware_error(bits)}" if bits else "it reports no error"
        raise HardwareError(
            f"{self._arm}: servo {servo_id} ({self._servos[servo_id].joint}) does not take "
            f"{register.name} {wanted[register][servo_id]}: it stays {found}, and {why}; "
            "support the arm, switch its power off and on, then start again"
        )

    def _wrong(self, wanted: _Wanted) -> list[tuple[int, Register, int]]:
        """Servos and registers that do not hold what was written, and what they hold."""
        start = min(register.address for register in wanted)
        end = max(register.address + register.size for register in wanted)
        blocks = self._read(self._all, start, end - start)
        wrong = []
        for register, values in wanted.items():
            at = register.address - start
            for servo_id, value in values.items():
                found = register.decode(blocks[servo_id][at : at + register.size])
                if found != value:
                    wrong.append((servo_id, register, found))
        return wrong

    def _read(self, ids: list[int], address: int, size: int) -> dict[int, bytes]:
        """One block of several servos."""
        found = {servo_id: packet.data for servo_id, packet in read_all(self.port, ids, address, size).items()}
        if len(found) == len(ids):
            return found
        missing = [self._servos[i] for i in ids if i not in found]
        silent = [f"{s.id} ({s.joint}{'' if s.shadow_of is None else '_shadow'})" for s in missing]
        who = "no servo answers" if len(silent) == len(self._all) else f"no answer from servo {', '.join(silent)}"
        raise ArmSilentError(f"{self._arm}: {who}; check its cable and power, then `aloha arm`, or start again")
