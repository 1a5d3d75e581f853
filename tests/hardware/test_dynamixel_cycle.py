"""The exchange with one chain, on a scripted port and a made-up clock: what is asked when, which answers count."""

from collections import Counter, deque
from itertools import pairwise

import pytest

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.packets import Instruction
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware import dynamixel_cycle, dynamixel_exchange
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import POSITION, STRIDE, GoalWrite
from aloha_runtime.hardware.late_answers import LATE_NS, LateAnswers

IDS, SHADOWS = (1, 2, 4, 6, 7, 8, 9), (3, 5)
PERIOD_NS = 5_000_000
DEADLINE_NS = 4_500_000
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


class ScriptedPort:
    """A port whose bytes the test lays down. `sent`: packets written since the last look."""

    byte_ns = 10_000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.arriving: deque[bytes] = deque()
        self.sent: list[packets.Packet] = []
        self.late = LateAnswers()

    def pending(self) -> int:
        return sum(map(len, self.arriving))

    def read(self) -> bytes:
        return self.arriving.popleft() if self.arriving else b""

    def write(self, data: bytes) -> None:
        self.sent += Parser().feed(data)

    def wait_for_reply(self, deadline_ns: int) -> None:
        if not self.arriving:
            self._clock.now_ns = max(self._clock.now_ns, deadline_ns)

    def questions(self) -> list[packets.Packet]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(dynamixel_cycle, "time", clock)
    monkeypatch.setattr(dynamixel_exchange, "time", clock)
    return clock


@pytest.fixture
def port(clock: Clock) -> ScriptedPort:
    return ScriptedPort(clock)


class Bench:
    """A cycle at 200 Hz on its clock."""

    def __init__(self, clock: Clock, port: ScriptedPort, counts: Counter[str], fast: bool = True) -> None:
        self.clock, self.port, self.counts = clock, port, counts
        self.cycle = BusCycle(IDS, SHADOWS, counts)
        self.cycle.attach(port, fast)  # type: ignore[arg-type]
        self.cycle._full_at_ns = 2**62  # no full reads and no health reads unless a test wants them
        self.cycle.health._next_ns = 2**62
        self.cycle.health._fresh.clear()
        self._started_ns = clock.now_ns

    def ask(self, goal: list[int] | None = None) -> list[packets.Packet]:
        """What is sent at the start of the next period."""
        self._started_ns = max(self._started_ns + PERIOD_NS, self.clock.now_ns)
        self.clock.now_ns = self._started_ns
        self.cycle.request(b"" if goal is None else GoalWrite(IDS).packet(goal))
        return self.port.questions()

    def collect(self) -> tuple[int, ...] | None:
        return self.cycle.collect(self._started_ns + DEADLINE_NS)

    def give_up(self) -> None:
        """Periods without an answer until the question is given up."""
        assert self.collect() is None
        while self._started_ns + PERIOD_NS - self.cycle._asked_ns < dynamixel_cycle.GIVE_UP_NS:
            assert self.ask() == []
            assert self.collect() is None


@pytest.fixture
def bench(clock: Clock, port: ScriptedPort, counts: Counter[str]) -> Bench:
    return Bench(clock, port, counts)


def fast(question: packets.Packet, tick: int = 2048, ids: tuple[int, ...] | None = None) -> bytes:
    """The joint reply to a question, cut short behind `ids`."""
    size = question.params[2]
    data = bytes(size - 4) + tick.to_bytes(4, "little")
    asked = tuple(question.params[4:])
    announced = len(asked) * (size + 4) - 2
    return packets.fast_status_packet([(i, 0, data) for i in ids or asked], announced)


def singles(question: packets.Packet, without: tuple[int, ...] = ()) -> bytes:
    """One status packet per servo asked."""
    data = bytes(question.params[2] - 4) + (2048).to_bytes(4, "little")
    return b"".join(packets.status_packet(i, 0, data) for i in question.params[4:] if i not in without)


def test_goals_go_first_and_the_question_follows(bench: Bench, port: ScriptedPort) -> None:
    write, read = bench.ask([2048] * 7)
    assert (write.instruction, read.instruction) == (Instruction.SYNC_WRITE, Instruction.FAST_SYNC_READ)
    assert tuple(read.params[4:]) == IDS
    port.arriving.append(fast(read, 2100))
    state = bench.collect()
    assert state is not None
    assert state[POSITION::STRIDE] == (2100,) * 7


