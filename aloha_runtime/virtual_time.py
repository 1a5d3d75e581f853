"""Virtual time: the processes of a rig in lock-step, as fast as the machine can, and the same on every run.

Each participant says until when it sleeps; the server grants time to one participant at a time, in the order
(deadline, priority, name), so only one runs at any moment and a run does not depend on the machine. Together with its
next deadline a participant reports what it published; a grant carries these counts to the subscribers, who wait until
they have received as much (`bus.Subscriber`): what was published before an instant is there at that instant.

The wire is a SOCK_SEQPACKET Unix socket in the run directory: the kernel reports a dead participant at once.
"""

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from aloha_runtime.decoding import decoder
from aloha_runtime.errors import TransportError
from aloha_runtime.run_directory import socket_path

EPOCH_NS = 1_000_000_000_000
"""Where virtual time starts: the same in every run, and far from the 0 that means "never" in a stamp."""
FOREVER_NS = (1 << 63) - 1
"""Deadline of a participant that waits for a message only."""
Count = tuple[int, int]
"""(epoch, sequence) of the newest message of a channel; a restarted publisher has a higher epoch."""
TIME = "time"
"""Name of the server's socket and lock in the run directory."""
PACKET_BYTES = 1 << 18
"""Room for a packet; the kernel's default socket buffer (208 KiB) bounds it."""


class Join(msgspec.Struct, array_like=True, tag=0):
    """First packet of a participant."""

    name: str
    priority: int
    pid: int


class Wait(msgspec.Struct, array_like=True, tag=1):
    """Until when, and what was published meanwhile. `subscribed`: topic by token, None when unchanged."""

    deadline_ns: int
    wake: list[str]
    published: dict[str, Count]
    subscribed: dict[str, str] | None


class Grant(msgspec.Struct, array_like=True, tag=0):
    """Run now. `published`: what the topics it reads have reached. `tokens`: all subscriptions, None when unchanged."""

    now_ns: int
    published: dict[str, Count]
    tokens: dict[str, str] | None


class Refusal(msgspec.Struct, array_like=True, tag=1):
    """Not accepted as a participant."""

    reason: str


encode = msgspec.msgpack.Encoder().encode
_decode = decoder(Grant | Refusal)


def channel_topic(channel: str) -> str:
    """Topic of a channel: a topic with several senders has one channel for each, `TOPIC/SENDER`."""
    return channel.partition("/")[0]


class VirtualClock:
    """A participant's clock. The process runs only while time is granted to it: from the return of the constructor or
    of `sleep_until` to the next `sleep_until`. One clock a thread; a process with two loops has two clocks."""

    virtual = True

    def __init__(self, run_dir: Path, name: str, priority: int = 0, timeout_s: float = 30.0) -> None:
        """Join the server in `run_dir` and wait for the first grant. Among equal deadlines the lower `priority` goes
        first, then the name. TransportError when no server appears within `timeout_s` or the name is taken."""
        self.name = name
        self._now_ns = 0
        self._published: dict[str, Count] = {}
        self._subscriptions: dict[str, str] = {}
        self._subscriptions_changed = False
        self._tokens: dict[str, str] = {}
        self.expected: dict[str, Count] = {}
        """Newest message that a subscriber must have received by now, by channel; only of topics subscribed here."""
        self._socket = _connect(socket_path(run_dir, f"{TIME}.ipc"), timeout_s)
        self._exchange(encode(Join(name, priority, os.getpid())))

    def now_ns(self) -> int:
        return self._now_ns

    def sleep_until(self, deadline_ns: int, wake: Iterable[str] = ()) -> None:
        """Let the others run until `deadline_ns`, or until somebody publishes on one of the `wake` topics."""
        if deadline_ns <= self._now_ns:
            return
        subscribed = self._subscriptions if self._subscriptions_changed else None
        self._exchange(encode(Wait(deadline_ns, list(wake), self._published, subscribed)))
        self._published = {}
        self._subscriptions_changed = False

    def _exchange(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
            answer = self._socket.recv(PACKET_BYTES)
        except OSError as error:
            raise TransportError(f"virtual time of {self.name} ended ({error.strerror}): start the rig again") from None
        if not answer:
            raise TransportError(f"virtual time of {self.name} ended: its server stopped; start the rig again")
        try:
            grant = _decode(answer)
        except msgspec.DecodeError as error:
            raise TransportError(f"virtual time of {self.name} is not understood ({error}): update both") from None
        if isinstance(grant, Refusal):
            raise TransportError(grant.reason)
        self._now_ns = grant.now_ns
        self.expected.update(grant.published)
        if grant.tokens is not None:
            self._tokens = grant.tokens

    def published(self, channel: str, count: Count) -> None:
        """Note the newest message sent on a channel; the others learn of it when this participant next sleeps."""
        self._published[channel] = count
        if channel_topic(channel) in self._subscriptions.values():
            self.expected[channel] = count

    def subscribe(self, topic: str, token: str) -> None:
        """Note a subscription; every publication after the next `sleep_until` waits until the token has reached it."""
        self._subscriptions[token] = topic
        self._subscriptions_changed = True

    def unsubscribe(self, token: str) -> None:
        """Forget a subscription; twice is harmless."""
        if self._subscriptions.pop(token, None) is not None:
            self._subscriptions_changed = True

    def tokens(self, topic: str) -> set[str]:
        """Tokens of every subscription to a topic."""
        return {token for token, subscribed in self._tokens.items() if subscribed == topic}

    def close(self) -> None:
        """Leave; time goes on without this participant."""
        self._socket.close()


def _connect(path: Path, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > give_up:
                connection.close()
                raise TransportError(f"no virtual time is served at {path}: start the rig with `aloha up`") from None
            time.sleep(0.01)
