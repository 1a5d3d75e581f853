"""Topics and requests: order, freshness, counted losses, one publisher, restarts, hostile bytes."""

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import zmq
from transport_workers import PATIENCE_S, heartbeat, publish_heartbeats, read_one_and_stop, until

from aloha_runtime import messages
from aloha_runtime.bus import Bus, wait_any
from aloha_runtime.bus.request_reply import MOST_REFUSED
from aloha_runtime.bus.sockets import KEPT_BYTES
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import (
    FOLLOWERS,
    LEADERS,
    MODE,
    MS,
    ArmsState,
    Health,
    Mode,
    ModeHeartbeat,
    Reply,
    Request,
    health_topic,
)
from aloha_runtime.realtime import NS_PER_S, WallClock

Spawn = Callable[..., BaseProcess]
HEALTH = health_topic("test")
CLOCK = WallClock()


def patience_ns() -> int:
    return CLOCK.now_ns() + int(PATIENCE_S * NS_PER_S)


def connected(publisher_bus: Bus, reader_bus: Bus, depth: int = 1000):  # type: ignore[no-untyped-def]
    """A publisher and a subscriber that has received its first message (a subscription takes a moment to arrive)."""
    publisher, subscriber = publisher_bus.publisher(MODE), reader_bus.subscribe(MODE, depth)

    def arrived() -> bool:
        publisher.send(heartbeat())
        return subscriber.latest() is not None

    until(arrived)
    while subscriber.latest().seq < publisher.seq:
        subscriber.wait(patience_ns())
    subscriber.drain()
    return publisher, subscriber


def test_messages_come_in_order_numbered_and_stamped(bus: Bus, other_bus: Bus) -> None:
    publisher, subscriber = connected(bus, other_bus)
    first, before = publisher.seq, CLOCK.now_ns()
    for index in range(50):
        publisher.send(ModeHeartbeat(stamp_ns=0, mode=Mode.HOLD, cause=str(index)), stamp=True)
    got: list[ModeHeartbeat] = []
    while len(got) < 50:
        assert wait_any([subscriber], patience_ns())
        got += subscriber.drain()
    assert [message.cause for message in got] == [str(index) for index in range(50)]
    assert [message.seq for message in got] == list(range(first + 1, first + 51))
    assert all(before <= message.stamp_ns <= CLOCK.now_ns() for message in got)
    assert (subscriber.dropped, subscriber.restarts, subscriber.invalid) == (0, 0, 0)


def test_latest_is_the_newest_and_stays(bus: Bus, other_bus: Bus) -> None:
    publisher, subscriber = connected(bus, other_bus, depth=1)
    for _ in range(10):
        publisher.send(heartbeat())
    until(lambda: subscriber.latest().seq == publisher.seq)
    assert subscriber.latest() is subscriber.latest()
    assert len(subscriber.drain()) == 1
    assert subscriber.drain() == []
    assert subscriber.dropped == 0, "superseded is not lost"


def test_fresh_means_valid_and_young_enough(bus: Bus, other_bus: Bus) -> None:
    publisher, subscriber = connected(bus, other_bus)
    limit_ns = int(MODE.max_age_ms * MS)
    publisher.send(ModeHeartbeat(stamp_ns=1000, mode=Mode.IDLE))
    message = subscriber.wait(patience_ns())
    assert subscriber.fresh(1000 + limit_ns) is message
    assert subscriber.fresh(1001 + limit_ns) is None
    assert subscriber.age_ns(5000) == 4000
    publisher.send(ModeHeartbeat(stamp_ns=2000, mode=Mode.IDLE, valid=False))
    subscriber.wait(patience_ns())
    assert subscriber.fresh(2000) is None


def test_nothing_published_is_none(bus: Bus) -> None:
    subscriber = bus.subscribe(LEADERS)
    assert subscriber.latest() is None
    assert subscriber.fresh(0) is None
    assert subscriber.age_ns(0) is None
    assert subscriber.wait(CLOCK.now_ns() + MS) is None