def test_shadows_are_read_now_and_then(bench: Bench, port: ScriptedPort) -> None:
    bench.cycle._full_at_ns = 0
    asked = []
    for _ in range(20):
        (read,) = bench.ask()
        asked.append(len(read.params) - 4)
        port.arriving.append(fast(read))
        assert len(bench.collect()) == asked[-1] * STRIDE
    assert set(asked) == {7, 9}
    gaps = [index for index, size in enumerate(asked) if size == 9]
    assert max(b - a for a, b in pairwise(gaps)) * PERIOD_NS <= 30 * MS


def test_an_answer_in_pieces_and_behind_noise(bench: Bench, port: ScriptedPort) -> None:
    (read,) = bench.ask()
    reply = fast(read)
    port.arriving.extend([b"\x00\xff\xff", reply[:30], reply[30:64], reply[64:]])
    assert bench.collect() is not None


def test_a_question_stays_open_while_its_answer_is_late(bench: Bench, port: ScriptedPort) -> None:
    (read,) = bench.ask()
    assert bench.collect() is None
    assert bench.counts["incomplete"] == 1
    assert [packet.instruction for packet in bench.ask([2048] * 7)] == [Instruction.SYNC_WRITE]
    port.arriving.append(fast(read))
    assert bench.collect() is not None
    assert len(bench.ask()) == 1
    assert bench.counts["late"] == 0


def test_after_giving_up_the_late_answer_is_told_from_the_new_one(bench: Bench, port: ScriptedPort) -> None:
    (first,) = bench.ask()
    bench.give_up()
    (second,) = bench.ask()
    assert first.params[2] != second.params[2]  # another size is asked for
    port.arriving.extend([fast(first, 1000), fast(second, 3000)])
    state = bench.collect()
    assert state is not None
    assert state[POSITION::STRIDE] == (3000,) * 7
    assert bench.counts["late"] == 1


def test_later_the_short_block_is_asked_for_again(bench: Bench, port: ScriptedPort) -> None:
    bench.ask()
    bench.give_up()
    sizes = []
    waits = LATE_NS // PERIOD_NS
    for _ in range(2 * waits):
        (read,) = bench.ask()
        sizes.append(read.params[2])
        port.arriving.append(fast(read))
        assert bench.collect() is not None
    assert sizes[: waits - 1] == [12] * (waits - 1)
    assert sizes[waits + 2 :] == [10] * (waits - 2)


def test_no_size_is_asked_for_twice_while_an_answer_of_that_size_may_come(bench: Bench, port: ScriptedPort) -> None:
    """Every question fails at once. When all sizes are used up nothing is asked, and goals go out all the same."""
    asked: dict[int, int] = {}
    sent = 0
    for _ in range(200):
        packets_sent = bench.ask([2048] * 7)
        sent += packets_sent[0].instruction == Instruction.SYNC_WRITE
        for question in packets_sent[1:]:
            size = question.params[2]
            assert bench.clock.now_ns - asked.get(size, 0) >= LATE_NS
            asked[size] = bench.clock.now_ns
        bench.cycle._open = False
        bench.cycle._fail()
    assert sent == 200
    assert len(asked) >= 14


def test_a_duplicate_is_counted_and_dropped(bench: Bench, port: ScriptedPort) -> None:
    (read,) = bench.ask()
    port.arriving.append(fast(read))
    assert bench.collect() is not None
    port.arriving.append(fast(read, 1000))
    (read,) = bench.ask()
    assert bench.counts["duplicate"] == 1
    port.arriving.append(fast(read, 3000))
    assert bench.collect()[POSITION] == 3000


def test_foreign_packets_are_counted_and_dropped(bench: Bench, port: ScriptedPort) -> None:
    (read,) = bench.ask()
    port.arriving.extend([packets.status_packet(77, 0, bytes(10)), fast(read)])
    assert bench.collect() is not None
    assert bench.counts["foreign"] == 1


