"""Stand-ins for what a process talks to, so that its loop is tested turn by turn: bus, clock, supervisor."""

import argparse
import logging
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aloha_runtime import config
from aloha_runtime.messages import Message, Mode, Reply, Request, Topic


class FakeClock:
    """Stands until it is set. `virtual` as the process under test needs it."""

    def __init__(self, now_ns: int = 1_000_000_000_000, virtual: bool = False) -> None:
        self.now = now_ns
        self.virtual = virtual

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, deadline_ns: int) -> None:
        self.now = max(self.now, deadline_ns)


class FakeSubscriber:
    """Holds what the test put in."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.newest: Any = None
        self.waiting: deque[Message] = deque()

    def put(self, message: Message) -> None:
        message.seq = 1 if self.newest is None else self.newest.seq + 1
        self.newest = message
        self.waiting.append(message)

    def latest(self) -> Any:
        return self.newest

    def drain(self) -> list[Any]:
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def fresh(self, now_ns: int) -> Any:
        if self.newest is None or now_ns - self.newest.stamp_ns > self.topic.max_age_ms * 1e6:
            return None
        return self.newest if self.newest.valid else None


class FakePublisher:
    """Keeps what the process sent."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.sent: list[Any] = []

    def send(self, message: Message) -> None:
        assert type(message) is self.topic.message
        self.sent.append(message)


class FakeServer:
    """The supervisor's socket: requests waiting, replies given."""

    def __init__(self) -> None:
        self.requests: deque[Request] = deque()
        self.replies: list[Reply] = []

    def receive(self) -> Request | None:
        return self.requests.popleft() if self.requests else None

    def reply(self, reply: Reply) -> None:
        self.replies.append(reply)


class FakeBus:
    """One subscriber and one publisher a topic; `requests` are those sent to the supervisor."""

    def __init__(self) -> None:
        self.subscribers: dict[str, FakeSubscriber] = {}
        self.publishers: dict[str, FakePublisher] = {}
        self.served = FakeServer()
        self.requests: list[Request] = []

    def subscribe(self, topic: Topic, depth: int = 1) -> FakeSubscriber:
        return self.subscribers.setdefault(topic.name, FakeSubscriber(topic))

    def publisher(self, topic: Topic) -> FakePublisher:
        return self.publishers.setdefault(topic.name, FakePublisher(topic))

    def server(self) -> FakeServer:
        return self.served

    def client(self) -> "FakeBus":
        return self

    def request(self, request: Request) -> Reply:
        self.requests.append(request)
        return Reply(ok=True, text="", mode=Mode.TELEOP)

    def put(self, topic: Topic, message: Message) -> None:
        """As if the topic's publisher had sent it."""
        self.subscribers[topic.name].put(message)


def fake_service(name: str, rig: str = "sim", **arguments: object) -> Any:
    """A service whose bus and clock are the test's."""
    service = SimpleNamespace(
        name=name,
        instance=name.partition("@")[2],
        rig=config.load(rig),
        run_dir=Path("/nowhere"),
        clock=FakeClock(),
        bus=FakeBus(),
        log=logging.getLogger(name),
        arguments=argparse.Namespace(**arguments),
        stopping=False,
    )
    service.stop = lambda: setattr(service, "stopping", True)
    return service
