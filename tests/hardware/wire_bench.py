"""Arms on emulated chains with a made-up clock: the driver's cycle, the servos, and the wire between them, in no time.

Where a joint stands says when it was looked at: positions are the clock's own time. So a test knows of each reading
when the servos sampled it, whatever the driver believes.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from aloha_runtime.dynamixel.packets import Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import POSITION, STRIDE, GoalWrite
from aloha_runtime.hardware.late_answers import LateAnswers
from aloha_runtime.robot import RAD_PER_TICK, Role
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.servo import PlantState

IDS, SHADOWS = (1, 2, 4, 6, 7, 8, 9), (3, 5)
EVERYBODY = (1, 2, 3, 4, 5, 6, 7, 8, 9)
PERIOD_NS = 5_000_000
DEADLINE_NS = 4_000_000
MS = 1_000_000


class Clock:
    """Stands in for the `time` module: a look costs a microsecond, a sleep its length."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def monotonic_ns(self) -> int:
        self.now_ns += 1000
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class Timekeeper:
    """A plant whose first joint stands at one tick per 10 us since the start: `sampled_ns` reads that back."""

    TICK_NS = 10_000

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns

    def read(self, now_ns: int) -> PlantState:
        angle = (now_ns - self.start_ns) / self.TICK_NS * RAD_PER_TICK
        return PlantState([angle, *[0.0] * 6], [0.0] * 7, [0.0] * 7)

    def command(self, *_: object) -> None: ...

    def sampled_ns(self, tick: int) -> int:
        return self.start_ns + (tick - 2048) * self.TICK_NS


class ChainPort:
    """A serial port with an emulated chain behind it. `delay_ns`: how late each reply comes; replies keep their order
    unless `overtaking`. `asked`: what was sent. `age_ns` is never told to the driver."""

    byte_ns = 10_000

    def __init__(self, clock: Clock, role: Role = "follower", overtaking: bool = False) -> None:
        self.plant = Timekeeper(clock.now_ns)
        self.chain = Chain(role, self.plant)  # type: ignore[arg-type]
        self.late = LateAnswers()
        self.asked: list[Packet] = []
        self.delay_ns: Callable[[], int] = lambda: 0
        self._clock = clock
        self._overtaking = overtaking
        self._coming: list[tuple[int, bytes]] = []

    def write(self, data: bytes) -> None:
        self.asked += Parser().feed(data)
        for ready_ns, reply in self.chain.receive(data, self._clock.now_ns):
            arrives_ns = ready_ns + self.delay_ns()
            if self._coming and not self._overtaking:
                arrives_ns = max(arrives_ns, self._coming[-1][0])
            self._coming.append((arrives_ns, reply))

    def _arrived(self) -> list[tuple[int, bytes]]:
        self.chain.advance(self._clock.now_ns)
        return sorted(item for item in self._coming if item[0] <= self._clock.now_ns)

    def pending(self) -> int:
        return sum(len(data) for _, data in self._arrived())

    def read(self) -> bytes:
        arrived = self._arrived()
        self._coming = [item for item in self._coming if item not in arrived]
        return b"".join(data for _, data in arrived)

    def flush(self) -> None:
        self.read()

    def wait_for_reply(self, deadline_ns: int) -> None:
        first_ns = min((at for at, _ in self._coming), default=deadline_ns)
        self._clock.now_ns = max(self._clock.now_ns, min(first_ns, deadline_ns))


class Arms:
    """Arms in one loop at 200 Hz, as `ArmPair` asks and collects them. `each` sees every whole reading."""

    def __init__(self, clock: Clock, ports: Sequence[ChainPort], fast: bool = True) -> None:
        self.clock, self.ports = clock, ports
        self.counts = [Counter[str]() for _ in ports]
        self.cycles = [BusCycle(IDS, SHADOWS, counts) for counts in self.counts]
        self.stamps_ns = [0 for _ in ports]
        for cycle, port in zip(self.cycles, ports, strict=True):
            cycle.attach(port, fast)  # type: ignore[arg-type]
        self.turn_ns = clock.now_ns
        self._goals = GoalWrite(IDS).packet([2048] * 7)

    def turn(self) -> list[tuple[int, int] | None]:
        """One period: (stamp, when it was sampled) of each arm's reading, None where there was none."""
        self.turn_ns = max(self.turn_ns + PERIOD_NS, self.clock.now_ns)
        self.clock.now_ns = self.turn_ns
        for index, cycle in enumerate(self.cycles):
            now_ns = self.clock.now_ns
            if cycle.request(self._goals):
                self.stamps_ns[index] = now_ns
        found: list[tuple[int, int] | None] = [None for _ in self.cycles]
        for index, cycle in reversed(list(enumerate(self.cycles))):
            state = cycle.collect(self.turn_ns + DEADLINE_NS)
            if state is not None:
                tick = state[POSITION::STRIDE][0]
                found[index] = self.stamps_ns[index], self.ports[index].plant.sampled_ns(tick)
        return found

    def turns(self, ms: float) -> list[list[tuple[int, int] | None]]:
        end_ns = self.clock.now_ns + int(ms * MS)
        found = []
        while self.clock.now_ns < end_ns:
            found.append(self.turn())
        return found


def silence(port: ChainPort, *servos: int, **more: object) -> None:
    """These servos die."""
    port.chain.set_faults(Faults(silent=list(servos), **more))  # type: ignore[arg-type]
