"""A driver's side of an emulated chain for tests: packets in, parsed packets out, time by hand."""

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.robot import Role
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.servo import ServoPlant

MS = 1_000_000


class Bench:
    """A chain with a clock. `talk` sends bytes and returns what came back, after waiting for it."""

    def __init__(self, role: Role = "follower", **options: object) -> None:
        self.plant = ServoPlant(role)
        self.chain = Chain(role, self.plant, **options)  # type: ignore[arg-type]
        self.now_ns = 10**9
        self.baud = 1_000_000

    def pass_ms(self, duration_ms: float) -> None:
        """Let time pass in steps of a millisecond, as a server would."""
        for _ in range(round(duration_ms)):
            self.now_ns += MS
            self.chain.advance(self.now_ns)

    def talk(self, data: bytes) -> list[Packet]:
        replies = self.chain.receive(data, self.now_ns, self.baud)
        found = [packet for reply in replies for packet in Parser().feed(reply.data)]
        self.now_ns = max([self.now_ns + 100_000, *(reply.ready_at_ns for reply in replies)])
        self.chain.advance(self.now_ns)
        return found

    def write(self, servo: int, entry: Register, value: int) -> int | None:
        """Error byte of a write, None when nobody answered."""
        found = self.talk(packets.write(servo, entry.address, entry.encode(value)))
        assert all(packet.id == servo for packet in found)
        return found[0].error if found else None

    def read(self, servo: int, entry: Register) -> int:
        (packet,) = self.talk(packets.read(servo, entry.address, entry.size))
        assert packet.error & 0x7F == 0
        return entry.decode(packet.data)

    def angle(self, joint: int) -> float:
        """Motor angle now, rad."""
        return self.plant.read(self.now_ns).angles[joint]

    def torque(self, *servos: int) -> None:
        for servo in servos:
            assert self.write(servo, reg.TORQUE_ENABLE, 1) == 0
