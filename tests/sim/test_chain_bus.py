"""The bus of an emulated chain: instructions, groups, shadows, return levels, baud rates, reboot, wire time, noise."""

import pytest
from chain_tools import MS, Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import Instruction, StatusError, split_fast
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.sim.faults import Faults

IDS = range(1, 10)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_ping_tells_model_and_firmware(bench: Bench) -> None:
    (packet,) = bench.talk(packets.ping(8))
    assert (packet.id, packet.error, packet.data) == (8, 0, (1020).to_bytes(2, "little") + b"\x2e")
    assert [packet.id for packet in bench.talk(packets.ping())] == list(IDS)
    assert bench.talk(packets.ping(77)) == []


def test_sync_and_bulk_and_fast_reads_agree(bench: Bench) -> None:
    single = [bench.talk(packets.read(servo, 126, 10))[0].data for servo in IDS]
    together = bench.talk(packets.sync_read(IDS, 126, 10))
    assert [packet.id for packet in together] == list(IDS)
    assert [packet.data for packet in together] == single
    bulk = bench.talk(packets.bulk_read([(servo, 126, 10) for servo in IDS]))
    assert [packet.data for packet in bulk] == single
    (fast,) = bench.talk(packets.sync_read(IDS, 126, 10, fast=True))
    assert [(part.id, part.data) for part in split_fast(fast.params, [10] * 9)] == list(zip(IDS, single, strict=True))
    (fast,) = bench.talk(packets.bulk_read([(servo, 126, 10) for servo in IDS], fast=True))
    assert [part.data for part in split_fast(fast.params, [10] * 9)] == single


def test_fast_reads_of_other_blocks_and_orders(bench: Bench) -> None:
    ids = [7, 1, 4]
    (fast,) = bench.talk(packets.sync_read(ids, 126, 10, fast=True))
    assert [part.id for part in split_fast(fast.params, [10] * 3)] == ids
    (fast,) = bench.talk(packets.sync_read(ids, 132, 4, fast=True))
    position = [int.from_bytes(part.data, "little") for part in split_fast(fast.params, [4] * 3)]
    assert position == [bench.read(servo, reg.PRESENT_POSITION) for servo in ids]


@pytest.mark.parametrize("behind", ["silent", "wait"])
def test_behind_a_missing_servo_the_others_are_silent_or_wait(bench: Bench, behind: str) -> None:
    bench.chain.set_faults(Faults(silent=[4, 6], behind_missing=behind))  # type: ignore[arg-type]
    bulk = [(servo, 132, 4) for servo in IDS]
    for question in (packets.sync_read(IDS, 132, 4), packets.bulk_read(bulk)):
        asked_ns = bench.now_ns
        heard = [packet.id for packet in bench.talk(question)]
        assert heard == ([1, 2, 3] if behind == "silent" else [1, 2, 3, 5, 7, 8, 9])
        waited_ns = 2 * Faults().missing_wait_ns if behind == "wait" else 0
        assert waited_ns <= bench.now_ns - asked_ns < waited_ns + 2 * MS


@pytest.mark.parametrize("behind", ["silent", "wait"])
def test_a_silent_servo_cuts_a_fast_reply(bench: Bench, behind: str) -> None:
    bench.chain.set_faults(Faults(silent=[4], behind_missing=behind))  # type: ignore[arg-type]
    (reply,) = bench.chain.receive(packets.sync_read(IDS, 132, 4, fast=True), bench.now_ns)
    assert len(reply.data) == 8 + 3 * 8
    assert Parser().feed(reply.data) == []
    assert bench.talk(packets.ping(4)) == []


def test_old_firmware_knows_no_fast_reads() -> None:
    bench = Bench(version=44)
    assert bench.talk(packets.sync_read(IDS, 126, 10, fast=True)) == []
    assert len(bench.talk(packets.sync_read(IDS, 126, 10))) == 9


def test_registered_writes_wait_for_action(bench: Bench) -> None:
    (packet,) = bench.talk(packets.action(1))
    assert packet.error == StatusError.INSTRUCTION
    for servo in (1, 6):
        (packet,) = bench.talk(packets.reg_write(servo, 116, (2200).to_bytes(4, "little")))
        assert packet.error == 0
        assert bench.read(servo, reg.REGISTERED_INSTRUCTION) == 1
        assert bench.read(servo, reg.GOAL_POSITION) != 2200
    assert bench.talk(packets.action()) == []
    assert [bench.read(servo, reg.GOAL_POSITION) for servo in (1, 6)] == [2200, 2200]
    assert bench.read(1, reg.REGISTERED_INSTRUCTION) == 0