def test_a_damaged_answer_is_not_waited_for(bench: Bench, port: ScriptedPort) -> None:
    (read,) = bench.ask()
    damaged = bytearray(fast(read))
    damaged[20] ^= 1
    port.arriving.append(bytes(damaged))
    assert bench.collect() is None
    assert bench.counts["corrupt"] == 1
    assert len(bench.ask()) == 1


def test_an_arm_without_power_is_all_silent(bench: Bench) -> None:
    for _ in range(40):
        bench.ask()
        assert bench.collect() is None
    assert set(bench.cycle.silent(bench.clock.now_ns)) == {*IDS, *SHADOWS}


def test_a_chain_that_says_nothing_is_not_flooded_with_questions(
    clock: Clock, port: ScriptedPort, counts: Counter[str]
) -> None:
    bench = Bench(clock, port, counts, fast=False)
    sent = 0
    for _ in range(100):
        sent += len(bench.ask())
        assert bench.collect() is None
        sent += len(port.questions())
    assert sent <= 3 * 100  # each takes 0.5 ms with its answer


def test_one_lost_answer_of_many_is_asked_for_again_in_the_same_cycle(
    clock: Clock, port: ScriptedPort, counts: Counter[str]
) -> None:
    bench = Bench(clock, port, counts, fast=False)
    (read,) = bench.ask()
    port.arriving.append(singles(read, without=(7,)))
    answer = packets.status_packet(7, 0, bytes(read.params[2]))
    write = port.write

    def answering(data: bytes) -> None:
        write(data)
        port.arriving.append(answer)

    port.write = answering  # type: ignore[method-assign]
    assert bench.collect() is not None
    assert [packet.id for packet in port.questions()] == [7]


def test_old_firmware_is_never_asked_for_a_fast_read(clock: Clock, port: ScriptedPort, counts: Counter[str]) -> None:
    bench = Bench(clock, port, counts, fast=False)
    for _ in range(3):
        (read,) = bench.ask()
        assert read.instruction == Instruction.SYNC_READ
        port.arriving.append(singles(read))
        assert bench.collect() is not None


def test_a_fast_read_that_keeps_failing_is_left_alone_for_a_while(bench: Bench, port: ScriptedPort) -> None:
    kinds = []
    while not bench.counts["fast_read_paused"]:
        for read in bench.ask():
            kinds.append(read.instruction)
            if read.instruction == Instruction.SYNC_READ:
                port.arriving.append(singles(read))
        bench.collect()
        assert len(kinds) < 50
    assert kinds.count(Instruction.SYNC_READ) == dynamixel_cycle.FAST_DOUBTS
    (read,) = bench.ask()
    assert read.instruction == Instruction.SYNC_READ
    bench.clock.now_ns += dynamixel_cycle.FAST_PAUSE_NS
    port.arriving.append(singles(read))
    assert bench.collect() is not None
    (read,) = bench.ask()
    assert read.instruction == Instruction.FAST_SYNC_READ


def test_health_is_asked_for_when_the_bus_is_idle_and_taken_in_later(bench: Bench, port: ScriptedPort) -> None:
    bench.cycle.health._next_ns = 0
    (read,) = bench.ask()
    port.arriving.append(fast(read))
    assert bench.collect() is not None
    (question,) = port.questions()
    assert (question.instruction, question.params[0], question.params[2]) == (Instruction.READ, 64, 83)
    table = bytearray(83)
    table[0], table[6], table[34], table[80], table[82] = 1, 0x20, 255, 120, 41
    port.arriving.append(packets.status_packet(question.id, 0x80, bytes(table)))
    bench.ask()
    heard = bench.cycle.health.heard[question.id]
    assert heard[1:] == (1, 0x20, -1, 120, 41)


def test_the_bus_is_left_alone_while_it_carries_a_health_reply(bench: Bench, port: ScriptedPort, clock: Clock) -> None:
    bench.cycle.health._next_ns = 0
    (read,) = bench.ask()
    port.arriving.append(fast(read))
    assert bench.collect() is not None
    done = clock.now_ns
    bench.cycle.request(b"")  # at once, not at the next period
    assert clock.now_ns - done >= (14 + 94) * port.byte_ns * 0.9
