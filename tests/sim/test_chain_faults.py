"""Faults on the way back from the servos: frequency, reproducibility, and what each does to a reply."""

import pytest
from chain_tools import MS, Bench

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.sim.faults import Faults, Line, Reply
from aloha_runtime.sim.firmware import BOOT_NS

REPLY = Reply(1000, packets.status_packet(3, 0, bytes(10)))


def many(faults: Faults, count: int = 2000) -> tuple[Line, list[list[Reply]]]:
    line = Line(faults)
    return line, [line.carry(REPLY) for _ in range(count)]


def test_a_perfect_line_changes_nothing() -> None:
    assert Line().carry(REPLY) == [REPLY]


@pytest.mark.parametrize("kind", ["drop", "corrupt", "late", "duplicate", "foreign"])
def test_each_fault_comes_as_often_as_asked(kind: str) -> None:
    line, _ = many(Faults(**{kind: 0.1}))  # type: ignore[arg-type]
    assert 150 < line.counts[kind] < 250
    assert sum(line.counts.values()) == line.counts[kind]


def test_the_same_seed_gives_the_same_faults() -> None:
    mixed = Faults(drop=0.2, corrupt=0.2, late=0.2, duplicate=0.2, foreign=0.2, seed=5)
    assert many(mixed)[1] == many(mixed)[1]
    assert many(mixed)[1] != many(Faults(drop=0.2, corrupt=0.2, late=0.2, duplicate=0.2, foreign=0.2, seed=6))[1]


def test_what_each_does() -> None:
    assert Line(Faults(drop=1)).carry(REPLY) == []
    assert Line(Faults(late=1, late_ns=500)).carry(REPLY) == [Reply(1500, REPLY.data)]
    assert Line(Faults(duplicate=1)).carry(REPLY) == [REPLY, REPLY]
    stranger, own = Line(Faults(foreign=1)).carry(REPLY)
    assert own == REPLY
    (packet,) = Parser().feed(stranger.data)
    assert packet.id > 9
    _, damaged = many(Faults(corrupt=1))
    assert all(len(data) == len(REPLY.data) and data != REPLY.data for ((_, data),) in damaged)
    assert not any(Parser().feed(data) for ((_, data),) in damaged)


def test_a_chain_carries_its_replies_over_the_faulty_line() -> None:
    bench = Bench()
    bench.chain.set_faults(Faults(drop=1))
    assert bench.talk(packets.ping(1)) == []
    assert bench.chain.line.counts["drop"] == 1
    bench.chain.set_faults(Faults())
    assert len(bench.talk(packets.ping(1))) == 1


def test_servos_without_power_hear_nothing_hold_nothing_and_come_back_as_new() -> None:
    bench = Bench()
    bench.torque(1, 9)
    bench.write(1, reg.BUS_WATCHDOG, 5)
    bench.write(1, reg.POSITION_P_GAIN, 300)
    bench.chain.cut_power(bench.now_ns)
    assert bench.talk(packets.ping(1)) == []
    assert not any(servo.torque for servo in bench.chain.servos)
    bench.pass_ms(1000)
    assert bench.talk(packets.ping(1)) == []
    bench.chain.return_power(bench.now_ns)
    bench.pass_ms(BOOT_NS / MS - 2)
    assert bench.talk(packets.ping(1)) == []  # it boots
    bench.pass_ms(3)
    assert len(bench.talk(packets.ping(1))) == 1
    assert bench.read(1, reg.BUS_WATCHDOG) == 0
    assert bench.read(1, reg.TORQUE_ENABLE) == 0
    assert bench.read(1, reg.POSITION_P_GAIN) == 800
    assert bench.read(9, reg.ID) == 9


def test_an_arm_that_loses_its_power_falls() -> None:
    bench = Bench("leader")
    bench.plant.falls = True
    bench.torque(*range(1, 10))
    bench.pass_ms(300)
    before = bench.angle(1)
    bench.pass_ms(300)
    assert bench.angle(1) == pytest.approx(before, abs=0.002)
    bench.chain.cut_power(bench.now_ns)
    bench.pass_ms(500)
    assert abs(bench.angle(1) - before) > 0.1
