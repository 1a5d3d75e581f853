"""Prebuilt packets against the general builders, and replies of every shape."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_frames import (
    BLOCKS,
    CURRENT,
    ERROR,
    ID,
    POSITION,
    STATE_ADDRESS,
    STATE_SIZE,
    STRIDE,
    VELOCITY,
    GoalWrite,
    StateRead,
)

IDS = (1, 2, 4, 6, 7, 8, 9)
STATES = st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
ARM = st.lists(STATES, min_size=7, max_size=7)


def pack(state: tuple[int, int, int], block: int = 0) -> bytes:
    address, size = BLOCKS[block]
    before = STATE_ADDRESS - address
    return b"\x12" * before + struct.pack("<hii", *state) + b"\x34" * (size - before - STATE_SIZE)


def fast_reply(states: list[tuple[int, int, int]], block: int = 0, errors: tuple[int, ...] = (0,) * 7) -> bytes:
    parts = [(i, error, pack(state, block)) for i, error, state in zip(IDS, errors, states, strict=True)]
    return packets.fast_status_packet(parts)


def unflatten(flat: tuple[int, ...]) -> list[tuple[int, int, int]]:
    return list(zip(flat[CURRENT::STRIDE], flat[VELOCITY::STRIDE], flat[POSITION::STRIDE], strict=True))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=7, max_size=7))
def test_goal_write_is_the_sync_write(ticks: list[int]) -> None:
    expected = packets.sync_write(116, 4, [(i, struct.pack("<i", t)) for i, t in zip(IDS, ticks, strict=True)])
    assert GoalWrite(IDS).packet(ticks) == expected


def test_goal_write_stuffs_a_header_in_the_goals() -> None:
    ticks = [0, 0, struct.unpack("<i", b"\xff\xff\xfd\x00")[0], 0, 0, 0, 0]
    packet = GoalWrite(IDS).packet(ticks)
    assert packet.count(b"\xff\xff\xfd") == 2
    assert b"\xff\xff\xfd\xfd" in packet
    (parsed,) = Parser().feed(packet)
    assert parsed.params[4 + 2 * 5 + 1 :][:4] == b"\xff\xff\xfd\x00"


def test_questions_are_those_of_the_protocol() -> None:
    read = StateRead(IDS)
    assert read.question(sync=False, block=0) == packets.sync_read(IDS, 126, 10, fast=True)
    assert read.question(sync=True, block=0) == packets.sync_read(IDS, 126, 10)
    assert read.question(sync=False, block=1) == packets.sync_read(IDS, 124, 12, fast=True)
    assert read.single(4, block=1) == packets.read(4, 124, 12)


@given(ARM)
def test_a_fast_reply_comes_apart(states: list[tuple[int, int, int]]) -> None:
    read, reply = StateRead(IDS), fast_reply(states)
    assert len(reply) == read.reply_size(sync=False, block=0)
    flat = read.decode_fast(reply)
    assert flat is not None
    assert flat[ID::STRIDE] == IDS
    assert unflatten(flat) == states
    (packet,) = Parser().feed(reply)
    assert unflatten(read.decode_fast_packet(packet, block=0)) == states


@given(ARM, st.integers(1, len(BLOCKS) - 1))
def test_a_longer_fast_reply_holds_the_same_state(states: list[tuple[int, int, int]], block: int) -> None:
    """And it answers the question for its own block only."""
    read, reply = StateRead(IDS), fast_reply(states, block)
    assert read.decode_fast(reply) is None
    (packet,) = Parser().feed(reply)
    assert unflatten(read.decode_fast_packet(packet, block)) == states
    assert all(read.decode_fast_packet(packet, other) is None for other in range(len(BLOCKS)) if other != block)


def test_no_two_blocks_have_answers_of_one_size() -> None:
    """Neither of one servo nor joint ones, whether the shadows are read as well or not."""
    assert len({size for _, size in BLOCKS}) == len(BLOCKS) == 16
    reads = StateRead(IDS), StateRead((*IDS, 3, 5))
    sizes = [read.reply_size(sync=False, block=block) for read in reads for block in range(len(BLOCKS))]
    assert len(set(sizes)) == len(sizes)
    assert BLOCKS[0] == (STATE_ADDRESS, STATE_SIZE)


@given(ARM)
def test_a_stuffed_fast_reply_is_understood_too(states: list[tuple[int, int, int]]) -> None:
    states[2] = (-1, struct.unpack("<i", b"\xfd\x00\x00\x00")[0], 7)  # FF FF FD in the data
    plain = fast_reply(states)
    stuffed = packets.frame(packets.BROADCAST_ID, plain[7:-2])
    assert len(stuffed) > len(plain)
    read = StateRead(IDS)
    assert read.decode_fast(stuffed) is None
    (packet,) = Parser().feed(stuffed)
    assert unflatten(read.decode_fast_packet(packet, block=0)) == states


@given(ARM, st.integers(0, 105), st.integers(1, 255))
def test_a_damaged_byte_is_noticed(states: list[tuple[int, int, int]], at: int, flip: int) -> None:
    reply = bytearray(fast_reply(states))
    reply[at] ^= flip
    assert StateRead(IDS).decode_fast(bytes(reply)) is None


@pytest.mark.parametrize("errors", [(0x80, 0, 0, 0, 0, 0, 0), (0,) * 6 + (0x80,)])
def test_the_alert_bit_passes(errors: tuple[int, ...]) -> None:
    flat = StateRead(IDS).decode_fast(fast_reply([(1, 2, 3)] * 7, errors=errors))
    assert flat is not None
    assert flat[ERROR::STRIDE] == errors


def test_a_servo_that_refuses_spoils_the_reply() -> None:
    assert StateRead(IDS).decode_fast(fast_reply([(1, 2, 3)] * 7, errors=(0, 0, 7, 0, 0, 0, 0))) is None


def test_a_reply_of_other_servos_is_not_ours() -> None:
    parts = [(i, 0, bytes(10)) for i in (1, 2, 4, 6, 7, 9, 8)]
    assert StateRead(IDS).decode_fast(packets.fast_status_packet(parts)) is None


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_single_answers_come_together(block: int) -> None:
    read = StateRead(IDS)
    states = [(-i, i * 1000, 2048 + i) for i in IDS]
    replies = [packets.status_packet(i, 0, pack(s, block)) for i, s in zip(IDS, states, strict=True)]
    assert sum(map(len, replies)) == read.reply_size(sync=True, block=block)
    assert all(len(reply) == 11 + BLOCKS[block][1] for reply in replies)
    answers = {packet.id: packet for packet in Parser().feed(b"".join(reversed(replies)))}
    assert unflatten(read.decode_sync(answers, block)) == states


def test_ticks_of_a_whole_turn_never_need_stuffing() -> None:
    write = GoalWrite(IDS)
    length = len(write.packet([0] * 7))
    assert all(len(write.packet([int(t)] * 7)) == length for t in np.arange(0, 4096, 7))
