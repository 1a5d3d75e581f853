"""Requests of an operator to a process, and its answers: ZeroMQ REQ/REP over `supervisor.requests.ipc` and the like.

A client that takes part in virtual time is served like every subscriber: its request is there at the server's next
turn, the answer at its own. Clients outside virtual time (a person at a shell) are served whenever they come.

A client keeps one connection. A request needs no new descriptor, so that arms can be stopped and parked when there is
none left; it is not kept for a server that is not there, which would otherwise obey an old order when it comes.
"""

import contextlib
import itertools
import os
import time

import msgspec
import zmq

from aloha_runtime import messages
from aloha_runtime.bus.sockets import PROMISED_MS, Closeable, Sockets
from aloha_runtime.decoding import decoder
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, Reply, Request
from aloha_runtime.run_directory import lock_holder
from aloha_runtime.virtual_time import VirtualClock

SUPERVISOR, RECORDER, FLIGHT = "supervisor", "recorder", "flight"
"""The processes that answer requests."""
_REPLY = "reply"
_STARTED_BY = {SUPERVISOR: "`aloha up`", RECORDER: "`aloha record`", FLIGHT: "`aloha up`"}
_QUEUE_LIMIT = 100
MOST_REFUSED = 20
"""What is no request is refused so often before `receive` returns: a flood of it does not keep a process in there."""
_numbers = itertools.count()
_decode_sender = decoder(tuple[str, int])


def _channel(server: str) -> str:
    """Channel of a server's requests in virtual time; the recorder has a topic of its own name."""
    return f"{server}.requests"


class Server(Closeable):
    """The side of the process that answers: take a request, answer it, take the next. Made by `Bus.server`."""

    def __init__(self, sockets: Sockets, name: str) -> None:
        self._clock, self._channel, self._sockets = sockets.clock, _channel(name), sockets
        self._lock = sockets.take(
            f"{name}.requests", f"a {name} runs already: pid {{pid}} ({{command}}); end it with `aloha down`"
        )
        self._socket = sockets.socket(zmq.REP, _QUEUE_LIMIT)
        self._socket.bind(sockets.ipc(f"{name}.requests"))
        self._sender: tuple[str, int] | None = None
        self._received: dict[str, int] = {}
        if isinstance(self._clock, VirtualClock):
            self._clock.subscribe(self._channel, f"{os.getpid()}/{self._channel}")

    def _promised(self) -> dict[str, int]:
        """Requests of participants in virtual time that were sent but not yet received: newest number by channel."""
        if not isinstance(self._clock, VirtualClock):
            return {}
        return {
            channel: number
            for channel, (_, number) in self._clock.expected.items()
            if channel.startswith(f"{self._channel}/") and number > self._received.get(channel, 0)
        }

    def receive(self, timeout_ms: int = 0) -> Request | None:
        """The next request, None when there is none within `timeout_ms` (of the wall clock). Answer each by `reply`."""
        for _ in range(MOST_REFUSED):
            promised = self._promised()
            if not self._socket.poll(PROMISED_MS if promised else timeout_ms):
                self._received |= promised
                return None
            sender, *data = self._socket.recv_multipart()
            try:
                self._sender = _decode_sender(sender) if sender else None
                request = messages.decode(b"".join(data), Request)
            except msgspec.DecodeError:
                self._answer(b"")  # not a request: refused, and the next one is looked at
                continue
            if self._sender:
                self._received[self._sender[0]] = self._sender[1]
            elif self._clock.virtual:
                request.stamp_ns = 0  # a client outside virtual time has another clock
            return request
        return None

    def reply(self, reply: Reply) -> None:
        """Answer the request received last."""
        self._answer(messages.encode(reply))

    def _answer(self, data: bytes) -> None:
        self._socket.send(data)
        if self._sender and isinstance(self._clock, VirtualClock):
            channel, number = self._sender
            self._clock.published(channel.replace(self._channel, _REPLY, 1), (0, number))

    def close(self) -> None:
        """Stop answering."""
        self._socket.close(0)
        self._lock.release()
        self._sockets.forget(self)


