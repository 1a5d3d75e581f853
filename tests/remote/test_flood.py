"""Allowed machines gone wrong: a flood, messages that would end a decoder, answers that are none. Everybody else is
served, and whoever is wrong is counted."""

import contextlib
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from remote_machines import CAMERA, STATE, Machine, echo, observation, until_answered

from aloha_runtime.jpeg import jpeg_size
from aloha_runtime.remote import frames, wire
from aloha_runtime.remote.gate import HEARTBEAT_MS
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.remote.server import KEPT, PolicyServer

NESTED = b"\x81\xa1x" * 10_000
"""msgpack: a map in a map in a map ..."""
BAD_MESSAGES = {
    "nested maps": NESTED,
    "nested maps of a look": b"\x86\xa4type\xa4look\xa7vectors" + NESTED,
    "nested lists": b"\x91" * 10_000,
    "a list that claims 4 billion items": b"\xdd\xff\xff\xff\xff",
    "a map that claims 4 billion items": b"\x82\xa4type\xa4look\xa7vectors\xdf\xff\xff\xff\xff",
    "a vector that claims 4 GB": b"\x82\xa4type\xa4look\xa7session\xc6\xff\xff\xff\xff",
    "text that is no UTF-8": b"\x81\xa4type\xa2\xff\xff",
    "cut off": wire.encode({"type": "look", "session": bytes(16)})[:-9],
    "empty": b"",
}


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def huge_jpeg(height: int = 20_000, width: int = 20_000) -> bytes:
    """A small JPEG whose header claims another size, which a decoder would make room for."""
    data = bytearray(frames._to_jpeg(np.zeros((24, 32, 3), np.uint8)).data)
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_no_message_of_an_allowed_robot_ends_the_server(what: str, machine: Machine) -> None:
    link = machine.link()
    link.open(10)
    link._mail.send([BAD_MESSAGES[what]])
    assert link._await(0, 10) is None
    assert "not understood" in link.trouble
    assert machine.server.counts["not understood"] == 1
    until_answered(link, 1)


@pytest.mark.parametrize("size", [(20_000, 20_000), (65_535, 65_535), (12_000, 8_000), (24, 33), (0, 0)])
def test_a_picture_is_measured_before_room_is_made_for_it(size: tuple[int, int], machine: Machine) -> None:
    link = machine.link()
    session = link.open(10).session
    data = huge_jpeg(*size)
    assert jpeg_size(data) == size
    picture = {CAMERA: wire.Picture("jpeg", data)}
    link._mail.send([wire.encode(wire.Look(session, 1, {STATE: bytes(56)}, picture))])
    assert link._await(1, 10) is None
    assert f"cam_high is {size[1]}x{size[0]}, the policy looks at 32x24" in link.trouble
    link._number = 1
    until_answered(link, 1)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff" * 99, b"\xff\xd8\xff\xc0\x00\x01\x08"])
def test_what_has_no_header_of_a_frame_is_no_jpeg(data: bytes) -> None:
    assert jpeg_size(data) is None


def test_an_inference_that_fails_costs_its_robot_alone(start: Callable[..., Machine]) -> None:
    def fails(asked: Any) -> Any:
        if asked[STATE][0] == 9:
            raise RuntimeError("out of memory")
        return echo(asked)

    machine = start(fails)
    link = machine.link()
    link.open(10)
    assert link.predict(observation(9)) is None
    assert "inference failed: out of memory" in link.trouble
    assert machine.server.counts["failed"] == 1
    until_answered(link, 2)


def chunk_of(look: wire.Chunk, **change: Any) -> wire.Chunk:
    values = {name: getattr(look, name) for name in ("session", "number", "inference_ns", "rows", "actions")}
    return wire.Chunk(**{**values, **change})


