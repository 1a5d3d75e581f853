"""The robot PC's side: one connection to a policy server, one request outstanding, answers to nothing else taken."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray
from zmq.utils.monitor import recv_monitor_message

from aloha_runtime.errors import CheckpointError, TransportError
from aloha_runtime.remote import frames, gate, wire
from aloha_runtime.remote.address import Address
from aloha_runtime.remote.keys import Keys
from aloha_runtime.remote.mailbox import Mailbox
from aloha_runtime.robot import DOF

GIVE_UP_S = 3.0
"""An answer that has not come by then never will; the age of the observation has long ended the motion."""
POLL_MS = 50
"""How long closing waits for a request under way."""
KEPT_ANSWERS = 8
"""Messages of the server that wait; it owes one."""
KEPT = 3000
"""Round trips in the figures: the last minute."""
LARGEST_ANSWER = wire.CARD_BYTES + wire.SPARE_BYTES
Answer = wire.Card | wire.Chunk | wire.Refusal | None
NO_AUTH = "does not let this machine in"
NO_PROOF = "does not prove the key that is allowed here: it is another machine, or the link breaks off"


class PolicyLink:
    """An engine that runs elsewhere: `predict` gives None where no answer came, and tries again with the next
    observation. For one thread at a time; `trouble` and `figures` may be read by another."""

    def __init__(self, address: Address, keys: Keys, rate_hz: int) -> None:
        """Raises ConfigError without keys, or where the server's is not allowed here."""
        self.address, self._keys, self._rate_hz = address, keys, rate_hz
        self._server = keys.peer(address.name)
        self.name = f"{self._server.name} at {address.endpoint}"
        self.trouble = "nobody listens there"
        """What is wrong with the link now; empty when nothing is."""
        self.counts: Counter[str] = Counter()
        """`connections`; `unanswered` requests; answers that were dropped: `stale`, `not understood`, `unfit`."""
        self._trips_ns: deque[int] = deque(maxlen=KEPT)
        self._encode_ns = self._bytes = self._inference_ns = 0
        self._connected = False
        self._session = b""
        self._digest = address.digest
        self._number = 0
        self._closing = False
        self._arrived: deque[bytes] = deque()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = gate.connect(self._context, keys, address.endpoint, self._server.key, LARGEST_ANSWER)
        self._monitor = self._socket.get_monitor_socket()
        self._mail = Mailbox(self._socket, KEPT_ANSWERS)
        self._poller = zmq.Poller()
        self._poller.register(self._mail.fileno(), zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def open(self, patience_s: float) -> wire.Card:
        """Connect and hear what is served. Raises TransportError with the reason, CheckpointError for another one than
        the address says."""
        give_up = time.monotonic() + patience_s
        while (left_s := give_up - time.monotonic()) > 0 and not self._closing:
            card = self._greet(min(left_s, GIVE_UP_S))
            if card is not None:
                return card
            if NO_AUTH in self.trouble or "protocol" in self.trouble or "robot's rate" in self.trouble:
                break
        raise TransportError(f"no policy from {self.name}: {self.trouble}")

    def predict(self, observation: Mapping[str, Any]) -> NDArray[np.float32] | None:
        """Chunk (n, 14) of the server for this observation, or None."""
        self._hear_monitor()
        if not self._session:
            self._greet(GIVE_UP_S)
            return None  # this observation has become old meanwhile
        began_ns = time.monotonic_ns()
        self._number += 1
        message = wire.encode(frames.pack(observation, self._session, self._number))
        self._encode_ns, self._bytes = time.monotonic_ns() - began_ns, len(message)
        if not self._send(message):
            return None
        answer = self._await(self._number, GIVE_UP_S)
        if not isinstance(answer, wire.Chunk):
            self.counts["unanswered"] += 1
            return None
        if len(answer.actions) != answer.rows * DOF * 4:
            self._unfit(f"its chunk of {answer.rows} actions has {len(answer.actions)} bytes")
            return None
        actions = np.frombuffer(answer.actions, "<f4")
        if not np.isfinite(actions).all():
            self._unfit("its actions are not finite")
            return None
        self._trips_ns.append(time.monotonic_ns() - began_ns)
        self._inference_ns = answer.inference_ns
        self.trouble = ""
        return actions.reshape(answer.rows, DOF).astype(np.float32)

    def _unfit(self, what: str) -> None:
        self.counts["unfit"] += 1
        self.trouble = what

    def figures(self) -> dict[str, float]:
        """For the health report: round trips (encoding and inference included), what travels, what went wrong."""
        found = {
            "link_encode_ms": self._encode_ns / 1e6,
            "link_kib": self._bytes / 1024,
            "link_server_ms": self._inference_ns / 1e6,
            **{f"link_{name.replace(' ', '_')}": float(count) for name, count in self.counts.items()},
        }
        if trips_ns := list(self._trips_ns):
            p50, p99 = np.percentile(trips_ns, (50, 99)) / 1e6
            found |= {"link_p50_ms": float(p50), "link_p99_ms": float(p99)}
        return found

    def summary(self) -> str:
        """One line for `aloha status`."""
        if self.trouble:
            return f"{self.name} {self.trouble}"
        found = self.figures()
        trips = (
            f"p50 {found['link_p50_ms']:.0f} ms, p99 {found['link_p99_ms']:.0f} ms" if self._trips_ns else "connected"
        )
        return f"{self.name}: {trips}, {found['link_kib']:.0f} KiB an observation"

    def stop(self) -> None:
        """A request under way ends within `POLL_MS`. May be called by another thread."""
        self._closing = True

    def close(self) -> None:
        """Give everything back; no request may be under way."""
        self._closing = True
        self._mail.stop()
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(0)
        self._mail.close()
        self._context.term()

    def _greet(self, patience_s: float) -> wire.Card | None:
        """Say hello on the connection there is; None when it was not answered."""
        give_up = time.monotonic() + patience_s
        while not self._connected:  # what is sent on a connection that has ended is lost
            left_s = give_up - time.monotonic()
            if left_s <= 0 or self._closing:
                return None
            self._monitor.poll(max(1, min(POLL_MS, int(left_s * 1000))))
            self._hear_monitor()
            if NO_AUTH in self.trouble:
                return None
        if not self._send(wire.encode(wire.Hello(wire.PROTOCOL, self._rate_hz))):
            return None
        card = self._await(0, patience_s)
        if not isinstance(card, wire.Card):
            return None
        if not card.digest.startswith(self._digest):
            raise CheckpointError(
                f"{self.name} now serves checkpoint {card.digest[:12]}, not {self._digest[:12]}, which was looked at "
                "before the start: deploy it again"
            )
        self._digest, self._session, self.trouble = card.digest, card.session, ""
        return card

    def _send(self, message: bytes) -> bool:
        try:
            self._mail.send([message])
        except zmq.Again:  # the connection has just ended, or its queue is full of what a stalled one did not take
            self.trouble = self.trouble or "takes nothing"
            return False
        return True

    def _await(self, number: int, patience_s: float) -> wire.Card | wire.Chunk | None:
        """The answer to request `number` (0: to a hello) of this session; None when the connection ends, the server
        refuses, or it takes too long."""
        give_up = time.monotonic() + patience_s
        while (left_s := give_up - time.monotonic()) > 0 and not self._closing:
            if not self._arrived:
                ready = dict(self._poller.poll(max(1, min(POLL_MS, int(left_s * 1000)))))
                if self._monitor in ready and self._hear_monitor():
                    return None
                self._arrived += [parts[0].bytes if len(parts) == 1 else b"" for parts in self._mail.take()]
            while self._arrived:
                answer = self._decoded(self._arrived.popleft())
                if isinstance(answer, wire.Refusal) and answer.number in (0, number):
                    self.trouble = f"refuses: {answer.reason}"
                    self._session = b"" if answer.again else self._session
                    return None
                if self._is_awaited(answer, number):
                    return answer
                self.counts["stale"] += answer is not None
        self.trouble = self.trouble or "does not answer"
        return None

    def _is_awaited(self, answer: Answer, number: int) -> TypeGuard[wire.Card | wire.Chunk]:
        if isinstance(answer, wire.Chunk):
            return bool(number) and (answer.session, answer.number) == (self._session, number)
        return isinstance(answer, wire.Card) and not number

    def _decoded(self, data: bytes) -> Answer:
        try:
            answer: Answer = wire.from_server(data)
        except msgspec.DecodeError:
            self.counts["not understood"] += 1
            return None
        return answer

    def _hear_monitor(self) -> bool:
        """Take what happened to the connection; True when it ended."""
        ended = False
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.counts["connections"] += 1
                self._connected, self.trouble = True, ""
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.trouble = f"{NO_AUTH}: there, `aloha keys allow {self._keys.public()} NAME`"
            elif event == zmq.EVENT_CONNECTED:
                self.trouble = NO_PROOF  # until it has
            elif event == zmq.EVENT_DISCONNECTED:
                self._connected, self._session, ended = False, b"", True
                self.trouble = self.trouble or "the connection was cut"
        return ended
