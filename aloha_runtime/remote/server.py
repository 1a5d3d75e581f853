"""The GPU machine's side: answers robots with chunks, one inference at a time, each robot's newest observation only.

Robots take turns, by the names that their keys have in the allow-list: however much one of them sends, and over however
many connections, the next inference is for another one that waits.
"""

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
from aloha_runtime.remote.mailbox import Mailbox, Parts

MOST_SESSIONS = 8
"""Connections of one robot that are remembered; the one that was silent longest is forgotten and has to say hello
again."""
KEPT = 4
"""Messages of one robot that wait; one request is outstanding by design."""
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


def _robot(parts: Parts) -> str:
    """Name of the key that a message came with."""
    return str(parts[-1].get("User-Id") or "?")


class PolicyServer:
    """Turns over one CURVE socket. For one thread."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        served: Served,
        inputs: Inputs,
        predict: Callable[[Mapping[str, Any]], NDArray[np.float32] | None],
    ) -> None:
        """`socket`: belongs to this server from now on (`close`)."""
        self._served, self._inputs, self._predict = served, inputs, predict
        self._mail = Mailbox(socket, KEPT, _robot)
        self._waiting: OrderedDict[str, OrderedDict[bytes, wire.Look]] = OrderedDict()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self.counts: Counter[str] = Counter()
        """Messages `answered`; dropped: `not understood`, `no session`, `replayed`, `replaced`, `unfit`, `unsent`, and
        `unread`, which a robot sent faster than its turns come; `failed` inferences."""

    def turn(self, timeout_ms: int) -> int:
        """Wait for messages and answer one of every robot; returns how many inferences there were."""
        if not self._waiting:
            self._mail.wait(timeout_ms)
        self._take_all()
        robots = list(self._waiting)
        for robot in robots:
            looks = self._waiting.pop(robot)
            peer, look = looks.popitem(last=False)
            if looks:  # of its other connections: they wait for the robot's next turn
                self._waiting[robot] = looks
            self._answer(peer, look)
            self._take_all()
        return len(robots)

    def close(self) -> None:
        """Answer nobody any more, and close the socket; twice is harmless."""
        self._mail.close()

    def _take_all(self) -> None:
        """What has arrived, at most `KEPT` messages of each robot."""
        for _ in range(self._mail.senders()):
            for parts in self._mail.take():
                self._take(parts)
        if self._mail.dropped:
            self.counts["unread"] = self._mail.dropped

    def _take(self, parts: Parts) -> None:
        peer, robot = parts[0].bytes, _robot(parts)
        try:
            if len(parts) != 2:
                raise msgspec.DecodeError("one frame was expected")
            message = wire.from_robot(parts[1].bytes)
        except msgspec.DecodeError:
            self._refuse(peer, "not understood", 0, "not understood: install the same release on both machines")
            return
        if isinstance(message, wire.Hello):
            self._greet(peer, message, robot)
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
        looks = self._waiting.setdefault(robot, OrderedDict())
        if peer in looks:
            self.counts["replaced"] += 1
        looks[peer] = message
        while len(looks) > MOST_SESSIONS:
            looks.popitem(last=False)
            self.counts["replaced"] += 1

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
            own = [known for known, other in self._sessions.items() if other.name == name]
            for forgotten in own[:-MOST_SESSIONS]:
                del self._sessions[forgotten]
            _log.info("%s has connected", name)
            card = wire.Card(wire.PROTOCOL, session.secret, served.digest, served.rate_hz, dict(served.files))
            self._send(peer, card)

    def _answer(self, peer: bytes, look: wire.Look) -> None:
        began_ns = time.monotonic_ns()
        try:
            observation = frames.unpack(look, self._inputs)
        except ValueError as error:
            self._refuse(peer, "unfit", look.number, f"unfit observation: {error}")
            return
        try:
            actions = self._predict(observation)
        except Exception as error:  # of its GPU, or of one robot's numbers: that robot holds, the others are served
            if not self.counts["failed"]:
                _log.exception("an inference failed")
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            see = (
                "`nvidia-smi`, then start `aloha policy serve` again" if isinstance(error, RuntimeError) else "its log"
            )
            self._refuse(peer, "failed", look.number, f"inference failed: {first}; on the server see {see}")
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
            self._mail.send([peer, wire.encode(message)])
        except zmq.ZMQError:  # its queue is full: it asks again when it wants to know
            self.counts["unsent"] += 1
