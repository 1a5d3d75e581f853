"""Ids, baud rate and registers of an arm's servos, brought to what the runtime wants."""

from aloha_runtime.commands import servo as servo_commands
from aloha_runtime.commands.doctor_servos import check_arm
from aloha_runtime.commands.findings import Level
from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config import ArmConfig
from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import BAUD_RATES, MODEL_BY_NUMBER, Register
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.hardware.serial_port import SerialPort
from aloha_runtime.robot import SERVOS, Role

BAUD = 1_000_000
ROUNDS = 3
"""A write to a master reaches its shadow as well, so that mending one finding can show another."""
BAUD_VALUE = {rate: value for value, rate in BAUD_RATES.items()}


def set_up_servos(name: str, role: Role, config: ArmConfig, path: str, person: Person) -> None:
    """Every servo of one arm: there, at 1 Mbaud, with the registers of the kit. Raises HardwareError."""
    _set_baud(name, path, person)
    _set_ids(name, role, path, person)
    for _ in range(ROUNDS):
        found = [finding for finding in check_arm(name, role, config, path) if finding.level is not Level.OK]
        mendable = [finding for finding in found if finding.mend is not None]
        if not mendable:
            break
        for finding in mendable:
            person.say(f"  {finding.check}: {finding.value}")
        if not person.agrees(f"servos.{name}", f"Set these {len(mendable)} registers of {name}, which lies down?"):
            break
        for finding in mendable:
            assert finding.mend is not None
            finding.mend()
    for finding in found:
        person.say(f"  {finding.level} {finding.check}: {finding.value}; {finding.fix}")
    broken = [finding.check for finding in found if finding.level is Level.FAIL]
    if broken:
        raise HardwareError(f"{name} is not ready ({', '.join(broken)}): mend it, then `aloha setup` again")
    person.say(f"{name}: nine servos are ready")


def _set_baud(name: str, path: str, person: Person) -> None:
    """Servos that answer at another rate go to 1 Mbaud."""
    found = servo_commands.find(path, enough=len(SERVOS["leader"]))
    if not found:
        raise HardwareError(f"{name}: no servo answers on {path} at any rate; switch on the arm's power")
    for rate, servos in found.items():
        if rate == BAUD:
            continue
        ids = ", ".join(map(str, servos))
        if not person.agrees(f"baud.{name}", f"Servos {ids} of {name} run at {rate} baud; set them to {BAUD}?"):
            raise HardwareError(f"{name}: servos {ids} run at {rate} baud, the others could not be reached with them")
        for servo_id in servos:
            _move(name, path, rate, servo_id, registers.BAUD_RATE, BAUD_VALUE[BAUD])


def _set_ids(name: str, role: Role, path: str, person: Person) -> None:
    """All nine ids, or a single new servo that gets the one that its joint needs."""
    found = servo_commands.find(path, enough=1).get(BAUD, {})
    wanted = [servo.id for servo in SERVOS[role]]
    if sorted(found) == wanted:
        return
    missing = [servo_id for servo_id in wanted if servo_id not in found]
    if len(found) != 1:
        raise HardwareError(
            f"{name}: servos {', '.join(map(str, found))} answer, {', '.join(map(str, missing))} do not: check cables;"
            " a new servo gets its id when it hangs on the adapter alone: `aloha setup` then asks for it"
        )
    (servo_id,) = found
    model = MODEL_BY_NUMBER.get(found[servo_id][0])
    named = model.name if model is not None else "an unknown model"
    choices = ", ".join(f"{servo.id} {servo.joint}" for servo in SERVOS[role] if model and servo.model == model.name)
    chosen = person.ask(f"id.{name}", f"One servo hangs there ({named}, id {servo_id}). Its id ({choices or 'none'})")
    if not chosen.isdigit() or int(chosen) not in wanted:
        raise HardwareError(f"{name}: {chosen!r} is no servo of an arm: choose one of {choices}")
    if int(chosen) != servo_id:
        _move(name, path, BAUD, servo_id, registers.ID, int(chosen))
    raise HardwareError(f"{name}: that servo is {chosen} now; connect the whole arm, then `aloha setup` again")


def _move(name: str, path: str, baud: int, servo_id: int, register: Register, value: int) -> None:
    """Set id or baud rate, after which the servo answers elsewhere: there it is looked for."""
    port = SerialPort(path, baud)
    try:
        access = ServoAccess(name, port, {})
        if access.ping(servo_id) is None:  # a shadow obeys what its master was told just before
            return
        access.write(servo_id, registers.TORQUE_ENABLE, 0)
        access.write_unheard(servo_id, register, value)
    finally:
        port.close()
    servo_id, baud = (value, baud) if register is registers.ID else (servo_id, BAUD_RATES[value])
    port = SerialPort(path, baud)
    try:
        if ServoAccess(name, port, {}).ping(servo_id) is None:
            raise HardwareError(f"{name}: servo {servo_id} does not answer at {baud} baud after its {register.name}")
    finally:
        port.close()