def test_group_writes_reach_masters_and_their_shadows(bench: Bench) -> None:
    assert bench.talk(packets.sync_write(64, 1, [(servo, b"\1") for servo in (1, 2, 4)])) == []
    assert [bench.read(servo, reg.TORQUE_ENABLE) for servo in IDS] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    goals = [(2, (1500).to_bytes(4, "little")), (4, (2500).to_bytes(4, "little")), (99, bytes(4))]
    assert bench.talk(packets.sync_write(116, 4, goals)) == []
    assert [bench.read(servo, reg.GOAL_POSITION) for servo in (2, 3, 4, 5)] == [1500, 1500, 2500, 2500]
    assert bench.talk(packets.bulk_write([(1, 65, b"\1"), (4, 84, b"\x64\0")])) == []
    assert [bench.read(servo, reg.POSITION_P_GAIN) for servo in (4, 5, 6)] == [100, 100, 800]
    assert bench.read(1, reg.LED) == 1


def test_a_shadow_obeys_its_masters_id_but_does_not_answer_for_it(bench: Bench) -> None:
    assert bench.write(2, reg.TORQUE_ENABLE, 1) == 0  # `write` checks that only servo 2 answers
    assert bench.read(3, reg.TORQUE_ENABLE) == 1
    assert bench.write(3, reg.TORQUE_ENABLE, 0) == 0
    assert bench.read(2, reg.TORQUE_ENABLE) == 1
    bench.write(2, reg.TORQUE_ENABLE, 0)
    assert bench.write(3, reg.SECONDARY_ID, 255) == 0
    bench.write(2, reg.LED, 1)
    assert bench.read(3, reg.LED) == 0


def test_no_packet_to_a_secondary_id_changes_the_eeprom(bench: Bench) -> None:
    before = bench.read(3, reg.RETURN_DELAY_TIME)
    bench.write(2, reg.RETURN_DELAY_TIME, 7)
    bench.talk(packets.sync_write(9, 1, [(2, b"\x08")]))
    bench.talk(packets.bulk_write([(2, 9, b"\x09")]))
    assert len(bench.talk(packets.reg_write(2, 9, b"\x0a"))) == 1
    bench.talk(packets.action())
    assert bench.read(2, reg.RETURN_DELAY_TIME) == 10
    assert bench.read(3, reg.RETURN_DELAY_TIME) == before
    bench.talk(packets.reg_write(2, reg.LED.address, b"\1"))
    bench.talk(packets.action(2))
    assert bench.read(3, reg.LED) == 1


@pytest.mark.parametrize(
    "question",
    [
        packets.ping(1),
        packets.read(1, 132, 4),
        packets.write(1, 65, b"\1"),
        packets.sync_read([1, 2], 132, 4),
        packets.sync_read([1, 2], 126, 10, fast=True),
        packets.sync_read([2, 1], 132, 4, fast=True),
    ],
    ids=["ping", "read", "write", "sync read", "fast read of the state", "fast read of another block"],
)
def test_two_servos_with_one_id_garble_each_others_reply(bench: Bench, question: bytes) -> None:
    whole = bench.chain.receive(question, bench.now_ns)
    assert Parser().feed(b"".join(reply.data for reply in whole))
    bench.chain.poke(9, reg.ID, 1)
    replies = bench.chain.receive(question, bench.now_ns)
    heard = b"".join(reply.data for reply in replies)
    assert len(heard) == len(b"".join(reply.data for reply in whole)) + 1
    assert not any(packet.id in (1, 0xFE) for packet in Parser().feed(heard))
    assert [reply.data for reply in bench.chain.receive(question, bench.now_ns)] == [reply.data for reply in replies]
    bench.chain.set_faults(Faults(silent=[9]))
    assert Parser().feed(b"".join(reply.data for reply in bench.chain.receive(question, bench.now_ns)))