class Client(Closeable):
    """An operator's side. Made by `Bus.client`; the server may come, go and come again meanwhile."""

    def __init__(self, sockets: Sockets, server: str) -> None:
        self._sockets, self._server = sockets, server
        self._number = 0
        self._name = f"{os.getpid()}.{next(_numbers)}"
        self._socket = sockets.socket(zmq.REQ, _QUEUE_LIMIT)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # a request is for the server that is there now
        self._socket.setsockopt(zmq.REQ_RELAXED, 1)  # after one without an answer there may be another,
        self._socket.setsockopt(zmq.REQ_CORRELATE, 1)  # ... and a late answer is not taken for its
        self._socket.connect(sockets.ipc(f"{server}.requests"))
        if isinstance(sockets.clock, VirtualClock):
            sockets.clock.subscribe(_REPLY, f"{os.getpid()}/{_REPLY}")

    def request(self, request: Request, timeout_ms: int = 2000) -> Reply:
        """Ask the server. TransportError when none runs, it does not answer in time, or it refuses the bytes."""
        request.stamp_ns = self._sockets.clock.now_ns()
        give_up = time.monotonic() + timeout_ms / 1000
        data = None
        if self._reach(PROMISED_MS if self._sockets.clock.virtual else timeout_ms):
            left_ms = max(0, int((give_up - time.monotonic()) * 1000))
            data = self._exchange(messages.encode(request), timeout_ms if self._sockets.clock.virtual else left_ms)
        if data is None:
            raise TransportError(self._unanswered(request.verb, timeout_ms))
        if not data:
            raise TransportError(
                f"the {self._server} (pid {self._holder()}) refuses '{request.verb}': update both sides"
            )
        try:
            return messages.decode(data, Reply)
        except msgspec.DecodeError as error:
            raise TransportError(
                f"the {self._server} (pid {self._holder()}) answers '{request.verb}' with what is no reply ({error}): "
                "update both sides"
            ) from None

    def _reach(self, timeout_ms: int) -> bool:
        """Whether there is a connection; waits for one only while a server lives."""
        if self._socket.poll(0, zmq.POLLOUT):
            return True
        return self._holder() is not None and bool(self._socket.poll(timeout_ms, zmq.POLLOUT))

    def _holder(self) -> int | None:
        """Pid of the server, 0 when it cannot be known; None when there is none."""
        try:
            return lock_holder(self._sockets.run_dir / f"{self._server}.requests.lock")
        except OSError:  # no descriptor is left to look with
            return 0

    def _unanswered(self, verb: str, timeout_ms: int) -> str:
        server, holder = self._server, self._holder()
        if holder is None:
            return f"no {server} runs in {self._sockets.run_dir}: start the rig with {_STARTED_BY[server]}"
        return (
            f"the {server} (pid {holder}) did not answer '{verb}' within {timeout_ms} ms: "
            f"look at its log, or end it with `kill {holder}` and start the rig again"
        )

    def close(self) -> None:
        """Ask nothing any more."""
        self._socket.close(0)
        self._sockets.forget(self)

    def _send(self, sender: bytes, data: bytes) -> None:
        with contextlib.suppress(zmq.Again):  # the server has died since it was reached: there will be no answer
            self._socket.send_multipart([sender, data], zmq.DONTWAIT)

    def _exchange(self, data: bytes, timeout_ms: int) -> bytes | None:
        """The answer, None when there was none in time (of the rig's clock)."""
        clock, socket = self._sockets.clock, self._socket
        if not isinstance(clock, VirtualClock):
            self._send(b"", data)
            return socket.recv() if socket.poll(timeout_ms) else None
        self._number += 1
        channel = f"{_channel(self._server)}/{self._name}"
        self._send(msgspec.msgpack.encode((channel, self._number)), data)
        clock.published(channel, (0, self._number))
        deadline_ns = clock.now_ns() + timeout_ms * MS
        while clock.now_ns() < deadline_ns:
            clock.sleep_until(deadline_ns, wake=[_REPLY])
            if clock.expected.get(f"{_REPLY}/{self._name}", (0, 0)) >= (0, self._number):
                return socket.recv() if socket.poll(PROMISED_MS) else None
        return None
