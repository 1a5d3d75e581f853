"""Messages between processes: `Bus` makes publishers and subscribers, and the supervisor's server and its clients."""

from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from aloha_runtime.bus.pubsub import Publisher, Subscriber, wait_any
from aloha_runtime.bus.request_reply import FLIGHT, RECORDER, SUPERVISOR, Client, Server
from aloha_runtime.bus.sockets import MAX_MESSAGE_BYTES, QUEUE_LIMIT, Sockets
from aloha_runtime.messages import Topic
from aloha_runtime.realtime import Clock

__all__ = ["FLIGHT", "RECORDER", "SUPERVISOR", "Bus", "Client", "Publisher", "Server", "Subscriber", "wait_any"]


class Closeable(Protocol):
    """What a bus closes when it is closed."""

    def close(self) -> None: ...


Opened = TypeVar("Opened", bound=Closeable)


class Bus(Sockets):
    """The sockets of one process. Not for use by several threads at once."""

    def __init__(self, run_dir: Path, clock: Clock) -> None:
        """Use the run directory that a `RunDirectory` made; TransportError when it is absent or not private."""
        super().__init__(run_dir, clock)
        self._open: list[Closeable] = []

    def publisher(
        self,
        topic: Topic,
        *,
        max_bytes: int = MAX_MESSAGE_BYTES,
        queue_limit: int = QUEUE_LIMIT,
    ) -> Publisher:
        """Become the publisher of `topic`; TransportError naming the process that already is."""
        return self.own(Publisher(self, topic, max_bytes=max_bytes, queue_limit=queue_limit))

    def subscribe(
        self,
        topic: Topic,
        depth: int = 1,
        *,
        max_bytes: int = MAX_MESSAGE_BYTES,
        queue_limit: int = QUEUE_LIMIT,
    ) -> Subscriber:
        """Read `topic`, whether or not its publisher runs yet. `depth`: how many messages wait for `drain`; with 1 a
        newer message replaces the older one, which does not count as dropped."""
        return self.own(Subscriber(self, topic, depth, max_bytes=max_bytes, queue_limit=queue_limit))

    def server(self, name: str = SUPERVISOR) -> Server:
        """Answer requests as the supervisor or the recorder; TransportError when one runs already."""
        return self.own(Server(self, name))

    def client(self, server: str = SUPERVISOR) -> Client:
        """Send requests to the supervisor or the recorder."""
        return Client(self, server)

    def own(self, opened: Opened) -> Opened:
        """Close `opened` together with this bus."""
        self._open.append(opened)
        return opened

    def close(self) -> None:
        """Close every socket and remove this process's sockets and locks from the run directory."""
        for opened in reversed(self._open):
            opened.close()
        self._open.clear()
        super().close()

    def __enter__(self) -> "Bus":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
