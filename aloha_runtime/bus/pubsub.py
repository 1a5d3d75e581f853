"""One publisher per topic, any number of subscribers: PUB/SUB over ipc in the run directory.

On the wire a message is a 16-byte head (epoch of the publisher, sequence) and msgpack. A higher epoch is a restarted
publisher, a gap in the sequence a loss; both are counted, neither is an error.
"""

import itertools
import logging
import os
import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec
import zmq

from aloha_runtime import messages
from aloha_runtime.bus.sockets import KEPT_BYTES, PROMISED_MS, QUEUE_LIMIT, Closeable, Sockets, kept
from aloha_runtime.decoding import decoder
from aloha_runtime.messages import MS, Message, Topic
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import Lock
from aloha_runtime.virtual_time import Count, VirtualClock

_HEAD = struct.Struct("<QQ")
_TOKEN = b"\xff"  # begins the extra subscription by which a publisher recognises one subscriber
_numbers = itertools.count()
_log = logging.getLogger(__name__)


class Publisher(Closeable):
    """The one publisher of a topic. Made by `Bus.publisher`.

    For a reader that does not read it keeps `sockets.kept(topic)` messages and at most `KEPT_BYTES` (one message, where
    that is larger); newer ones are dropped for that reader, which counts them when it reads again.
    """

    def __init__(self, sockets: Sockets, topic: Topic, *, max_bytes: int, queue_limit: int | None) -> None:
        self.topic = topic
        self._sockets = sockets
        self._limit = kept(topic) if queue_limit is None else queue_limit
        self._by_bytes = queue_limit is None and not sockets.clock.virtual
        self._max_bytes = max_bytes
        self.seq = 0
        self._clock = sockets.clock
        self._epoch = WallClock().now_ns()
        self._reached: set[str] = set()
        taken = f"topic {topic.name} has a publisher already: pid {{pid}} ({{command}}); stop that process first"
        self._lock: Lock = sockets.take(topic.name, taken)
        self._socket = sockets.socket(zmq.XPUB if sockets.clock.virtual else zmq.PUB, self._limit)
        self._socket.bind(sockets.ipc(topic.name))

    def send(self, message: Message, stamp: bool = False) -> None:
        """Number `message` (in place) and send it; never blocks. `stamp`: also set `stamp_ns` to now.

        TypeError for another topic's message, ValueError for one that is too large.
        """
        if type(message) is not self.topic.message:
            carries = self.topic.message.__name__
            raise TypeError(f"topic {self.topic.name} carries {carries}, not {type(message).__name__}")
        message.seq = self.seq + 1
        if stamp:
            message.stamp_ns = self._clock.now_ns()
        data = _HEAD.pack(self._epoch, message.seq) + messages.encode(message)
        if len(data) > self._max_bytes:  # it would end the connections of all readers for good (MAXMSGSIZE)
            raise ValueError(f"message of {len(data)} bytes on topic {self.topic.name}, the limit is {self._max_bytes}")
        self.seq += 1
        if self._by_bytes and len(data) * self._limit > KEPT_BYTES:
            self._limit = max(1, KEPT_BYTES // len(data))
            self._socket.setsockopt(zmq.SNDHWM, self._limit)  # for the readers that are there as well
        if isinstance(self._clock, VirtualClock):
            self._reach(self._clock.tokens(self.topic.name))
            self._clock.published(self.topic.name, (self._epoch, self.seq))
        self._socket.send(data)

    def _reach(self, tokens: set[str]) -> None:
        """Wait until the subscriptions of these tokens have arrived, so that no subscriber misses the next message."""
        while missing := tokens - self._reached:
            alive = any(os.path.exists(f"/proc/{token.partition('/')[0]}") for token in missing)
            if not self._socket.poll(PROMISED_MS if alive else 0):
                _log.error("%s goes on without subscribers %s: they do not connect", self.topic.name, sorted(missing))
                self._reached |= missing
                return
            subscription = self._socket.recv()
            if subscription.startswith(b"\x01" + _TOKEN):
                self._reached.add(subscription[2:].decode())

    def close(self) -> None:
        """Stop publishing and free the topic."""
        self._socket.close(0)
        self._lock.release()
        self._sockets.forget(self)


class Subscriber(Closeable):
    """A reader of one topic. Made by `Bus.subscribe`.

    `dropped`: messages lost (gaps in the sequence, or more than `depth` waiting); `restarts`: the publisher came back
    as a new process; `invalid`: bytes that were not the topic's message, skipped.
    """

    def __init__(self, sockets: Sockets, topic: Topic, depth: int, *, max_bytes: int, queue_limit: int | None) -> None:
        self.topic = topic
        self._sockets = sockets
        self.dropped = 0
        self.restarts = 0
        self.invalid = 0
        self.received = 0
        self._clock = sockets.clock
        self._depth = depth
        self._waiting: deque[Message] = deque(maxlen=depth)
        self._newest: Message | None = None
        self._head = (0, 0)
        self._decode = decoder(topic.message)
        deep = max(kept(topic), min(depth, QUEUE_LIMIT))
        self._socket = sockets.socket(zmq.SUB, deep if queue_limit is None else queue_limit)
        self._socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._token = f"{os.getpid()}/{next(_numbers)}"
        self._missed: Count = (0, 0)  # under virtual time: what came before this subscription is not promised to it
        if isinstance(self._clock, VirtualClock):
            self._missed = self._clock.expected.get(topic.name, self._missed)
            self._socket.setsockopt(zmq.SUBSCRIBE, _TOKEN + self._token.encode())
            self._clock.subscribe(topic.name, self._token)
        self._socket.connect(sockets.ipc(topic.name))

    def _accept(self, data: bytes) -> None:
        """Take one message from the wire: look for a gap, decode it, queue it."""
        if len(data) < _HEAD.size:
            self.invalid += 1
            return
        epoch, seq = _HEAD.unpack_from(data)
        last_epoch, last_seq = self._head
        if epoch == last_epoch:
            self.dropped += max(0, seq - last_seq - 1)
        elif last_epoch:
            self.restarts += 1
        self._head = (epoch, seq)
        try:
            message = self._decode(memoryview(data)[_HEAD.size :])
        except msgspec.DecodeError:
            self.invalid += 1
            return
        self.received += 1
        if self._depth > 1 and len(self._waiting) == self._depth:
            self.dropped += 1
        self._waiting.append(message)
        self._newest = message

    def _receive_promised(self, promised: Count) -> None:
        """Under virtual time: receive everything that was published before now."""
        while self._head < promised and self._missed < promised:
            if not self._socket.poll(PROMISED_MS):
                _log.error("%s: message %d never came: its publisher died", self.topic.name, promised[1])
                self._head = promised
                self.dropped += 1
                return
            self._accept(self._socket.recv())

    def _pump(self) -> None:
        if isinstance(self._clock, VirtualClock):
            self._receive_promised(self._clock.expected.get(self.topic.name, (0, 0)))
        for _ in range(QUEUE_LIMIT):  # a publisher faster than this loop must not keep us here
            if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:  # a third of the cost of a `recv` that raises Again
                return
            self._accept(self._socket.recv())

    def drain(self) -> list[Any]:
        """Every message that came since the last call, oldest first, at most the `depth` newest."""
        self._pump()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def latest(self) -> Any | None:
        """The newest message ever received, None before the first. Never blocks."""
        self._pump()
        return self._newest

    def fresh(self, now_ns: int) -> Any | None:
        """The newest message if it is valid and not older than the topic's maximum age at `now_ns`, else None."""
        message = self.latest()
        if message is None or not message.valid or now_ns - message.stamp_ns > self.topic.max_age_ms * MS:
            return None
        return message

    def age_ns(self, now_ns: int) -> int | None:
        """Age of the newest message received so far; None before the first."""
        return None if self._newest is None else now_ns - self._newest.stamp_ns

    def wait(self, deadline_ns: int) -> Any | None:
        """The newest message as soon as there is one not yet taken by `drain` or `wait`; None at `deadline_ns`."""
        wait_any([self], deadline_ns)
        taken = self.drain()
        return taken[-1] if taken else None

    def close(self) -> None:
        """Stop reading."""
        if isinstance(self._clock, VirtualClock):
            self._clock.unsubscribe(self._token)
        self._socket.close(0)
        self._sockets.forget(self)


def wait_any(subscribers: Iterable[Subscriber], deadline_ns: int) -> list[Subscriber]:
    """Wait until subscribers (of one bus) have a message not yet taken; returns these, or none at `deadline_ns`."""
    by_socket = {subscriber._socket: subscriber for subscriber in subscribers}
    clock = next(iter(by_socket.values()))._clock
    if isinstance(clock, VirtualClock):
        return _wait_virtual(list(by_socket.values()), clock, deadline_ns)
    poller = zmq.Poller()
    for socket in by_socket:
        poller.register(socket, zmq.POLLIN)
    while True:
        ready = [subscriber for subscriber in by_socket.values() if subscriber._waiting]
        left_ns = deadline_ns - clock.now_ns()
        arrived = [] if ready else poller.poll(max(0, -(-left_ns // MS)))
        if ready or (left_ns <= 0 and not arrived):
            return ready
        for socket, _ in arrived:
            by_socket[socket]._pump()


def _wait_virtual(subscribers: list[Subscriber], clock: VirtualClock, deadline_ns: int) -> list[Subscriber]:
    while True:
        for subscriber in subscribers:
            subscriber._pump()
        ready = [subscriber for subscriber in subscribers if subscriber._waiting]
        if ready or clock.now_ns() >= deadline_ns:
            return ready
        clock.sleep_until(deadline_ns, wake=[subscriber.topic.name for subscriber in subscribers])
