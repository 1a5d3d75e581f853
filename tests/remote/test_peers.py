"""Who gets nothing: peers without a key, with an unknown one, and those who say again what was said before."""

from collections.abc import Callable

import msgspec
import numpy as np
import psutil
import pytest
from remote_machines import DIGEST, INPUTS, Machine, echo, observation, until_answered

from aloha_runtime.commands.bench_peers import (
    Tally,
    null_peers,
    raw_bytes,
    replayed_messages,
    replayed_stream,
    unknown_keys,
)
from aloha_runtime.errors import CheckpointError, TransportError
from aloha_runtime.remote import frames, wire
from aloha_runtime.sim.network import BadNetwork

COUNT = 60


def answered(machine: Machine) -> int:
    return machine.server.counts["answered"]


def test_an_allowed_robot_gets_its_own_answers_and_the_card(machine: Machine) -> None:
    link = machine.link()
    card = link.open(10)
    assert (card.digest, dict(card.files), card.rate_hz) == (DIGEST, {"config.json": b"{}"}, 50)
    for value in range(20):
        chunk = link.predict(observation(value))
        assert chunk is not None
        assert chunk.shape == (5, 14)
        assert (chunk == value).all()
    assert answered(machine) == 20
    assert link.figures()["link_p99_ms"] >= link.figures()["link_p50_ms"] > 0


@pytest.mark.parametrize("attack", [null_peers, unknown_keys, raw_bytes])
def test_strangers_get_nothing(machine: Machine, attack: Callable[..., Tally]) -> None:
    tally = attack(machine.port, machine.keys.public(), COUNT)
    assert tally.sent == COUNT
    assert tally.answers == 0
    assert answered(machine) == 0
    assert machine.keeper.counts["let in"] == 0
    assert not machine.server.counts  # not one of their messages reached it
    assert machine.link().open(10).digest == DIGEST  # and who is allowed still is served


def test_the_recorded_stream_of_a_robot_is_worth_nothing(machine: Machine, network: BadNetwork) -> None:
    link = machine.link(port=network.port)
    link.open(10)
    assert link.predict(observation(1)) is not None
    recorded = bytes(network.passed)
    assert len(recorded) > frames.Inputs.most_bytes.fget(INPUTS) - wire.SPARE_BYTES  # type: ignore[attr-defined]
    before = answered(machine)
    assert replayed_stream(machine.port, recorded, COUNT).answers == 0
    assert answered(machine) == before == 1
    assert machine.keeper.counts["let in"] == 1


def test_a_message_said_twice_is_dropped_even_from_who_is_allowed(machine: Machine) -> None:
    tally = replayed_messages(machine.port, machine.robot, observation(), COUNT)
    assert (tally.sent, tally.answers) == (COUNT, 0)
    assert answered(machine) == 1  # the first time
    counts = machine.server.counts
    assert counts["replayed"] + counts["no session"] + counts["unread"] == COUNT
    assert counts["replayed"] > 0 < counts["no session"]


def test_a_robot_takes_no_server_but_the_one_it_knows(machine: Machine, start: Callable[..., Machine]) -> None:
    with pytest.raises(
        TransportError, match=r"does not let this machine in: there, `aloha keys allow [0-9a-f]{64} NAME`"
    ):
        machine.link(machine.stranger).open(10)
    machine.robot.directory.joinpath("allowed.txt").write_text(f"{machine.stranger.public()} gpu\n")
    with pytest.raises(TransportError, match="does not prove the key that is allowed here"):
        machine.link().open(0.5)
    assert answered(machine) == 0


def test_a_key_is_allowed_at_once_and_no_longer_after_it_was_taken_out(machine: Machine) -> None:
    machine.keys.allow(machine.stranger.public(), "second")
    assert machine.link(machine.stranger).open(10).digest == DIGEST
    allowed = machine.keys.directory / "allowed.txt"
    allowed.write_text("".join(line for line in allowed.open() if "second" not in line))
    with pytest.raises(TransportError, match="does not let this machine in"):
        machine.link(machine.stranger).open(10)


def test_another_checkpoint_than_the_one_looked_at_ends_it(machine: Machine) -> None:
    assert machine.link(digest=DIGEST[:12]).open(10).digest == DIGEST
    with pytest.raises(CheckpointError, match="now serves checkpoint abababababab, not cdcdcdcd"):
        machine.link(digest="cd" * 4).open(10)


def test_what_is_no_message_and_what_does_not_fit_is_refused_and_the_next_is_served(machine: Machine) -> None:
    link = machine.link()
    link.open(10)
    for data in (b"", b"\x00", b"\xff" * 100, wire.encode({"type": "look", "session": b"short"}), wire.encode(7)):
        link._mail.send([data])
        assert link._await(0, 10) is None
        assert "not understood" in link.trouble
    for wrong in (
        {**observation(), "observation.state": np.zeros(7, np.float32)},
        {**observation(), "observation.state": np.full(14, np.nan, np.float32)},
        {"observation.state": np.zeros(14, np.float32)},
        {**observation(), "observation.images.cam_high": np.zeros((25, 32, 3), np.uint8)},
        {**observation(), "extra": np.zeros(3, np.float32)},
    ):
        assert link.predict(wrong) is None
        assert "refuses: unfit observation" in link.trouble
    assert link.predict(observation(3)) is not None
    assert answered(machine) == 1