BAD_ANSWERS: dict[str, tuple[str, Callable[[wire.Chunk], Any]]] = {
    "57 bytes": ("unfit", lambda chunk: wire.encode(chunk_of(chunk, rows=1, actions=bytes(57)))),
    "rows that are not there": ("unfit", lambda chunk: wire.encode(chunk_of(chunk, rows=6))),
    "not a number": ("unfit", lambda chunk: wire.encode(chunk_of(chunk, actions=struct.pack("<f", np.nan) * 70))),
    "infinite": ("unfit", lambda chunk: wire.encode(chunk_of(chunk, actions=struct.pack("<f", np.inf) * 70))),
    **{what: ("not understood", lambda _, data=data: data) for what, data in BAD_MESSAGES.items()},
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_no_answer_of_a_server_ends_a_robots_policy(
    what: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, bad = BAD_ANSWERS[what]
    link = machine.link()
    link.open(10)
    real, told = PolicyServer._send, threading.Event()

    def lying(server: PolicyServer, peer: bytes, message: Any) -> None:
        if isinstance(message, wire.Chunk) and not told.is_set():
            told.set()
            server._mail.send([peer, bad(message)])
            if count == "unfit":
                return
        real(server, peer, message)

    monkeypatch.setattr(PolicyServer, "_send", lying)
    link.predict(observation(1))
    assert link.counts[count] == 1
    assert told.is_set()
    until_answered(link, 2)


def flood(machine: Machine, link: PolicyLink, count: int, first: int = 1) -> None:
    """Observations one after the other without a look at the answers."""
    for number in range(first, first + count):
        message = wire.encode(frames.pack(observation(number), link._session, number))
        while True:
            try:
                link._mail.send([message])
                break
            except zmq.Again:
                time.sleep(0.001)


def test_a_flood_is_read_always_and_only_the_newest_is_kept(machine: Machine) -> None:
    """Nothing is left in libzmq, which would stop reading the connection and end the process when it breaks off."""
    link = machine.link()
    link.open(10)
    machine.pause()
    flood(machine, link, 300)
    _until(lambda: machine.server._mail.dropped == 300 - KEPT)
    (kept,) = machine.server._mail._queues.values()
    assert [wire.from_robot(parts[1].bytes).number for parts in kept] == [297, 298, 299, 300]
    machine.running.set()
    _until(lambda: machine.server.counts["answered"] == 1)
    assert machine.server.counts["unread"] == 296


def test_a_robot_that_floods_and_breaks_off_costs_nobody_the_server(start: Callable[..., Machine]) -> None:
    """With a receive limit, libzmq ends the process here: an assertion in its heartbeats."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(asked: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return echo(asked)

    machine = start(slow)
    link = machine.link()
    link.open(10)
    flood(machine, link, 1)
    assert begun.wait(10)
    flood(machine, link, 400, first=2)
    machine.links.remove(link)
    link.close()
    time.sleep(2.5 * HEARTBEAT_MS / 1000)  # pings of the connection that is gone
    go_on.set()
    other = machine.link()
    other.open(10)
    until_answered(other, 1)
    assert machine.ended_by is None


def test_robots_take_turns_however_much_one_of_them_sends(start: Callable[..., Machine]) -> None:
    """One robot floods over three connections; the other, which waits for its answers, gets every second inference."""
    order: list[float] = []
    seen = threading.Semaphore(0)

    def slow(asked: Any) -> Any:
        order.append(float(asked[STATE][0]))
        seen.release()
        time.sleep(0.01)
        return echo(asked)

    machine = start(slow)
    machine.keys.allow(machine.stranger.public(), "second")
    loud, quiet = [machine.link() for _ in range(3)], machine.link(machine.stranger)
    for link in (*loud, quiet):
        link.open(10)
    ended = threading.Event()

    def shout(link: PolicyLink) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with_value = wire.encode(frames.pack(observation(1000), link._session, number))
            with contextlib.suppress(zmq.Again):
                link._mail.send([with_value])
            link._mail.take()
            time.sleep(0.002)

    shouting = [threading.Thread(target=shout, args=(link,)) for link in loud]
    for thread in shouting:
        thread.start()
    try:
        for _ in range(20):
            assert seen.acquire(timeout=10)
        order.clear()
        for value in range(10):
            assert quiet.predict(observation(value)) is not None
        others = len([value for value in order if value == 1000])
    finally:
        ended.set()
        for thread in shouting:
            thread.join()
    assert others <= 2 * 10 + 2, "of the loud robot between two of the quiet one: the one under way, and one turn"


def test_sessions_of_one_robot_push_out_no_other(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aloha_runtime.remote.server.MOST_SESSIONS", 2)
    machine = start()
    machine.keys.allow(machine.stranger.public(), "second")
    quiet = machine.link(machine.stranger)
    quiet.open(10)
    for _ in range(4):
        machine.link().open(10)
    assert len(machine.server._sessions) == 3
    assert quiet.predict(observation(1)) is not None


def test_what_is_not_understood_on_the_bus_is_one_kind_of_error() -> None:
    for data in BAD_MESSAGES.values():
        for decode in (wire.from_robot, wire.from_server):
            with pytest.raises(msgspec.DecodeError):
                decode(data)