def test_a_full_subscriber_counts_what_it_drops(bus: Bus, other_bus: Bus) -> None:
    publisher, subscriber = connected(bus, other_bus, depth=3)
    before = subscriber.dropped
    for _ in range(10):
        publisher.send(heartbeat())
    until(lambda: subscriber.latest().seq == publisher.seq)
    assert [message.seq for message in subscriber.drain()] == [publisher.seq - 2, publisher.seq - 1, publisher.seq]
    assert subscriber.dropped == before + 7


def test_every_message_is_received_or_counted_when_the_queues_overflow(bus: Bus, other_bus: Bus) -> None:
    publisher = bus.publisher(HEALTH, queue_limit=4)
    subscriber = other_bus.subscribe(HEALTH, depth=10_000, queue_limit=4)
    message = Health(stamp_ns=0, process="test", pid=1, message="x" * 100_000)

    def send_until(condition: Callable[[], bool]) -> None:
        def sent() -> bool:
            publisher.send(message)
            return condition()

        until(sent)

    send_until(lambda: subscriber.latest() is not None)
    first = subscriber.drain()[0].seq
    already = subscriber.received
    for _ in range(300):  # 30 MB that nobody takes
        publisher.send(message)
    end = publisher.seq
    send_until(lambda: subscriber.latest().seq > end)
    last = subscriber.latest().seq
    assert subscriber.dropped > 0
    assert already >= 1
    assert subscriber.received + subscriber.dropped == last - first + 1


def test_a_topic_carries_its_own_type_only(bus: Bus) -> None:
    with pytest.raises(TypeError, match="mode carries ModeHeartbeat, not Health"):
        bus.publisher(MODE).send(Health(stamp_ns=0, process="x", pid=0))


def test_bytes_that_are_no_message_are_counted_and_skipped(bus: Bus, run_dir: Path) -> None:
    subscriber = bus.subscribe(MODE)
    head = (7).to_bytes(8, "little") + (1).to_bytes(8, "little")
    hostile = [b"", b"short", head + b"\xc1", head + b"\x93\x01", os.urandom(500)]
    with zmq.Context() as context, context.socket(zmq.PUB) as intruder:
        intruder.linger = 0
        intruder.bind(f"ipc://{run_dir}/mode.ipc")

        def sent() -> bool:
            for data in hostile:
                intruder.send(data)
            return subscriber.latest() is None and subscriber.invalid >= len(hostile)

        until(sent)
    assert subscriber.received == 0
    (run_dir / "mode.ipc").unlink()


def test_an_oversized_message_is_refused_by_its_sender(bus: Bus, other_bus: Bus) -> None:
    """At the reader it would end the connection for good, so it must not get there."""
    publisher, subscriber = bus.publisher(HEALTH), other_bus.subscribe(HEALTH)
    with pytest.raises(ValueError, match=r"message of 2097\d+ bytes on topic health.test, the limit is 1048576"):
        publisher.send(Health(stamp_ns=1, process="test", pid=1, message="x" * (2 << 20)))

    def arrived() -> bool:
        publisher.send(Health(stamp_ns=2, process="test", pid=1))
        return subscriber.latest() is not None

    until(arrived)
    assert subscriber.dropped == 0


def test_a_second_publisher_is_refused_and_told_who_the_first_is(bus: Bus, run_dir: Path, spawn: Spawn) -> None:
    holder = spawn(publish_heartbeats, run_dir)
    subscriber = bus.subscribe(MODE)
    assert subscriber.wait(patience_ns()) is not None
    with pytest.raises(TransportError, match=f"topic mode has a publisher already: pid {holder.pid} "):
        bus.publisher(MODE)
    seq = subscriber.latest().seq
    until(lambda: subscriber.latest().seq > seq)  # the attempt did not disturb the first


def test_a_killed_publisher_is_replaced_under_a_running_subscriber(bus: Bus, run_dir: Path, spawn: Spawn) -> None:
    subscriber = bus.subscribe(MODE, depth=10)
    for restarts in range(3):
        publisher = spawn(publish_heartbeats, run_dir)
        until(lambda expected=restarts: subscriber.latest() is not None and subscriber.restarts == expected)  # type: ignore[misc]
        publisher.kill()
        publisher.join()
    until(lambda: not subscriber.drain())
    assert subscriber.wait(CLOCK.now_ns() + MS) is None


