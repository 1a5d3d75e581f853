"""The exchange with one chain, on a scripted port: what is asked after what, and which answers count. No real time
passes: the port says when bytes are there, and deadlines lie in the past or far ahead."""

import time
from collections import Counter, deque

import pytest

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.packets import Instruction
from aloha_runtime.hardware import dynamixel_cycle
from aloha_runtime.hardware.dynamixel_cycle import BusCycle
from aloha_runtime.hardware.dynamixel_frames import POSITION, STRIDE

IDS, SHADOWS = (1, 2, 4, 6, 7, 8, 9), (3, 5)
AHEAD_NS = 60_000_000
"""Patience of a collect whose answer is there; it returns at once."""


class ScriptedPort:
    """A port whose bytes the test lays down. `sent`: packets written since the last look."""

    byte_ns = 100  # a fast wire, so that no answer is due in the future
    baud = 100_000_000

    def __init__(self) -> None:
        self.arriving: deque[bytes] = deque()
        self.sent: list[packets.Packet] = []

    def pending(self) -> int:
        return sum(map(len, self.arriving))

    def read(self) -> bytes:
        return self.arriving.popleft() if self.arriving else b""

    def write(self, data: bytes) -> None:
        self.sent += packets.Parser().feed(data)

    def wait_for_reply(self, deadline_ns: int) -> None:
        return None

    def questions(self) -> list[packets.Packet]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def port() -> ScriptedPort:
    return ScriptedPort()


@pytest.fixture
def cycle(port: ScriptedPort, counts: Counter[str], monkeypatch: pytest.MonkeyPatch) -> BusCycle:
    monkeypatch.setattr(dynamixel_cycle, "FULL_READ_NS", 10**15)
    cycle = BusCycle(IDS, SHADOWS, counts)
    cycle.attach(port, fast=True)  # type: ignore[arg-type]
    cycle._full_at_ns = 2**62  # no full reads unless a test wants them
    cycle.health._next_ns = 2**62
    return cycle


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


def past() -> int:
    return time.monotonic_ns() - 1


def ahead() -> int:
    return time.monotonic_ns() + AHEAD_NS


def ask(cycle: BusCycle, port: ScriptedPort, goal: list[int] | None = None) -> list[packets.Packet]:
    cycle.request(goal)
    return port.questions()


def give_up(cycle: BusCycle) -> None:
    """Let so much time pass that the open question is given up."""
    cycle._asked_ns -= dynamixel_cycle.GIVE_UP_NS


def test_goals_go_first_and_the_question_follows(cycle: BusCycle, port: ScriptedPort) -> None:
    write, read = ask(cycle, port, [2048] * 7)
    assert (write.instruction, read.instruction) == (Instruction.SYNC_WRITE, Instruction.FAST_SYNC_READ)
    assert tuple(read.params[4:]) == IDS
    port.arriving.append(fast(read, 2100))
    state = cycle.collect(ahead())
    assert state is not None
    assert state[POSITION::STRIDE] == (2100,) * 7


def test_shadows_are_read_now_and_then(cycle: BusCycle, port: ScriptedPort) -> None:
    cycle._full_at_ns = 0
    (read,) = ask(cycle, port)
    assert tuple(read.params[4:]) == IDS + SHADOWS
    port.arriving.append(fast(read))
    assert len(cycle.collect(ahead())) == 9 * STRIDE
    (read,) = ask(cycle, port)
    assert tuple(read.params[4:]) == IDS


def test_an_answer_in_pieces_and_behind_noise(cycle: BusCycle, port: ScriptedPort) -> None:
    (read,) = ask(cycle, port)
    reply = fast(read)
    port.arriving.extend([b"\x00\xff\xff", reply[:30], reply[30:64], reply[64:]])
    assert cycle.collect(ahead()) is not None


def test_a_question_stays_open_while_its_answer_is_late(
    cycle: BusCycle, port: ScriptedPort, counts: Counter[str]
) -> None:
    (read,) = ask(cycle, port)
    assert cycle.collect(past()) is None
    assert counts["incomplete"] == 1
    assert [packet.instruction for packet in ask(cycle, port, [2048] * 7)] == [Instruction.SYNC_WRITE]
    port.arriving.append(fast(read))
    assert cycle.collect(ahead()) is not None
    assert cycle.request(None) is True
    assert counts["late"] == 0


def test_after_giving_up_the_late_answer_is_told_from_the_new_one(
    cycle: BusCycle, port: ScriptedPort, counts: Counter[str]
) -> None:
    (first,) = ask(cycle, port)
    assert cycle.collect(past()) is None
    give_up(cycle)
    (second,) = ask(cycle, port)
    assert first.params[2] != second.params[2]  # another size is asked for
    port.arriving.extend([fast(first, 1000), fast(second, 3000)])
    state = cycle.collect(ahead())
    assert state is not None
    assert state[POSITION::STRIDE] == (3000,) * 7
    assert counts["late"] == 1


