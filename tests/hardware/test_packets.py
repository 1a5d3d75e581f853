"""Protocol 2.0 framing: the manual's example packets, the SDK's own packets, and laws that must hold for any bytes."""

from itertools import pairwise

import pytest
from dynamixel_sdk import DXL_HIBYTE, DXL_LOBYTE, PacketHandler
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import Instruction, Packet
from aloha_runtime.dynamixel.parser import Parser

LAW = settings(derandomize=True, deadline=None, max_examples=200)
TRICKY = st.lists(st.sampled_from([b"\xff", b"\xfd", b"\x00", b"\xff\xff\xfd", b"\x55", b"\x07"]), max_size=40).map(
    b"".join
)
PAYLOAD = st.binary(max_size=200) | TRICKY


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


INSTRUCTIONS = {
    "ping": (packets.ping(1), "FF FF FD 00 01 03 00 01 19 4E"),
    "broadcast ping": (packets.ping(), "FF FF FD 00 FE 03 00 01 31 42"),
    "read": (packets.read(1, 132, 4), "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"),
    "write": (packets.write(1, 116, (512).to_bytes(4, "little")), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    "reg write": (
        packets.reg_write(1, 104, (200).to_bytes(4, "little")),
        "FF FF FD 00 01 09 00 04 68 00 C8 00 00 00 AE 8E",
    ),
    "action": (packets.action(1), "FF FF FD 00 01 03 00 05 02 CE"),
    "factory reset": (packets.factory_reset(1, 1), "FF FF FD 00 01 04 00 06 01 A1 E6"),
    "reboot": (packets.reboot(1), "FF FF FD 00 01 03 00 08 2F 4E"),
    "clear": (packets.clear_turns(1), "FF FF FD 00 01 08 00 10 01 44 58 4C 22 B1 DC"),
    "sync read": (packets.sync_read([1, 2], 132, 4), "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA"),
    "sync write": (
        packets.sync_write(116, 4, [(1, (150).to_bytes(4, "little")), (2, (170).to_bytes(4, "little"))]),
        "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87",
    ),
    "fast sync read": (
        packets.sync_read([3, 7, 4], 132, 4, fast=True),
        "FF FF FD 00 FE 0A 00 8A 84 00 04 00 03 07 04 20 F2",
    ),
    "bulk read": (
        packets.bulk_read([(1, 144, 2), (2, 146, 1)]),
        "FF FF FD 00 FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05",
    ),
    "bulk write": (
        packets.bulk_write([(1, 32, b"\xa0\x00"), (2, 31, b"\x50")]),
        "FF FF FD 00 FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68",
    ),
}
STATUS = {
    "ping": (packets.status_packet(1, 0, b"\x06\x04\x26"), "FF FF FD 00 01 07 00 55 00 06 04 26 65 5D"),
    "read": (packets.status_packet(1, 0, b"\xa6\0\0\0"), "FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0"),
    "write": (packets.status_packet(1), "FF FF FD 00 01 04 00 55 00 A1 0C"),
    "fast sync read": (
        packets.fast_status_packet([(3, 0, b"\xa6\0\0\0"), (7, 0, b"\x1f\x08\0\0"), (4, 0, b"\xff\x03\0\0")]),
        "FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E",
    ),
    "fast bulk read": (
        packets.fast_status_packet([(3, 0, b"\xa6\0\0\0"), (7, 0, b"\xa5\x01"), (4, 0, b"\x1f")]),
        "FF FF FD 00 FE 14 00 55 00 03 A6 00 00 00 67 A4 00 07 A5 01 24 74 00 04 1F D9 C1",
    ),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instruction_packets_are_the_manuals_examples(name: str) -> None:
    built, manual = INSTRUCTIONS[name]
    assert built == hexed(manual)


@pytest.mark.parametrize("name", STATUS)
def test_status_packets_are_the_manuals_examples(name: str) -> None:
    built, manual = STATUS[name]
    assert built == hexed(manual)


@pytest.mark.parametrize("examples", [INSTRUCTIONS, STATUS])
def test_a_stream_of_examples_parses_back_whole_and_byte_by_byte(examples: dict[str, tuple[bytes, str]]) -> None:
    stream = b"".join(built for built, _ in examples.values())
    whole, slow = Parser(), Parser()
    found = whole.feed(stream)
    assert [
        packets.frame(p.id, bytes((p.instruction,)) + p.params) for p in found if p.id != 0xFE or p.instruction != 0x55
    ]
    assert len(found) == len(examples)
    assert [p for byte in stream for p in slow.feed(bytes((byte,)))] == found
    assert (whole.garbage_bytes, whole.crc_errors, whole.pending) == (0, 0, 0)


class Capture:
    """A port that keeps what the SDK transmits."""

    is_using = False

    def clearPort(self) -> None: ...

    def writePort(self, packet: list[int]) -> int:
        self.sent = bytes(packet)
        return len(packet)


@given(body=PAYLOAD.filter(lambda body: packets.stuff(body) == body), device_id=st.integers(0, 252))
@LAW
def test_the_sdk_builds_the_same_packet(body: bytes, device_id: int) -> None:
    """Only bodies without FF FF FD: the SDK's transmitter forgets to grow its packet when it stuffs."""
    handler, port = PacketHandler(2.0), Capture()
    raw = [0, 0, 0, 0, device_id, DXL_LOBYTE(len(body) + 3), DXL_HIBYTE(len(body) + 3), 3, *body, 0, 0]
    handler.txPacket(port, raw)
    assert port.sent == packets.instruction_packet(device_id, Instruction.WRITE, body)


@given(body=st.binary(max_size=60).filter(lambda body: packets.stuff(body + b"\xff\xff\xfd")[:-4] == body))
@LAW
def test_the_sdk_unstuffs_to_the_same_body(body: bytes) -> None:
    """One pattern, at the end: after a first removal the SDK's in-place search sees bytes that it has moved itself."""
    body += b"\xff\xff\xfd"
    ours = packets.instruction_packet(7, Instruction.WRITE, body)
    assert bytes(PacketHandler(2.0).removeStuffing(list(ours))[8 : 8 + len(body)]) == body


@given(payload=PAYLOAD)
@LAW
def test_stuffing_round_trips_and_hides_every_header(payload: bytes) -> None:
    stuffed = packets.stuff(payload)
    assert packets.unstuff(stuffed) == payload
    assert packets.HEADER not in stuffed


@given(payload=PAYLOAD, device_id=st.integers(0, 252), cuts=st.lists(st.integers(0, 300), max_size=5))
@LAW
def test_any_payload_survives_any_cutting(payload: bytes, device_id: int, cuts: list[int]) -> None:
    stream = packets.instruction_packet(device_id, Instruction.WRITE, payload)
    parser, found = Parser(), []
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    for start, end in pairwise(places):
        found += parser.feed(stream[start:end])
    assert found == [Packet(device_id, Instruction.WRITE, payload)]


@given(noise=st.lists(PAYLOAD, max_size=8), payload=PAYLOAD)
@LAW
def test_a_packet_behind_any_noise_is_found(noise: list[bytes], payload: bytes) -> None:
    parser = Parser()
    for chunk in noise:
        parser.feed(chunk)
    wanted = Packet(9, Instruction.WRITE, payload)
    found = parser.feed(packets.instruction_packet(9, Instruction.WRITE, payload))
    assert found[-1] == wanted


@given(first=st.integers(0, 252), reach=st.integers(3, packets.MAX_LEN))
@LAW
def test_a_header_that_promises_too_much_swallows_nothing(first: int, reach: int) -> None:
    parser = Parser()
    assert parser.feed(packets.HEADER + bytes((first,)) + reach.to_bytes(2, "little")) == []
    stream = packets.ping(3) + packets.ping(4)
    assert [packet.id for packet in parser.feed(stream)] == [3, 4]
    assert parser.garbage_bytes == 7


@given(place=st.integers(0, 24), bit=st.integers(0, 7))
@LAW
def test_one_flipped_bit_never_passes(place: int, bit: int) -> None:
    damaged = bytearray(packets.status_packet(5, 0, bytes(range(14))))
    damaged[place] ^= 1 << bit
    parser = Parser()
    assert parser.feed(bytes(damaged)) == []
    assert parser.crc_errors + parser.garbage_bytes + parser.pending > 0


def test_counts_of_a_bad_crc_and_a_timeout() -> None:
    parser = Parser()
    bad = packets.status_packet(5, 0, b"\1\2\3\4")[:-1] + b"\0"
    good = packets.status_packet(6, 0, b"\1\2\3\4")
    assert [packet.id for packet in parser.feed(bad + good)] == [6]
    assert (parser.crc_errors, parser.garbage_bytes) == (1, len(bad))
    parser.feed(good[:9])
    assert parser.pending == 9
    parser.reset()
    assert (parser.pending, parser.garbage_bytes) == (0, len(bad) + 9)


BLOCKS = st.lists(
    st.tuples(st.integers(0, 252), st.sampled_from([0, 0x80]), st.binary(min_size=10, max_size=10) | TRICKY)
)


@given(blocks=BLOCKS.filter(bool))
@LAW
def test_a_fast_reply_splits_into_its_parts_stuffed_or_not(blocks: list[tuple[int, int, bytes]]) -> None:
    """The manual: fast replies are not stuffed. A body that looks stuffed must then be left alone."""
    reply = packets.fast_status_packet(blocks)
    sizes = [len(data) for _, _, data in blocks]
    (packet,) = Parser().feed(reply)
    assert packets.split_fast(packet.params, sizes) == blocks_as_parts(blocks)
    stuffed = packets.stuff(packet.params)
    if len(stuffed) != len(packet.params):
        assert packets.split_fast(stuffed, sizes) == blocks_as_parts(blocks)
    with pytest.raises(ValueError, match="fast reply"):
        packets.split_fast(packet.params[:-1], sizes)


def blocks_as_parts(blocks: list[tuple[int, int, bytes]]) -> list[packets.FastBlock]:
    return [packets.FastBlock(*block) for block in blocks]


@pytest.mark.parametrize("device_id", [253, 255, -1])
def test_impossible_ids_are_refused(device_id: int) -> None:
    with pytest.raises(ValueError, match="servo id"):
        packets.ping(device_id)


def test_group_writes_of_uneven_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="servo 2"):
        packets.sync_write(116, 4, [(1, bytes(4)), (2, bytes(3))])


def test_registers_do_not_overlap_and_hold_their_own_values() -> None:
    taken: set[int] = set()
    for entry in reg.REGISTERS:
        span = set(range(entry.address, entry.address + entry.size))
        assert not span & taken, entry.name
        taken |= span
        for value in (entry.low, entry.high, entry.initial):
            assert entry.decode(entry.encode(value)) == value
        assert entry.eeprom == (entry.address < 64)


def test_models_say_which_modes_they_have() -> None:
    assert reg.MODEL_BY_NAME["XM540-W270"].number == 1120
    assert reg.MODEL_BY_NUMBER[1060].modes == (1, 3, 4, 16)
    assert not reg.MODEL_BY_NUMBER[1070].has_current
    assert reg.describe_hardware_error(0x24) == "overheating, overload"
