"""The driver's periodic cycle on emulated chains in virtual time, with replies as late as one likes.

Where the first joint stands says when it was looked at. So of each reading it is known when the servo sampled it,
whatever the driver believes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from aloha_runtime.commands.faults.virtual_parts import Time, Wire, WirePort
from aloha_runtime.dynamixel.packets import Packet
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware import dynamixel_cycle, dynamixel_exchange
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import POSITION, STRIDE, GoalWrite
from aloha_runtime.messages import MS
from aloha_runtime.robot import RAD_PER_TICK, Role
from aloha_runtime.sim.faults import Faults, Line, Reply
from aloha_runtime.sim.servo import PlantState

MASTERS, SHADOWS = (1, 2, 4, 6, 7, 8, 9), (3, 5)
EVERYBODY = (1, 2, 3, 4, 5, 6, 7, 8, 9)
PERIOD_NS = 5 * MS
DEADLINE_NS = 4 * MS
"""Of the period, for both arms: `processes.arms.REPLY_SHARE`."""
TICK_NS = 10_000
"""The first joint moves by one tick in this time, on and on."""
CENTRE_TICK = 2048
_NO_MONITOR = SimpleNamespace(host=lambda data, now_ns: None, servo=lambda data, now_ns: None)


class Reading(NamedTuple):
    """One whole reading: what the driver says, and when the servo was looked at."""

    stamp_ns: int
    sampled_ns: int


class Timekeeper:
    """A plant whose first joint stands at one tick per `TICK_NS` since the start."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns

    def read(self, now_ns: int) -> PlantState:
        angle = (now_ns - self._start_ns) / TICK_NS * RAD_PER_TICK
        return PlantState([angle, *[0.0] * 6], [0.0] * 7, [0.0] * 7)

    def command(self, *_: object) -> None:
        """Nothing moves this joint but time."""

    def sampled_ns(self, tick: int) -> int:
        """When it stood there."""
        return self._start_ns + (tick - CENTRE_TICK) * TICK_NS


class LateLine(Line):
    """The way back from the servos. Every reply is `delay_ns()` late; it keeps its place unless `overtaking`."""

    def __init__(self, overtaking: bool) -> None:
        super().__init__()
        self.delay_ns: Callable[[], int] = lambda: 0
        self._overtaking, self._last_ns = overtaking, 0

    def carry(self, reply: Reply) -> list[Reply]:
        arriving = []
        for ready_ns, data in super().carry(reply):
            late_ns = ready_ns + self.delay_ns()
            arriving.append(Reply(late_ns if self._overtaking else max(late_ns, self._last_ns), data))
            self._last_ns = max(late_ns, self._last_ns)
        return arriving


class Bus(WirePort):
    """The port of one arm. `asked`: the packets that were sent."""

    def __init__(self, time: Time, role: Role = "follower", overtaking: bool = False) -> None:
        self.plant = Timekeeper(time.now)
        plant: Any = self.plant
        wire = Wire(time, role, role, plant, _NO_MONITOR)  # type: ignore[arg-type]
        super().__init__(wire, 1_000_000)
        self.chain, self.line = wire.chain, LateLine(overtaking)
        self.chain.line = self.line
        self.asked: list[Packet] = []

    def write(self, data: bytes) -> None:
        self.asked += Parser().feed(data)
        super().write(data)

    def kill(self, *servos: int, **more: Any) -> None:
        """These servos die, the others live; `more`: further faults."""
        self.chain.set_faults(Faults(silent=list(servos), **more))


class Arms:
    """Arms in one loop at 200 Hz, asked and collected as `ArmPair` does it."""

    def __init__(self, time: Time, buses: Sequence[Bus], fast: bool = True) -> None:
        """`fast`: the firmware knows Fast Sync Read."""
        self.time, self.buses = time, buses
        self.cycles = [BusCycle(MASTERS, SHADOWS, Counter()) for _ in buses]
        for cycle, bus in zip(self.cycles, buses, strict=True):
            cycle.attach(bus, fast)  # type: ignore[arg-type]
        self.turn_ns = time.now
        self._stamps_ns = [0 for _ in buses]
        self._goals = GoalWrite(MASTERS).packet([CENTRE_TICK] * len(MASTERS))

    def turn(self) -> list[Reading | None]:
        """One period; None where an arm gave no whole reading."""
        self.turn_ns = max(self.turn_ns + PERIOD_NS, self.time.now)
        self.time.now = self.turn_ns
        for index, cycle in enumerate(self.cycles):
            now_ns = self.time.now
            if cycle.request(self._goals):
                self._stamps_ns[index] = now_ns
        found: list[Reading | None] = [None for _ in self.cycles]
        for index, cycle in reversed(list(enumerate(self.cycles))):
            state = cycle.collect(self.turn_ns + DEADLINE_NS)
            if state is not None:
                sampled_ns = self.buses[index].plant.sampled_ns(state[POSITION::STRIDE][0])
                found[index] = Reading(self._stamps_ns[index], sampled_ns)
        return found

    def turns(self, count: int) -> list[Reading]:
        """Whole readings of all arms in so many periods."""
        return [reading for _ in range(count) for reading in self.turn() if reading is not None]


@contextmanager
def virtual_time() -> Iterator[Time]:
    """The time of the driver's cycle."""
    time = Time()
    with ExitStack() as held:
        for module in (dynamixel_cycle, dynamixel_exchange):
            held.enter_context(mock.patch.object(module, "time", time))
        yield time
