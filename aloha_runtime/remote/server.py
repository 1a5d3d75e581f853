"""The GPU machine's side: answers robots with chunks, one inference at a time, each robot's newest observation only."""

import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from aloha_runtime.remote import frames, wire
from aloha_runtime.remote.frames import Inputs

MOST_SESSIONS = 64
"""Connections that are remembered; the one that was silent longest is forgotten and has to say hello again."""
MOST_AT_ONCE = 256
"""Messages taken before anybody is answered."""
_log = logging.getLogger("serve")


@dataclass(frozen=True)
class Served:
    """A checkpoint as robots see it. `files`: of its directory, by name, without the weights."""

    digest: str
    files: Mapping[str, bytes]
    rate_hz: int


@dataclass
class _Session:
    name: str
    secret: bytes
    newest: int = 0


class PolicyServer:
    """Turns over one CURVE socket. For one thread."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        served: Served,
        inputs: Inputs,
        predict: Callable[[Mapping[str, Any]], NDArray[np.float32] | None],
    ) -> None:
        self._socket, self._served, self._inputs, self._predict = socket, served, inputs, predict
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self.counts: Counter[str] = Counter()
        """Messages `answered`; dropped: `not understood`, `no session`, `replayed`, `replaced`, `unfit`, `unsent`;
        `failed` inferences."""

    def turn(self, timeout_ms: int) -> int:
        """Wait for messages and answer them; returns how many inferences there were."""
        waiting: dict[bytes, wire.Look] = {}
        if self._socket.poll(timeout_ms):
            for _ in range(MOST_AT_ONCE):
                try:
                    parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    break
                self._take(parts, waiting)
        for peer, look in waiting.items():
            self._answer(peer, look)
        return len(waiting)

    def _take(self, parts: list[zmq.Frame], waiting: dict[bytes, wire.Look]) -> None:
        peer = parts[0].bytes
        try:
            if len(parts) != 2:
                raise msgspec.DecodeError("one frame was expected")
            message = wire.from_robot(parts[1].bytes)
        except msgspec.DecodeError:
            self._refuse(peer, "not understood", 0, "not understood: install the same release on both machines")
            return
        if isinstance(message, wire.Hello):
            self._greet(peer, message, str(parts[1].get("User-Id") or "?"))
            return
        session = self._sessions.get(peer)
        if session is None or not secrets.compare_digest(session.secret, message.session):
            self._refuse(peer, "no session", message.number, "no session: say hello first", again=True)
            return
        if message.number <= session.newest:
            self.counts["replayed"] += 1  # not even an answer
            return
        session.newest = message.number
        self._sessions.move_to_end(peer)
        if peer in waiting:
            self.counts["replaced"] += 1
        waiting[peer] = message

    def _greet(self, peer: bytes, hello: wire.Hello, name: str) -> None:
        served = self._served
        if hello.protocol != wire.PROTOCOL:
            reason = f"this server speaks protocol {wire.PROTOCOL}, not {hello.protocol}: install the same release"
            self._refuse(peer, "unfit", 0, reason)
        elif hello.rate_hz != served.rate_hz:
            reason = f"actions of this policy are for {served.rate_hz} Hz, the robot's rate is {hello.rate_hz} Hz"
            self._refuse(peer, "unfit", 0, reason)
        else:
            session = _Session(name, secrets.token_bytes(16))
            self._sessions[peer] = session
            self._sessions.move_to_end(peer)
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
            _log.info("%s has connected", name)
            card = wire.Card(wire.PROTOCOL, session.secret, served.digest, served.rate_hz, dict(served.files))
            self._send(peer, card)

    def _answer(self, peer: bytes, look: wire.Look) -> None:
        began_ns = time.monotonic_ns()
        try:
            actions = self._predict(frames.unpack(look, self._inputs))
        except ValueError as error:
            self._refuse(peer, "unfit", look.number, f"unfit observation: {error}")
            return
        except RuntimeError as error:  # its GPU: the robot holds, and says so
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = f"inference failed: {first}; on the server see `nvidia-smi`, then start `aloha policy serve` again"
            self._refuse(peer, "failed", look.number, reason)
            return
        if actions is None:  # a server that is itself a link to another one
            return
        data = np.ascontiguousarray(actions, "<f4")
        self.counts["answered"] += 1
        taken_ns = time.monotonic_ns() - began_ns
        self._send(peer, wire.Chunk(look.session, look.number, taken_ns, len(data), data.tobytes()))

    def _refuse(self, peer: bytes, count: str, number: int, reason: str, again: bool = False) -> None:
        self.counts[count] += 1
        self._send(peer, wire.Refusal(number, reason[:500], again))

    def _send(self, peer: bytes, message: wire.Card | wire.Chunk | wire.Refusal) -> None:
        try:
            self._socket.send_multipart([peer, wire.encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:  # its queue is full: it asks again when it wants to know
            self.counts["unsent"] += 1
