"""The control tables of an arm's servos as far as switching torque needs them: looked at together, written until read
back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.packets import Packet
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.hardware.dynamixel_blocks import reading, writing
from aloha_runtime.hardware.dynamixel_stance import ADDRESS, EEPROM_ADDRESS, EEPROM_SIZE, SIZE, State
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.hardware.steps import Steps

ATTEMPTS = 3
"""Block writes have no acknowledgement: a lost one shows when reading back, and is sent again."""

READS = 2
"""Who is missing in one read is asked in another: the computer or the adapter may be late, and a bad line loses
answers. Together they are shorter than the watchdog of servos that wait meanwhile."""


class Wrong(NamedTuple):
    """A register that does not hold what it should."""

    servo_id: int
    register: Register
    wanted: int
    found: int


class ServoTables:
    """`states`: what each servo said last; a servo that does not answer once is left out from then on. Steps raise
    PortLostError."""

    def __init__(self, port: SerialPort, ids: Sequence[int], patience_ns: int) -> None:
        """`patience_ns`: how long one exchange may last."""
        self.port = port
        self.states: dict[int, State] = {}
        self._ids, self._patience_ns = list(ids), patience_ns
        self._eeprom: dict[int, bytes] = {}
        self._here: list[int] = []
        self.certain = True
        """`silent` names the dead alone; False: answers come late, so that some of these may live."""

    @property
    def silent(self) -> list[int]:
        """Servos that did not answer."""
        return [servo_id for servo_id in self._ids if servo_id not in self.states]

    def apply(self, wanted: Mapping[Register, Mapping[int, int]]) -> Steps[list[Wrong]]:
        """Write what differs of these registers, in this order, until every servo that answers has it; returns what one
        does not take. A tripped watchdog is cleared first, and the goal told once more right behind."""
        eeprom = any(register.eeprom for register in wanted)
        if eeprom:
            yield from self.look_at_eeprom()
        wrong = self.wrong(wanted)
        for _ in range(ATTEMPTS):
            if not wrong:
                break
            tripped = {servo_id: 0 for servo_id, register, _, found in wrong if _is_trip(register, found)}
            due = {(servo_id, register) for servo_id, register, _, _ in wrong}
            due |= {(servo_id, registers.GOAL_POSITION) for servo_id in tripped}
            rest = [(r, {i: value for i, value in values.items() if (i, r) in due}) for r, values in wanted.items()]
            yield from self.write([(registers.BUS_WATCHDOG, tripped), *rest])
            if eeprom:
                yield from self.look_at_eeprom()
            wrong = self.wrong(wanted)
        return wrong

    def write(self, writes: Iterable[tuple[Register, Mapping[int, int]]]) -> Steps[None]:
        """Write registers once, and look."""
        yield from writing(self.port, writes)
        yield from self.look()

    def wrong(self, wanted: Mapping[Register, Mapping[int, int]]) -> list[Wrong]:
        """What the servos that answer do not hold of these registers."""
        return [
            Wrong(servo_id, register, value, self.states[servo_id][register])
            for register, values in wanted.items()
            for servo_id, value in values.items()
            if servo_id in self.states and self.states[servo_id][register] != value
        ]

    def begin(self, silent: Iterable[int]) -> Steps[None]:
        """Look at all servos but those that are known to be silent."""
        self._here = [servo_id for servo_id in self._ids if servo_id not in set(silent)]
        self._eeprom = {}
        self.certain = True
        yield from self.look()

    def look(self) -> Steps[None]:
        """Read the RAM of all servos that still answer; who does not is left out from then on."""
        blocks = yield from self._read(ADDRESS, SIZE)
        self.states = {i: State(blocks[i], self._eeprom.get(i, b"")) for i in self._here}

    def look_at_eeprom(self) -> Steps[None]:
        """Read mode and Homing_Offset of all servos that still answer."""
        self._eeprom = yield from self._read(EEPROM_ADDRESS, EEPROM_SIZE)
        self.states = {i: self.states[i].with_eeprom(self._eeprom[i]) for i in self._here}

    def _read(self, address: int, size: int) -> Steps[dict[int, bytes]]:
        answers: dict[int, Packet] = {}
        late = False
        for number in range(1, READS + 1):
            missing = [servo_id for servo_id in self._here if servo_id not in answers]
            if not missing:
                break
            block = yield from reading(self.port, missing, address, size, self._patience_ns // number)
            answers |= block.found
            late = late or block.late
        if late and len(answers) < len(self._here):
            self.certain = False
        self._here = [servo_id for servo_id in self._here if servo_id in answers]
        return {servo_id: answers[servo_id].data for servo_id in self._here}


def _is_trip(register: Register, found: int) -> bool:
    return register is registers.BUS_WATCHDOG and found < 0