def test_closing_frees_the_topic_and_leaves_no_file(bus: Bus, run_dir: Path) -> None:
    with Bus(run_dir, CLOCK) as first:
        first.publisher(MODE)
        first.server()
        own = {f"{name}.{kind}" for name in ("mode", "supervisor.requests") for kind in ("ipc", "lock")}
        assert {path.name for path in run_dir.iterdir()} > own
    assert [path.name for path in run_dir.iterdir()] == ["run.lock"]
    bus.publisher(MODE)


def test_a_bus_closes_after_a_publisher_was_refused(bus: Bus, run_dir: Path) -> None:
    bus.publisher(MODE)
    with Bus(run_dir, CLOCK) as second, pytest.raises(TransportError):
        second.publisher(MODE)
    assert (run_dir / "mode.ipc").exists(), "the first one's socket stays"


def test_request_and_reply(bus: Bus, other_bus: Bus) -> None:
    server = bus.server()
    replies: list[Reply] = []
    asked = Request(verb="teleop", argument="a", sender="test")
    thread = threading.Thread(target=lambda: replies.append(other_bus.client().request(asked, timeout_ms=60_000)))
    thread.start()
    assert server.receive(60_000) == asked
    server.reply(Reply(ok=True, text="fine", mode=Mode.TELEOP))
    thread.join()
    assert replies == [Reply(ok=True, text="fine", mode=Mode.TELEOP)]
    assert server.receive() is None


def test_no_supervisor(bus: Bus, run_dir: Path) -> None:
    with pytest.raises(TransportError, match=f"no supervisor runs in {run_dir}: start the rig with `aloha up`"):
        bus.client().request(Request(verb="arm"))


def test_a_silent_supervisor(bus: Bus, other_bus: Bus) -> None:
    bus.server()
    with pytest.raises(TransportError, match=rf"\(pid {os.getpid()}\) did not answer 'arm' within 20 ms"):
        other_bus.client().request(Request(verb="arm"), timeout_ms=20)


def test_a_second_supervisor_is_refused(bus: Bus, other_bus: Bus) -> None:
    bus.server()
    with pytest.raises(TransportError, match=f"a supervisor runs already: pid {os.getpid()} "):
        other_bus.server()


def test_what_is_no_request_is_refused_and_the_next_one_is_served(bus: Bus, run_dir: Path) -> None:
    server = bus.server()
    with zmq.Context() as context:
        for parts in ([b"rubbish"], [b"", b"rubbish"], [b"rubbish", b"rubbish"], [b"", b"", b""], [os.urandom(64)] * 3):
            with context.socket(zmq.REQ) as client:
                client.linger = 0
                client.connect(f"ipc://{run_dir}/supervisor.requests.ipc")
                client.send_multipart(parts)
                assert server.receive(200) is None
                assert client.poll(60_000)
                assert client.recv() == b""


def test_a_flood_of_what_is_no_request_does_not_keep_the_server(bus: Bus, run_dir: Path) -> None:
    server = bus.server()
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:  # waits for no answer before it sends more
        client.linger = 0
        client.connect(f"ipc://{run_dir}/supervisor.requests.ipc")
        for _ in range(3 * MOST_REFUSED):
            client.send_multipart([b"", b"rubbish"])
        answers = 0
        for turn in range(1, 4):
            assert server.receive(60_000) is None
            while answers < turn * MOST_REFUSED and client.poll(60_000):
                client.recv_multipart()
                answers += 1
            assert client.poll(0) == 0


