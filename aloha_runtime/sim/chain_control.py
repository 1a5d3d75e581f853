"""The back door of an emulated chain: faults on request, the goal monitor's report, a look into control tables.

One JSON packet each way over a Unix socket in the run directory. For tests and the fault bench, not for the runtime.
"""

import contextlib
import socket
import time
from pathlib import Path

import msgspec

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.errors import TransportError
from aloha_runtime.run_directory import Lock, socket_path
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.monitor import Report, Wire
from aloha_runtime.sim.pty import ChainServer
from aloha_runtime.sim.servo import ServoPlant

PACKET_BYTES = 1 << 17
"""Room for a second of the wire of one arm; the kernel's default socket buffer is not much larger."""
TIMEOUT_S = 2.0


class SetFaults(msgspec.Struct, tag=True):
    """Take these faults from now on."""

    faults: Faults


class RaiseError(msgspec.Struct, tag=True):
    """Give a servo hardware errors, bits of address 70."""

    servo: int
    bits: int


class BrownOut(msgspec.Struct, tag=True):
    """Let the supply dip."""


class CutPower(msgspec.Struct, tag=True):
    """Take the supply of all servos away, until `ReturnPower`; the adapter stays."""


class ReturnPower(msgspec.Struct, tag=True):
    """Give the servos their supply again."""


class Unplug(msgspec.Struct, tag=True):
    """Pull the adapter, for so long (None: until `Plug`)."""

    seconds: float | None = None


class Plug(msgspec.Struct, tag=True):
    """Plug the adapter in again."""


class Peek(msgspec.Struct, tag=True):
    """Read a register of a servo by name, past the bus."""

    servo: int
    register: str


class Poke(msgspec.Struct, tag=True):
    """Set a register of a servo by name, past every rule, as if it had come so from the shop."""

    servo: int
    register: str
    value: int


class Place(msgspec.Struct, tag=True):
    """Take a joint of an arm without a world (0 waist .. 6 gripper) by hand and put it at an angle (rad)."""

    joint: int
    angle: float


class GetReport(msgspec.Struct, tag=True):
    """The goal monitor's account; `reset` starts a new one."""

    reset: bool = False


class GetWire(msgspec.Struct, tag=True):
    """Goals and positions that went over the wire since an instant, which should be less than a second ago."""

    since_ns: int


Request = (
    SetFaults
    | RaiseError
    | BrownOut
    | CutPower
    | ReturnPower
    | Unplug
    | Plug
    | Peek
    | Poke
    | Place
    | GetReport
    | GetWire
)


class Answer(msgspec.Struct):
    """`error` is empty when all went well. `value`: of a Peek."""

    error: str = ""
    value: int = 0
    report: Report | None = None
    wire: Wire | None = None
    line: dict[str, int] = {}
    """What the faults did so far."""
    lost: int = 0
    """Replies that nobody fetched."""
    now_ns: int = 0
    """The chain's clock."""


_decode = msgspec.json.Decoder(Request).decode


def control_path(run_dir: Path, arm: str) -> Path:
    """Socket of an arm's chain, beside the name of its terminal."""
    return socket_path(run_dir, f"ttyDXL_{arm}.ipc")


class BackDoor:
    """The server's side. Holds the lock that keeps a second chain of the same arm out."""

    def __init__(self, server: ChainServer, run_dir: Path, arm: str) -> None:
        self._server = server
        self._lock = Lock(
            control_path(run_dir, arm).with_suffix(".lock"),
            f"the emulated chain of {arm} runs already: pid {{pid}} ({{command}})",
        )
        self._path = control_path(run_dir, arm)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self._path))
        self._listener.listen(8)
        self._plug_at: float | None = None
        server.watch(self._listener.fileno(), self._accept)

    def look(self) -> None:
        """Plug the adapter in again when its time has come; call it now and then."""
        if self._plug_at is not None and time.monotonic() >= self._plug_at:
            self._plug_at = None
            self._server.terminal.plug()

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._lock.release()

    def _accept(self) -> None:
        """Note who wants to ask. Servos do not wait for a client that is interrupted before it puts its question."""
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._server.watch(connection.fileno(), lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        self._server.unwatch(connection.fileno())
        with connection, contextlib.suppress(OSError):  # a client that gave up is its own affair
            try:
                answer = self._carry_out(_decode(connection.recv(PACKET_BYTES)))
            except (msgspec.MsgspecError, LookupError, ValueError, ArithmeticError, RecursionError) as error:
                answer = Answer(error=f"{type(error).__name__}: {error}")
            connection.send(msgspec.json.encode(answer))

    def _carry_out(self, request: Request) -> Answer:  # noqa: PLR0912 (one branch for each request)
        server = self._server
        answer = Answer(now_ns=server.now_ns(), line=server.chain.line.counts, lost=server.lost)
        match request:
            case SetFaults(faults):
                server.chain.set_faults(faults)
            case RaiseError(servo, bits):
                server.chain.raise_error(servo, bits)
            case BrownOut():
                server.chain.brown_out(server.now_ns())
            case CutPower():
                server.cut_power()
            case ReturnPower():
                server.chain.return_power(server.now_ns())
            case Unplug(seconds):
                server.unplug()
                self._plug_at = None if seconds is None else time.monotonic() + seconds
            case Plug():
                self._plug_at = None
                server.terminal.plug()
            case Peek(servo, register):
                answer.value = server.chain.peek(servo, reg.BY_NAME[register], server.now_ns())
            case Poke(servo, register, value):
                server.chain.poke(servo, reg.BY_NAME[register], value)
            case Place(joint, angle):
                self._place(joint, angle)
            case GetReport(reset):
                answer.report = server.monitor.report()
                if reset:
                    server.monitor.reset()
            case GetWire(since_ns):
                answer.wire = server.monitor.wire(since_ns)
        return answer

    def _place(self, joint: int, angle: float) -> None:
        plant = self._server.chain.drive.plant
        if not isinstance(plant, ServoPlant):
            raise KeyError("the joints of this arm are moved by a world")
        plant.angles[joint] = angle


def ask(run_dir: Path, arm: str, request: Request) -> Answer:
    """Put a request to an arm's chain. TransportError when it does not run, does not answer or refuses."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(TIMEOUT_S)
    with client:
        try:
            client.connect(str(control_path(run_dir, arm)))
            client.send(msgspec.json.encode(request))
            answer = msgspec.json.decode(client.recv(PACKET_BYTES), type=Answer)
        except (OSError, msgspec.DecodeError) as error:
            raise TransportError(f"the emulated chain of {arm} does not answer in {run_dir} ({error})") from None
    if answer.error:
        raise TransportError(f"the emulated chain of {arm} refused {type(request).__name__}: {answer.error}")
    return answer
