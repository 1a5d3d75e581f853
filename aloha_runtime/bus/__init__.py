"""Messages between processes: `Bus` makes publishers and subscribers, and the supervisor's server and its clients."""

from aloha_runtime.bus.pubsub import Publisher, Subscriber, wait_any
from aloha_runtime.bus.request_reply import FLIGHT, RECORDER, SUPERVISOR, Client, Server
from aloha_runtime.bus.sockets import MAX_MESSAGE_BYTES, Closeable, Sockets
from aloha_runtime.messages import Topic

__all__ = [
    "FLIGHT",
    "RECORDER",
    "SUPERVISOR",
    "Bus",
    "Client",
    "Closeable",
    "Publisher",
    "Server",
    "Subscriber",
    "wait_any",
]


class Bus(Sockets):
    """The sockets of one process, in the run directory that a `RunDirectory` made (TransportError when it is absent or
    not private). Not for use by several threads at once.

    Whatever it makes is closed with it; what is needed for a while only is a context manager of its own.
    """

    def publisher(
        self,
        topic: Topic,
        *,
        max_bytes: int = MAX_MESSAGE_BYTES,
        queue_limit: int | None = None,
    ) -> Publisher:
        """Become the publisher of `topic`; TransportError naming the process that already is. `queue_limit`: messages
        kept for a reader that does not read; None: by the topic's rate, and bounded in bytes (`sockets.KEPT_BYTES`)."""
        return self.own(Publisher(self, topic, max_bytes=max_bytes, queue_limit=queue_limit))

    def subscribe(
        self,
        topic: Topic,
        depth: int = 1,
        *,
        max_bytes: int = MAX_MESSAGE_BYTES,
        queue_limit: int | None = None,
    ) -> Subscriber:
        """Read `topic`, whether or not its publisher runs yet. `depth`: how many messages wait for `drain`; with 1 a
        newer message replaces the older one, which does not count as dropped. `queue_limit`: messages that the socket
        keeps until they are looked at; None: as many as the publisher keeps, or `depth` where that is more."""
        return self.own(Subscriber(self, topic, depth, max_bytes=max_bytes, queue_limit=queue_limit))

    def server(self, name: str = SUPERVISOR) -> Server:
        """Answer requests as the supervisor or the recorder; TransportError when one runs already."""
        return self.own(Server(self, name))

    def client(self, server: str = SUPERVISOR) -> Client:
        """Send requests to the supervisor or the recorder, over one connection for all of them."""
        return self.own(Client(self, server))