def test_a_write_reaches_both_servos_with_one_id(bench: Bench) -> None:
    bench.chain.poke(9, reg.ID, 1)
    bench.talk(packets.write(1, reg.LED.address, b"\1"))
    assert [bench.chain.peek(servo, reg.LED, bench.now_ns) for servo in (1, 9)] == [1, 1]


def test_a_pair_that_disagrees_overloads_itself(bench: Bench) -> None:
    bench.write(3, reg.HOMING_OFFSET, 400)
    bench.torque(2, 3)
    bench.write(2, reg.GOAL_POSITION, 1500)
    bench.pass_ms(2100)
    assert bench.read(2, reg.HARDWARE_ERROR_STATUS) == 0x20
    assert bench.read(3, reg.TORQUE_ENABLE) == 0
    assert bench.read(4, reg.HARDWARE_ERROR_STATUS) == 0


def test_status_return_level(bench: Bench) -> None:
    assert bench.write(1, reg.STATUS_RETURN_LEVEL, 1) == 0
    assert bench.write(1, reg.LED, 1) is None
    assert bench.read(1, reg.LED) == 1
    bench.write(1, reg.STATUS_RETURN_LEVEL, 0)
    assert bench.talk(packets.read(1, 65, 1)) == []
    assert bench.talk(packets.sync_read([1], 65, 1)) == []
    assert len(bench.talk(packets.ping(1))) == 1


def test_ids_can_change_and_broadcast_writes_are_silent(bench: Bench) -> None:
    assert bench.write(9, reg.ID, 42) == 0
    assert bench.talk(packets.ping(9)) == []
    assert bench.read(42, reg.ID) == 42
    assert bench.talk(packets.write(0xFE, 65, b"\1")) == []
    assert [bench.read(servo, reg.LED) for servo in (1, 5, 42)] == [1, 1, 1]
    assert bench.talk(packets.read(0xFE, 65, 1)) == []


def test_a_servo_at_another_baud_rate_hears_nothing(bench: Bench) -> None:
    assert bench.write(1, reg.BAUD_RATE, 6) == 0  # the reply still comes at the old rate
    assert bench.talk(packets.ping(1)) == []
    bench.baud = 4_000_000
    assert [packet.id for packet in bench.talk(packets.ping())] == [1]
    bench.baud = 9600
    assert bench.talk(packets.ping()) == []


def test_reboot_clears_ram_and_errors_and_takes_a_while(bench: Bench) -> None:
    bench.torque(9)
    bench.write(9, reg.GOAL_CURRENT, 7)
    bench.chain.raise_error(9, 0x20)
    (packet,) = bench.talk(packets.reboot(9))
    assert packet.error == 0
    assert bench.talk(packets.ping(9)) == []
    bench.pass_ms(250)
    assert bench.read(9, reg.HARDWARE_ERROR_STATUS) == 0
    assert bench.read(9, reg.TORQUE_ENABLE) == 0
    assert bench.read(9, reg.GOAL_CURRENT) == bench.read(9, reg.CURRENT_LIMIT)


@pytest.mark.parametrize(("scope", "found_at"), [(0xFF, (1, 57_600)), (0x01, (9, 57_600)), (0x02, (9, 1_000_000))])
def test_factory_reset_keeps_what_its_scope_says(bench: Bench, scope: int, found_at: tuple[int, int]) -> None:
    bench.chain.set_faults(Faults(silent=list(range(1, 9))))  # alone on the bus, or id 1 would be taken
    (packet,) = bench.talk(packets.factory_reset(9, scope))
    assert packet.error == 0
    bench.pass_ms(250)
    servo, bench.baud = found_at
    assert bench.read(servo, reg.RETURN_DELAY_TIME) == 250
    assert bench.read(servo, reg.MODEL_NUMBER) == 1020


def test_a_broadcast_reset_of_everything_is_refused(bench: Bench) -> None:
    assert bench.talk(packets.factory_reset(0xFE, 0xFF)) == []
    assert bench.read(1, reg.RETURN_DELAY_TIME) == 0


def test_clear_and_unknown_instructions(bench: Bench) -> None:
    bench.talk(packets.ping(1))
    bench.plant.angles[0] += 7.0
    before = bench.read(1, reg.PRESENT_POSITION)
    (packet,) = bench.talk(packets.clear_turns(1))
    assert packet.error == 0
    assert bench.read(1, reg.PRESENT_POSITION) == before - 4096
    (packet,) = bench.talk(packets.instruction_packet(1, Instruction.CLEAR, b"\1\0\0\0\0"))
    assert packet.error == StatusError.RESULT_FAIL
    (packet,) = bench.talk(packets.instruction_packet(1, 0x44, b""))
    assert packet.error == StatusError.INSTRUCTION