def test_a_server_whose_gpu_is_lost_says_so_and_the_robot_repeats_it(start: Callable[..., Machine]) -> None:
    def lost(_: object) -> None:
        raise RuntimeError("CUDA error: device lost\nand more")

    machine = start(lost)
    link = machine.link()
    link.open(10)
    assert link.predict(observation(1)) is None
    assert link.trouble == (
        "refuses: inference failed: CUDA error: device lost; on the server see `nvidia-smi`, then start "
        "`aloha policy serve` again"
    )
    assert machine.server.counts["failed"] == 1


def test_no_answer_is_lost_however_fast_requests_follow_each_other(machine: Machine) -> None:
    link = machine.link()
    link.open(10)
    assert all(link.predict(observation(value)) is not None for value in range(500))
    assert link.counts["unanswered"] == machine.server.counts["unsent"] == 0


def test_a_message_above_the_limit_ends_the_connection_and_nothing_else(machine: Machine) -> None:
    link, other = machine.link(), machine.link()
    for each in (link, other):
        each.open(10)
    link._mail.send([bytes(INPUTS.most_bytes + 1)])
    assert link._await(0, 10) is None
    assert link.counts["connections"] == 1
    assert not machine.server.counts
    assert other.predict(observation(2)) is not None
    until_answered(link, 1)


def test_pictures_that_claim_another_size_make_no_room_for_it() -> None:
    large = frames._to_jpeg(np.zeros((2000, 2000, 3), np.uint8))
    for data in (large.data, b"", b"\xff\xd8\xff", large.data[:300]):
        look = wire.Look(
            bytes(16), 1, {"observation.state": bytes(56)}, {next(iter(INPUTS.pictures)): wire.Picture("jpeg", data)}
        )
        with pytest.raises(ValueError, match="cam_high is"):
            frames.unpack(look, INPUTS)


def test_pixels_arrive_as_they_were_sent() -> None:
    inputs = frames.Inputs({"camera": (480, 640)}, {"state": 14})
    ramp = np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None].repeat(480, 0).repeat(3, 2)
    look = frames.pack({"camera": ramp, "state": np.arange(14, dtype=np.float32)}, bytes(16), 1)
    found = frames.unpack(wire.from_robot(wire.encode(look)), inputs)
    assert look.pictures["camera"].encoding == "jpeg"
    assert np.abs(found["camera"].astype(int) - ramp).max() <= 3
    assert (found["state"] == np.arange(14)).all()
    small = frames.pack({"camera": ramp[:24, :32]}, bytes(16), 1)
    assert small.pictures["camera"].encoding == "raw"


def test_only_the_declared_address_is_listened_at(machine: Machine) -> None:
    found = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [(where.ip, where.port) for where in found] == [("127.0.0.1", machine.port)]


def test_without_anybody_who_answers_for_keys_nobody_is_let_in(machine: Machine) -> None:
    """It is libzmq that refuses, at the handshake: no message reaches the server, which goes on."""
    machine.keeper.close()
    for keys in (machine.robot, machine.stranger):
        link = machine.link(keys)
        with pytest.raises(TransportError, match="does not prove the key that is allowed here"):
            link.open(0.5)
        assert link.counts["connections"] == 0, "a handshake succeeded"
    assert not machine.server.counts
    assert machine.ended_by is None


def test_one_session_follows_another_and_memory_is_bounded(
    start: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aloha_runtime.remote.server.MOST_SESSIONS", 3)
    machine = start(echo)
    links = [machine.link() for _ in range(5)]
    for link in links:
        link.open(10)
    assert len(machine.server._sessions) == 3
    assert links[0].predict(observation()) is None  # forgotten, so it says hello again
    until_answered(links[0], 1)


LOOK = {"type": "look", "session": bytes(16), "number": 1, "vectors": {}, "pictures": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"session": bytes(15)},
        {"session": bytes(17)},
        {"number": 0},
        {"number": 1.5},
        {"number": 1 << 63},
        {"vectors": {"state": bytes(4097)}},
        {"vectors": {"x" * 129: b""}},
        {"vectors": {str(index): b"" for index in range(9)}},
        {"vectors": {"state": [1.0]}},
        {"pictures": {str(index): {"encoding": "raw", "data": b""} for index in range(17)}},
        {"pictures": {"cam": {"encoding": "png", "data": b""}}},
        {"pictures": {"cam": {"encoding": "raw", "data": b"", "size": 3}}},
        {"type": "card"},
    ],
)
def test_messages_are_strictly_typed_and_every_length_is_bounded(change: dict[str, object]) -> None:
    assert wire.from_robot(wire.encode(LOOK)).number == 1
    with pytest.raises(msgspec.DecodeError):
        wire.from_robot(wire.encode({**LOOK, **change}))


def test_answers_are_strictly_typed_and_every_length_is_bounded() -> None:
    chunk = {"type": "chunk", "session": bytes(16), "number": 1, "inference_ns": 1, "rows": 1, "actions": bytes(56)}
    assert wire.from_server(wire.encode(chunk)).rows == 1
    card = {"type": "card", "protocol": 1, "session": bytes(16), "digest": "ab" * 32, "rate_hz": 50, "files": {}}
    assert wire.from_server(wire.encode(card)).rate_hz == 50
    wrong = [
        *({**chunk, **change} for change in ({"rows": 0}, {"rows": 1001}, {"actions": bytes(56001)}, {"x": 1})),
        *({**card, **change} for change in ({"digest": "../x"}, {"rate_hz": 0}, {"x": 1})),
        {**card, "files": {str(index): b"" for index in range(129)}},
        {"type": "refusal", "number": 0, "reason": "x" * 501},
    ]
    for message in wrong:
        with pytest.raises(msgspec.DecodeError):
            wire.from_server(wire.encode(message))