def test_a_request_above_the_limit_never_reaches_the_server(bus: Bus, run_dir: Path) -> None:
    """libzmq ends the connection at the size that the message claims, before it makes room for it."""
    server = bus.server()
    with zmq.Context() as context, context.socket(zmq.REQ) as client, context.socket(zmq.REQ) as other:
        for each in (client, other):
            each.linger = 0
            each.connect(f"ipc://{run_dir}/supervisor.requests.ipc")
        client.send_multipart([b"", bytes((1 << 20) + 1)])
        other.send_multipart([b"", messages.encode(Request(verb="arm"))])
        assert server.receive(60_000) == Request(verb="arm")
        server.reply(Reply(ok=True, text="fine"))
        assert server.receive(200) is None
        assert client.poll(0) == 0, "not even refused: it was not read"


def test_a_message_above_the_limit_never_reaches_a_reader(bus: Bus, run_dir: Path) -> None:
    subscriber = bus.subscribe(MODE)
    head = (7).to_bytes(8, "little") + (1).to_bytes(8, "little")
    with zmq.Context() as context, context.socket(zmq.PUB) as intruder:
        intruder.linger = 0
        intruder.bind(f"ipc://{run_dir}/mode.ipc")

        def sent() -> bool:
            intruder.send(head + b"\xc1")
            return subscriber.latest() is None and subscriber.invalid > 0

        until(sent)
        while subscriber.latest() is None and subscriber._socket.poll(200):
            pass
        heard = subscriber.invalid
        for _ in range(5):
            intruder.send(head + bytes(1 << 20))
        assert not subscriber._socket.poll(500)
        assert subscriber.latest() is None
        assert subscriber.invalid == heard
    (run_dir / "mode.ipc").unlink()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("size", "count"), [(0, 720_000), (10_000, 72_000)], ids=["an hour of states", "large ones"])
def test_a_reader_that_does_not_read_costs_its_publisher_little(
    bus: Bus, spawn: Spawn, run_dir: Path, size: int, count: int
) -> None:
    """An hour of the fastest topic, counted in messages, for five readers that stand still."""
    publisher = bus.publisher(FOLLOWERS)
    message = ArmsState(
        stamp_ns=0, position=[0.1] * 14, velocity=[0.1] * 14, effort_ma=[0.1] * 14, hold_cause="x" * size
    )
    readers = [spawn(read_one_and_stop, run_dir) for _ in range(5)]

    def stopped() -> bool:
        publisher.send(message)
        return all(Path(f"/proc/{reader.pid}/stat").read_text().split(") ")[1][0] == "T" for reader in readers)

    until(stopped)
    before = resident_bytes()
    for _ in range(count):
        publisher.send(message)
    grown = resident_bytes() - before
    for reader in readers:
        os.kill(reader.pid or 0, signal.SIGCONT)
        reader.kill()
    assert grown < 5 * KEPT_BYTES + 2_000_000


def test_what_is_closed_is_forgotten(bus: Bus) -> None:
    def used() -> tuple[int, int]:
        return bus.opened, len(os.listdir("/proc/self/fd"))

    before = used()
    for _ in range(20):
        with bus.subscribe(MODE), bus.client(), bus.publisher(HEALTH), bus.server():
            assert bus.opened == before[0] + 4
    # libzmq closes a socket in a thread of its own, also those of the tests before
    until(lambda: bus.opened == before[0] and used()[1] <= before[1])


def test_a_client_outlives_its_server_and_no_old_request_is_kept(bus: Bus, run_dir: Path) -> None:
    with Bus(run_dir, CLOCK) as asking:
        client = asking.client()
        for number in range(3):
            with pytest.raises(TransportError, match="no supervisor runs"):
                client.request(Request(verb=f"lost {number}"))
            with bus.server() as server:
                replies: list[Reply] = []
                asked = Request(verb=f"asked {number}")
                thread = threading.Thread(
                    target=lambda asked=asked, to=replies: to.append(client.request(asked, 60_000))
                )  # type: ignore[misc]
                thread.start()
                found = server.receive(60_000)
                assert found is not None
                assert found.verb == f"asked {number}", "and not the one that was lost"
                server.reply(Reply(ok=True, text=str(number)))
                thread.join()
                assert [reply.text for reply in replies] == [str(number)]
            until(lambda: not client._socket.poll(0, 2))  # zmq.POLLOUT: it has noticed that the server is gone