def test_a_duplicate_is_counted_and_dropped(cycle: BusCycle, port: ScriptedPort, counts: Counter[str]) -> None:
    (read,) = ask(cycle, port)
    port.arriving.append(fast(read))
    assert cycle.collect(ahead()) is not None
    port.arriving.append(fast(read, 1000))
    (read,) = ask(cycle, port)
    assert counts["duplicate"] == 1
    port.arriving.append(fast(read, 3000))
    assert cycle.collect(ahead())[POSITION] == 3000


def test_foreign_packets_are_counted_and_dropped(cycle: BusCycle, port: ScriptedPort, counts: Counter[str]) -> None:
    (read,) = ask(cycle, port)
    port.arriving.extend([packets.status_packet(77, 0, bytes(10)), fast(read)])
    assert cycle.collect(ahead()) is not None
    assert counts["foreign"] == 1


def test_a_silent_servo_is_found_by_asking_one_by_one(
    cycle: BusCycle, port: ScriptedPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamixel_cycle, "QUIET_NS", -1)
    for _ in range(2):  # a Fast Sync Read that ends at the gap, twice
        (read,) = ask(cycle, port)
        assert read.instruction == Instruction.FAST_SYNC_READ
        port.arriving.append(fast(read, ids=(1, 2)))
        assert cycle.collect(past()) is None
    (read,) = ask(cycle, port)
    assert read.instruction == Instruction.SYNC_READ
    port.arriving.append(singles(read, without=(4,)))
    assert cycle.collect(time.monotonic_ns() + 4_000_000) is None
    assert {packet.id for packet in port.questions()} == {4}
    later = time.monotonic_ns() + dynamixel_cycle.SILENT_NS
    cycle._heard_ns[4] -= dynamixel_cycle.SILENT_NS
    cycle._heard_all_ns -= dynamixel_cycle.SILENT_NS
    assert set(cycle.silent(later - dynamixel_cycle.SILENT_NS // 2)) == {4}


def test_a_chain_that_says_nothing_is_not_flooded_with_questions(cycle: BusCycle, port: ScriptedPort) -> None:
    cycle._fast_supported = False
    ask(cycle, port)
    assert cycle.collect(time.monotonic_ns() + 6_000_000) is None
    assert len(port.questions()) == 1


def test_old_firmware_is_never_asked_for_a_fast_read(port: ScriptedPort, counts: Counter[str]) -> None:
    cycle = BusCycle(IDS, SHADOWS, counts)
    cycle.attach(port, fast=False)  # type: ignore[arg-type]
    for _ in range(3):
        (read,) = [p for p in ask(cycle, port) if p.instruction != Instruction.READ]
        assert read.instruction == Instruction.SYNC_READ
        port.arriving.append(singles(read))
        assert cycle.collect(ahead()) is not None


def test_a_fast_read_that_keeps_failing_is_left_alone_for_a_while(
    cycle: BusCycle, port: ScriptedPort, counts: Counter[str]
) -> None:
    for _ in range(dynamixel_cycle.FAST_DOUBTS):
        for _ in range(2):
            ask(cycle, port)
            assert cycle.collect(past()) is None
            give_up(cycle)
        (read,) = ask(cycle, port)
        assert read.instruction == Instruction.SYNC_READ
        port.arriving.append(singles(read))
        assert cycle.collect(ahead()) is not None
    assert counts["fast_read_paused"] == 1
    (read,) = ask(cycle, port)
    assert read.instruction == Instruction.SYNC_READ


def test_health_is_asked_for_when_the_bus_is_idle_and_taken_in_later(cycle: BusCycle, port: ScriptedPort) -> None:
    cycle.health._next_ns = 0
    (read,) = ask(cycle, port)
    port.arriving.append(fast(read))
    assert cycle.collect(ahead()) is not None
    (question,) = port.questions()
    assert (question.instruction, question.params[0], question.params[2]) == (Instruction.READ, 64, 83)
    table = bytearray(83)
    table[0], table[6], table[34], table[80], table[82] = 1, 0x20, 255, 120, 41
    port.arriving.append(packets.status_packet(question.id, 0x80, bytes(table)))
    ask(cycle, port)
    heard = cycle.health.heard[question.id]
    assert heard[1:] == (1, 0x20, -1, 120, 41)


def test_every_servo_has_its_turn_of_the_health_round(cycle: BusCycle) -> None:
    asked = [packets.Parser().feed(cycle.health.due(2**62 + n * 10**9))[0].id for n in range(9)]
    assert sorted(asked) == list(range(1, 10))
    cycle.health.hurry(5)
    assert packets.Parser().feed(cycle.health.due(2**62 + 8 * 10**9 + 10_000_000))[0].id == 5
    assert cycle.health.due(2**62 + 8 * 10**9 + 20_000_000) is None
