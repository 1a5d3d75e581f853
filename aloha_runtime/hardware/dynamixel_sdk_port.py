"""dynamixel_sdk on our own port: the SDK's packet handler for single reads and writes, without its faults.

The SDK opens ports without a lock, busy-waits, and measures time-outs on the wall clock; all of that is in its port
handler, so this one replaces it. Its packet handler answers 0 for a failed read; `ServoAccess` raises instead.
"""

import time
from collections.abc import Callable
from typing import Any

from dynamixel_sdk import COMM_SUCCESS, PortHandler, Protocol2PacketHandler

from aloha_runtime.dynamixel.packets import ALERT, Instruction, StatusError
from aloha_runtime.dynamixel.registers import REGISTERS, Register
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel_frames import STATUS_SIZE
from aloha_runtime.hardware.serial_port import PortLostError, SerialPort

ATTEMPTS = 3
"""A lost or damaged packet during set-up is asked for again; three in a row are a fault."""
_IDLE_S = 0.0002
_EEPROM_SIZE = 64
_QUIET_S = 0.05
"""After this a reply that somebody asked for earlier is on its way no longer: one comes at most 40 ms late."""
_PATIENCE_MS = 100.0


class SdkPort(PortHandler):  # type: ignore[misc]
    """The SDK's view of an open `SerialPort`: it sleeps instead of spinning and counts monotonic milliseconds."""

    def __init__(self, port: SerialPort) -> None:
        super().__init__(port.path)
        self._port = port
        self._held = b""
        self.baudrate = port.baud
        self.is_open = True
        self.tx_time_per_byte = port.byte_ns / 1e6

    def clearPort(self) -> None:  # noqa: N802 (the SDK's name)
        """Throw away what has arrived."""
        self._held = b""
        self._port.flush()

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """At most `length` bytes; sleeps a little when there are none, since the SDK calls this in a loop."""
        self._held += self._port.read()
        if not self._held:
            time.sleep(_IDLE_S)
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def writePort(self, packet: list[int]) -> int:  # noqa: N802
        """Send; returns the number of bytes."""
        self._port.write(bytes(packet))
        return len(packet)

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Wait this long for an answer: generous, since a late answer is worse than a slow set-up."""
        self.packet_start_time = self.getCurrentTime()
        self.packet_timeout = self.tx_time_per_byte * packet_length + _PATIENCE_MS

    def getCurrentTime(self) -> float:  # noqa: N802
        """Monotonic milliseconds."""
        return time.monotonic_ns() / 1e6


class ServoAccess:
    """Registers of single servos of one arm, verified. `labels`: servo id -> joint, for messages.

    Every method raises HardwareError naming arm, servo, register and reason.
    """

    def __init__(self, arm: str, port: SerialPort, labels: dict[int, str]) -> None:
        self.arm = arm
        self.port = port
        self._labels = labels
        self._sdk_port = SdkPort(port)
        self._handler = Protocol2PacketHandler()
        time.sleep(_QUIET_S)
        self._sdk_port.clearPort()

    def label(self, servo_id: int) -> str:
        """Joint of a servo."""
        return self._labels.get(servo_id, "unknown joint")

    def who(self, servo_id: int) -> str:
        """A servo as messages name it."""
        return f"{self.arm}: servo {servo_id} ({self.label(servo_id)})"

    def ping(self, servo_id: int, attempts: int = ATTEMPTS) -> int | None:
        """Model number, or None when nobody answers."""
        for _ in range(attempts):
            _, data = self._ask(servo_id, Instruction.PING, b"", 3)
            if data:
                return int.from_bytes(data[:2], "little")
        return None

    def scan(self) -> dict[int, tuple[int, int]]:
        """Every servo on the bus: id -> (model number, firmware). Takes about a second."""
        found, _ = self._guard(self._handler.broadcastPing)
        return {servo_id: (model, firmware) for servo_id, (model, firmware) in sorted(found.items())}

    def read(self, servo_id: int, register: Register) -> int:
        """Value of one register."""
        return register.decode(self._read(servo_id, register.address, register.size, register.name))

    def read_eeprom(self, servo_id: int) -> dict[str, int]:
        """Every EEPROM register by name, in one exchange."""
        data = self._read(servo_id, 0, _EEPROM_SIZE, "the EEPROM")
        entries = [entry for entry in REGISTERS if entry.eeprom]
        return {entry.name: entry.decode(data[entry.address : entry.address + entry.size]) for entry in entries}

    def write(self, servo_id: int, register: Register, value: int) -> None:
        """Write one register and read it back."""
        params = register.address.to_bytes(2, "little") + register.encode(value)
        why = ""
        for _ in range(ATTEMPTS):
            why, _ = self._ask(servo_id, Instruction.WRITE, params, 0)
            if not why:
                break
        found = self.read(servo_id, register)
        if found != value:
            raise HardwareError(
                f"{self.who(servo_id)} does not take {register.name} {value}: it stays {found} ({why or 'no error'}); "
                "switch the arm's power off and on, and replace the servo if that does not help"
            )

    def read_ram(self, servo_id: int) -> dict[str, int]:
        """Every named RAM register by name, in one exchange."""
        entries = [entry for entry in REGISTERS if not entry.eeprom]
        start = min(entry.address for entry in entries)
        end = max(entry.address + entry.size for entry in entries)
        data = self._read(servo_id, start, end - start, "the RAM")
        return {e.name: e.decode(data[e.address - start : e.address - start + e.size]) for e in entries}

    def write_unheard(self, servo_id: int, register: Register, value: int) -> None:
        """Write without reading back: after ID and Baud_Rate the servo is elsewhere, where the caller looks for
        it; before Status_Return_Level is 2 it may not answer."""
        self._ask(servo_id, Instruction.WRITE, register.address.to_bytes(2, "little") + register.encode(value), 0)

    def _read(self, servo_id: int, address: int, size: int, what: str) -> bytes:
        params = address.to_bytes(2, "little") + size.to_bytes(2, "little")
        why = ""
        for _ in range(ATTEMPTS):
            why, data = self._ask(servo_id, Instruction.READ, params, size)
            if not why:
                return data
        raise HardwareError(
            f"{self.who(servo_id)}: cannot read {what} ({why}); check its cable and power, then start again"
        )

    def _ask(self, servo_id: int, instruction: Instruction, params: bytes, size: int) -> tuple[str, bytes]:
        """One exchange through the SDK: (why it failed or empty, `size` bytes of data).

        The SDK takes any status packet of that servo for the answer, a late one with other contents too; here the
        length must fit. The alert bit is no failure: readings report it.
        """
        return self._guard(self._exchange, servo_id, instruction, params, size)  # type: ignore[no-any-return]

    def _exchange(self, port: SdkPort, servo_id: int, code: Instruction, params: bytes, size: int) -> tuple[str, bytes]:
        length = len(params) + 3
        question = [0, 0, 0, 0, servo_id, length & 0xFF, length >> 8, code, *params, 0, 0]
        result = self._handler.txPacket(port, question)
        port.setPacketTimeout(size + STATUS_SIZE)
        while result == COMM_SUCCESS:
            answer, result = self._handler.rxPacket(port, False)
            if result == COMM_SUCCESS and answer[4] == servo_id and answer[5] | answer[6] << 8 == size + 4:
                error = answer[8] & ~ALERT
                return StatusError(error).name.lower().replace("_", " ") if error else "", bytes(answer[9 : 9 + size])
        time.sleep(_QUIET_S)
        return str(self._handler.getTxRxResult(result)).removeprefix("[TxRxResult] "), b""

    def _guard(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return call(self._sdk_port, *arguments)
        except PortLostError as error:
            raise HardwareError(
                f"{self.arm}: {self.port.path} was lost while talking to the servos ({error}); replug the adapter"
            ) from error