def test_errors_raise_the_alert_bit_and_drop_torque(bench: Bench) -> None:
    bench.torque(9, 1)
    bench.chain.raise_error(9, 0x20)
    (packet,) = bench.talk(packets.read(9, 64, 1))
    assert packet.error == packets.ALERT
    assert packet.data == b"\0"
    (fast,) = bench.talk(packets.sync_read([1, 9], 126, 10, fast=True))
    assert [part.error for part in split_fast(fast.params, [10, 10])] == [0, packets.ALERT]
    assert bench.write(9, reg.TORQUE_ENABLE, 1) == packets.ALERT | StatusError.ACCESS
    assert bench.read(1, reg.TORQUE_ENABLE) == 1
    bench.chain.raise_error(1, 0x01)  # input voltage is not in Shutdown by default
    assert bench.read(1, reg.TORQUE_ENABLE) == 1


def test_a_brown_out_takes_torque_and_watchdog(bench: Bench) -> None:
    bench.torque(1)
    bench.write(1, reg.BUS_WATCHDOG, 5)
    bench.chain.brown_out(bench.now_ns)
    assert bench.talk(packets.ping()) == []
    bench.pass_ms(250)
    assert bench.read(1, reg.TORQUE_ENABLE) == 0
    assert bench.read(1, reg.BUS_WATCHDOG) == 0


@pytest.mark.parametrize("baud", [57_600, 1_000_000, 4_000_000])
@pytest.mark.parametrize("delay", [0, 250])
def test_a_reply_is_complete_after_its_time_on_the_wire(bench: Bench, baud: int, delay: int) -> None:
    code = next(code for code, rate in reg.BAUD_RATES.items() if rate == baud)
    for servo in IDS:
        bench.write(servo, reg.RETURN_DELAY_TIME, delay)
        bench.chain.poke(servo, reg.BAUD_RATE, code)
    byte_ns = 10 * 10**9 // baud
    request = packets.sync_read(IDS, 126, 10)
    (reply,) = bench.chain.receive(request, 50 * 10**9, baud)
    wire_ns = (len(request) + 9 * 21) * byte_ns + 9 * delay * 2000
    assert (len(reply.data), reply.ready_at_ns) == (9 * 21, 50 * 10**9 + wire_ns)
    request = packets.sync_read(IDS, 126, 10, fast=True)
    (reply,) = bench.chain.receive(request, 51 * 10**9, baud)
    wire_ns = (len(request) + 8 + 9 * 14) * byte_ns + delay * 2000
    assert reply.ready_at_ns == 51 * 10**9 + wire_ns


def test_packets_queue_on_the_wire(bench: Bench) -> None:
    write = packets.sync_write(116, 4, [(1, (2050).to_bytes(4, "little"))])
    assert bench.chain.receive(write, bench.now_ns) == []
    (reply,) = bench.chain.receive(packets.ping(1), bench.now_ns)
    assert reply.ready_at_ns - bench.now_ns == (len(write) + 10 + 14) * 10_000


@settings(derandomize=True, deadline=None, max_examples=150)
@given(noise=st.lists(st.binary(max_size=60) | st.just(packets.HEADER), max_size=6))
def test_noise_never_crashes_and_never_deafens(noise: list[bytes]) -> None:
    bench = Bench()
    for chunk in noise:
        bench.talk(chunk)
        bench.now_ns += MS
    assert [packet.id for packet in bench.talk(packets.ping(3))][-1:] == [3]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(code=st.integers(0, 255), target=st.sampled_from([1, 2, 0xFE]), params=st.binary(max_size=30))
def test_any_instruction_with_any_parameters_is_survived(code: int, target: int, params: bytes) -> None:
    bench = Bench()
    bench.talk(packets.instruction_packet(target, code, params))
    bench.pass_ms(210)
    tuned = {servo.id for servo in bench.chain.servos if servo.baud == 1_000_000}
    assert {packet.id for packet in bench.talk(packets.ping())} == tuned
