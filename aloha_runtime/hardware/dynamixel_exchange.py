"""Blocking exchanges with a chain outside the SDK: one status packet per servo, asking again those that are missing.

Used where a Fast Sync Read failed or is not supported, and for the few block writes that switch torque.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from aloha_runtime.dynamixel import packets, registers
from aloha_runtime.dynamixel.packets import Instruction, Packet, Parser
from aloha_runtime.hardware.dynamixel_frames import write_register
from aloha_runtime.hardware.serial_port import SerialPort

QUIET_NS = 1_500_000
"""A servo that said nothing for this long after its turn counts as silent: the adapter holds bytes back up to 1 ms."""
STEP_NS = 200_000
"""Sleep between two looks at the port while a reply is overdue; each wake-up costs about 25 us of CPU."""
STATUS_SIZE = 11
"""Bytes of a status packet around its data."""
_EXCHANGE_NS = 100_000_000


def pause(now_ns: int, expected_ns: int, deadline_ns: int) -> None:
    """Sleep until a reply is expected, or for one step when it is overdue, never past the deadline."""
    left = min(max(expected_ns - now_ns, STEP_NS), deadline_ns - now_ns)
    if left > 0:
        time.sleep(left / 1e9)


def gather(
    port: SerialPort,
    parser: Parser,
    ids: Sequence[int],
    size: int,
    single: Callable[[int], bytes],
    *,
    expected_ns: int,
    deadline_ns: int,
) -> tuple[dict[int, Packet], list[Packet]]:
    """Status packets with `size` bytes of data from `ids`: (by servo id, packets that belong to nothing asked here).

    `expected_ns`: when the answers should be complete. Servos that are missing QUIET_NS later are asked one by one with
    `single(id)` until `deadline_ns`, in the order of `ids`. Raises PortLostError.
    """
    wanted, answers, strays = list(ids), dict[int, Packet](), list[Packet]()
    while True:
        for packet in parser.feed(port.read()):
            fits = packet.instruction == Instruction.STATUS and len(packet.params) == size + 1
            if fits and packet.id in wanted:
                wanted.remove(packet.id)
                answers[packet.id] = packet
            else:
                strays.append(packet)
        now = time.monotonic_ns()
        if not wanted or now >= deadline_ns:
            return answers, strays
        if now >= expected_ns + QUIET_NS:
            parser.reset()
            question = single(wanted[0])
            wanted.append(wanted.pop(0))
            port.write(question)
            expected_ns = now + (len(question) + STATUS_SIZE + size) * port.byte_ns
        pause(now, expected_ns, deadline_ns)


def read_all(port: SerialPort, ids: Sequence[int], address: int, size: int) -> dict[int, Packet]:
    """One block of several servos; those that do not answer within 100 ms are absent. Raises PortLostError."""
    port.flush()
    question = packets.sync_read(ids, address, size)
    port.write(question)
    now = time.monotonic_ns()
    expected = now + (len(question) + len(ids) * (STATUS_SIZE + size)) * port.byte_ns
    answers, _ = gather(
        port,
        Parser(),
        ids,
        size,
        lambda servo_id: packets.read(servo_id, address, size),
        expected_ns=expected,
        deadline_ns=now + _EXCHANGE_NS,
    )
    return answers


def write_all(port: SerialPort, register: registers.Register, values: Mapping[int, int]) -> None:
    """One register of several servos, by Sync Write: nobody answers, so read it back. Raises PortLostError."""
    packet = write_register(register, values)
    port.write(packet)
    time.sleep(len(packet) * port.byte_ns / 1e9)
