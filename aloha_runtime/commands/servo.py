"""`aloha servo`: look at and correct single servos on a port that nobody uses. Errors of the driver name these."""

from rich.console import Console
from rich.table import Table

from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import BY_NAME, MODEL_BY_NUMBER
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.serial_port import BAUDS, SerialPort

_FIXED = (registers.ID, registers.BAUD_RATE, registers.PROTOCOL_TYPE)
"""After such a write the servo is no longer where it was; the maker's own tool does that with one servo on the bus."""


def find(path: str, enough: int | None = None) -> dict[int, dict[int, tuple[int, int]]]:
    """Every servo on a port by baud rate and id: (model number, firmware). Takes a second for each baud rate; `enough`
    servos at one rate end the search."""
    found = {}
    for baud in sorted(BAUDS, key=lambda rate: rate != 1_000_000):  # the kits' rate first
        port = SerialPort(path, baud)
        try:
            servos = ServoAccess(path, port, {}).scan()
        finally:
            port.close()
        if servos:
            found[baud] = servos
        if enough is not None and len(servos) >= enough:
            break
    return found


def scan(path: str) -> None:
    """Print every servo on a port; raises HardwareError when there is none."""
    found = find(path)
    if not found:
        rates = ", ".join(str(rate) for rate in BAUDS)
        raise HardwareError(f"no servo answers on {path} at {rates} baud; switch on the arm's power, check the cable")
    table = Table("baud", "id", "model", "firmware")
    for baud, servos in found.items():
        for servo_id, (number, firmware) in servos.items():
            model = MODEL_BY_NUMBER.get(number)
            table.add_row(str(baud), str(servo_id), f"{model.name if model else 'unknown'} ({number})", str(firmware))
    Console().print(table)


def write(path: str, servo_id: int, name: str, value: int, baud: int = 1_000_000) -> None:
    """Set one EEPROM register of one servo and read it back; raises HardwareError with the reason when it cannot."""
    register = BY_NAME.get(name)
    if register is None or not register.eeprom or not register.writable or register in _FIXED:
        names = ", ".join(r.name for r in BY_NAME.values() if r.eeprom and r.writable and r not in _FIXED)
        raise HardwareError(f"{name!r} is no register that this command sets; choose one of {names}")
    port = SerialPort(path, baud)
    try:
        access = ServoAccess(path, port, {})
        if access.read(servo_id, registers.TORQUE_ENABLE):
            raise HardwareError(
                f"{path}: servo {servo_id} has torque on, so {name} cannot be set; "
                f"support the arm and release it with `aloha servo release {path}`"
            )
        model = MODEL_BY_NUMBER.get(access.read(servo_id, registers.MODEL_NUMBER))
        high = model.current_limit if model is not None and register is registers.CURRENT_LIMIT else register.high
        if not register.low <= value <= high:
            raise HardwareError(f"{name} {value} is outside {register.low}..{high} of this servo")
        access.write(servo_id, register, value)
    finally:
        port.close()


def release(path: str, baud: int = 1_000_000) -> list[int]:
    """Switch off torque of every servo on a port; the arm falls unless it is held. Returns the servos' ids."""
    port = SerialPort(path, baud)
    try:
        access = ServoAccess(path, port, {})
        servos = list(access.scan())
        if not servos:
            raise HardwareError(f"no servo answers on {path} at {baud} baud; look with `aloha servo scan {path}`")
        for servo_id in servos:
            access.write(servo_id, registers.TORQUE_ENABLE, 0)
        return servos
    finally:
        port.close()
