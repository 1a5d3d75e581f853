"""Prebuilt packets against the general builders, and replies of every shape."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel.parser import Parser
from aloha_runtime.hardware.dynamixel_frames import (
    CURRENT,
    ERROR,
    ID,
    POSITION,
    STATE_SIZE,
    STRIDE,
    VELOCITY,
    WIDE_SIZE,
    GoalWrite,
    StateRead,
)

IDS = (1, 2, 4, 6, 7, 8, 9)
STATES = st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
ARM = st.lists(STATES, min_size=7, max_size=7)


def pack(state: tuple[int, int, int], wide: bool = False) -> bytes:
    return (b"\x12\x34" if wide else b"") + struct.pack("<hii", *state)


def fast_reply(states: list[tuple[int, int, int]], wide: bool = False, errors: tuple[int, ...] = (0,) * 7) -> bytes:
    parts = [(i, error, pack(state, wide)) for i, error, state in zip(IDS, errors, states, strict=True)]
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
    assert read.question(sync=False, wide=False) == packets.sync_read(IDS, 126, 10, fast=True)
    assert read.question(sync=True, wide=False) == packets.sync_read(IDS, 126, 10)
    assert read.question(sync=False, wide=True) == packets.sync_read(IDS, 124, 12, fast=True)
    assert read.single(4, wide=True) == packets.read(4, 124, 12)


@given(ARM)
def test_a_fast_reply_comes_apart(states: list[tuple[int, int, int]]) -> None:
    read, reply = StateRead(IDS), fast_reply(states)
    assert len(reply) == read.reply_size(sync=False, wide=False)
    flat = read.decode_fast(reply)
    assert flat is not None
    assert flat[ID::STRIDE] == IDS
    assert unflatten(flat) == states
    (packet,) = Parser().feed(reply)
    assert unflatten(read.decode_fast_packet(packet, wide=False)) == states
    assert read.decode_fast_packet(packet, wide=True) is None


@given(ARM)
def test_a_wide_fast_reply_holds_the_same_state(states: list[tuple[int, int, int]]) -> None:
    read, reply = StateRead(IDS), fast_reply(states, wide=True)
    assert read.decode_fast(reply) is None
    (packet,) = Parser().feed(reply)
    assert unflatten(read.decode_fast_packet(packet, wide=True)) == states
    assert read.decode_fast_packet(packet, wide=False) is None


@given(ARM)
def test_a_stuffed_fast_reply_is_understood_too(states: list[tuple[int, int, int]]) -> None:
    states[2] = (-1, struct.unpack("<i", b"\xfd\x00\x00\x00")[0], 7)  # FF FF FD in the data
    plain = fast_reply(states)
    stuffed = packets.frame(packets.BROADCAST_ID, plain[7:-2])
    assert len(stuffed) > len(plain)
    read = StateRead(IDS)
    assert read.decode_fast(stuffed) is None
    (packet,) = Parser().feed(stuffed)
    assert unflatten(read.decode_fast_packet(packet, wide=False)) == states


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


@pytest.mark.parametrize(("wide", "size"), [(False, STATE_SIZE), (True, WIDE_SIZE)])
def test_single_answers_come_together(wide: bool, size: int) -> None:
    read = StateRead(IDS)
    states = [(-i, i * 1000, 2048 + i) for i in IDS]
    replies = [packets.status_packet(i, 0, pack(s, wide)) for i, s in zip(IDS, states, strict=True)]
    assert sum(map(len, replies)) == read.reply_size(sync=True, wide=wide)
    assert all(len(reply) == 11 + size for reply in replies)
    answers = {packet.id: packet for packet in Parser().feed(b"".join(reversed(replies)))}
    assert unflatten(read.decode_sync(answers)) == states


def test_ticks_of_a_whole_turn_never_need_stuffing() -> None:
    write = GoalWrite(IDS)
    length = len(write.packet([0] * 7))
    assert all(len(write.packet([int(t)] * 7)) == length for t in np.arange(0, 4096, 7))
