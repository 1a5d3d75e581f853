"""Peers that a policy server must not answer: without keys, with an unknown key, with what was said before.

Every message is a well-formed one that an allowed robot would get an answer to. 0 of 10,000 may be accepted.
"""

import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from aloha_runtime.commands.bench import Row
from aloha_runtime.remote import frames, gate, wire
from aloha_runtime.remote.address import Address
from aloha_runtime.remote.frames import Inputs
from aloha_runtime.remote.keys import Keys, to_z85
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.remote.server import PolicyServer, Served
from aloha_runtime.sim.network import BadNetwork

RATE_HZ = 50
STATE, CAMERA = "observation.state", "observation.images.cam_high"
INPUTS = Inputs({CAMERA: (24, 32)}, {STATE: 14})
A_CONNECTION = 20
"""Messages that one connection tries to say."""
PATIENCE_MS = 20
"""Wait for an answer after each connection's messages; an allowed robot has one within a few milliseconds."""


@dataclass
class Tally:
    """What peers tried, and what came back."""

    sent: int = 0
    answers: int = 0


def null_peers(port: int, _server_key: str, count: int) -> Tally:
    """Peers without any key (mechanism NULL)."""
    return _talk(port, count, None, "")


def unknown_keys(port: int, server_key: str, count: int) -> Tally:
    """Peers that know the server's public key and have a key of their own, which nobody allowed."""
    return _talk(port, count, zmq.curve_keypair()[1], server_key)


def _talk(port: int, count: int, secret: bytes | None, server_key: str) -> Tally:
    tally = Tally()
    hello = wire.encode(wire.Hello(wire.PROTOCOL, RATE_HZ))
    look = wire.encode(frames.pack(blank(), bytes(16), 1))
    with zmq.Context() as context:
        while tally.sent < count:
            with context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                if secret is not None:
                    peer.curve_secretkey = secret
                    peer.curve_publickey = zmq.curve_public(secret)
                    peer.curve_serverkey = to_z85(server_key)
                peer.connect(f"tcp://127.0.0.1:{port}")
                for index in range(min(A_CONNECTION, count - tally.sent)):
                    peer.send(look if index % 2 else hello)
                    tally.sent += 1
                while peer.poll(PATIENCE_MS):
                    peer.recv()
                    tally.answers += 1
    return tally


def raw_bytes(port: int, _server_key: str, count: int) -> Tally:
    """Bytes that are no ZeroMQ, some of them half a greeting."""
    random = np.random.default_rng(0)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47)
    tally = Tally()
    while tally.sent < count:
        start = greeting[: random.integers(0, len(greeting) + 1)]
        tally.answers += _stream(port, start + random.bytes(200)) > 0
        tally.sent += 1
    return tally


def replayed_stream(port: int, recorded: bytes, count: int) -> Tally:
    """All bytes that an allowed robot sent, said again on new connections. An answer would be longer than the
    server's own part of a handshake that then fails."""
    tally = Tally()
    longest = 64 + 2 * 256  # greeting; WELCOME, and ERROR or nothing
    while tally.sent < count:
        tally.answers += _stream(port, recorded) > longest
        tally.sent += 1
    return tally


def _stream(port: int, data: bytes) -> int:
    """Say these bytes; returns how many came back that are no greeting (64 bytes)."""
    received = 0
    with socket.socket() as peer:
        peer.settimeout(1.0)
        try:
            peer.connect(("127.0.0.1", port))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while more := peer.recv(1 << 16):
                received += len(more)
        except OSError:
            pass
    return max(0, received - 64)


def replayed_messages(port: int, robot: Keys, observation: Mapping[str, Any], count: int) -> Tally:
    """An allowed robot's own message again: on its connection, and, by number and session, on another of its."""
    link = PolicyLink(Address.parse(f"tcp://127.0.0.1:{port}"), robot, RATE_HZ)
    other = PolicyLink(Address.parse(f"tcp://127.0.0.1:{port}"), robot, RATE_HZ)
    tally = Tally()
    try:
        session = link.open(10).session
        message = wire.encode(frames.pack(observation, session, 1))
        link._mail.send([message])
        if not link._mail.wait(10_000) or not _chunks(link):
            raise ValueError("the message is not even answered the first time")
        other.open(10)
        while tally.sent < count:
            (other if tally.sent % 2 else link)._mail.send([message])
            tally.sent += 1
            for each in (link, other):
                while each._mail.wait(PATIENCE_MS if tally.sent % A_CONNECTION == 0 or tally.sent == count else 0):
                    tally.answers += _chunks(each)
    finally:
        link.close()
        other.close()
    return tally


def _chunks(link: PolicyLink) -> int:
    """How many of the answers that wait are actions."""
    return sum(isinstance(wire.from_server(parts[0].bytes), wire.Chunk) for parts in link._mail.take())


def blank() -> dict[str, Any]:
    """An observation that fits."""
    return {STATE: np.zeros(14, np.float32), CAMERA: np.zeros((24, 32, 3), np.uint8)}


def run(count: int) -> list[Row]:
    """`count` messages of each kind of peer."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="aloha-peers-") as name, zmq.Context() as context:
        gpu, robot = Keys(Path(name) / "gpu"), Keys(Path(name) / "robot")
        gpu.create()
        gpu.allow(robot.create(), "robot")
        robot.allow(gpu.public(), "gpu")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        ours, keeper = gate.listen(context, gpu, f"tcp://127.0.0.1:{port}", INPUTS.most_bytes)
        chunk = np.zeros((5, 14), np.float32)
        server = PolicyServer(ours, Served("0" * 64, {}, RATE_HZ), INPUTS, lambda _: chunk)
        end = threading.Event()
        thread = threading.Thread(target=lambda: [server.turn(20) for _ in iter(end.is_set, True)])
        thread.start()
        try:
            for what, attack in (("no key", null_peers), ("unknown key", unknown_keys), ("no ZeroMQ", raw_bytes)):
                rows.append(_row(what, attack(port, gpu.public(), count), server.counts["answered"]))
            recorded = _record(port, robot)
            legitimate = server.counts["answered"]
            tally = replayed_stream(port, recorded, count)
            rows.append(_row("recorded stream", tally, server.counts["answered"] - legitimate))
            tally = replayed_messages(port, robot, blank(), count)
            time.sleep(0.1)
            rows.append(_row("message said again", tally, server.counts["answered"] - legitimate - 1))
        finally:
            end.set()
            thread.join()
            server.close()
            keeper.close()
    return rows


def _record(port: int, robot: Keys) -> bytes:
    """What an allowed robot says, as it is on the wire."""
    with BadNetwork(port) as network:
        link = PolicyLink(Address.parse(f"tcp://127.0.0.1:{network.port}"), robot, RATE_HZ)
        try:
            link.open(10)
            if link.predict(blank()) is None:
                raise ValueError(f"an allowed robot is not served: {link.trouble}")
        finally:
            link.close()
        return bytes(network.passed)


def _row(what: str, tally: Tally, accepted: int) -> Row:
    name = f"accepted of {tally.sent} from peers: {what}"
    return Row(name, max(tally.answers, accepted), "messages", goal=0, met=tally.answers == accepted == 0)
