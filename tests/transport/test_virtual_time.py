"""Virtual time: the same run every time, whatever the machine does, and nobody's death stops it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from transport_workers import PING, PONG, hold_time, ping, pong, serve_time, until

from aloha_runtime import messages
from aloha_runtime.bus import RECORDER, Bus
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, Action, Mode, RecorderState, Reply, Request
from aloha_runtime.realtime import NS_PER_S, Pacer
from aloha_runtime.time_server import TimeServer, time_served
from aloha_runtime.virtual_time import EPOCH_NS, FOREVER_NS, VirtualClock

Spawn = Callable[..., BaseProcess]
Serve = Callable[..., TimeServer]


@pytest.fixture
def serve(run_dir: Path) -> Iterator[Serve]:
    """Serve time from a thread."""
    ended = threading.Event()
    started: list[tuple[TimeServer, threading.Thread]] = []

    def start(expected: list[str], stall_s: float = 120.0) -> TimeServer:
        server = TimeServer(run_dir, expected, stall_s)
        thread = threading.Thread(target=server.run, args=(ended.is_set,))
        thread.start()
        started.append((server, thread))
        return server

    yield start
    ended.set()
    for server, thread in started:
        thread.join()
        server.close()


def run_all(*loops: Callable[[], None]) -> None:
    """Run each loop in a thread of its own; the first failure fails the test."""
    failures: list[BaseException] = []

    def guarded(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def action(tick: int) -> Action:
    return Action(stamp_ns=0, tick=tick, position=[])


def test_two_processes_exchange_messages_for_1000_steps_twice_with_identical_logs(
    run_dir: Path, tmp_path: Path, spawn: Spawn
) -> None:
    logs = []
    for attempt in range(2):
        files = tmp_path / f"ping{attempt}", tmp_path / f"pong{attempt}"
        processes = [
            spawn(serve_time, run_dir, ["pinger", "ponger"]),
            spawn(ping, run_dir, 1000, files[0]),
            spawn(pong, run_dir, 3000, files[1]),
        ]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        logs.append([file.read_text() for file in files])
    assert logs[0] == logs[1]
    steps = logs[0][0].splitlines()
    assert len(steps) == 1000
    assert all("[]" not in step for step in steps[3:]), "every number of the last step was answered within the step"


def test_grants_go_by_deadline_then_priority_then_name(run_dir: Path, serve: Serve) -> None:
    participants = [("b", 0, 20), ("a", 0, 20), ("c", -1, 30), ("d", 5, 10)]
    serve([name for name, _, _ in participants])
    order: list[tuple[int, int, str]] = []

    def loop(name: str, priority: int, period_ns: int) -> None:
        clock = VirtualClock(run_dir, name, priority)
        pacer = Pacer(clock, period_ns)
        for _ in range(600 // period_ns):
            pacer.wait()
            order.append((clock.now_ns(), priority, name))
        clock.close()

    run_all(*(lambda p=participant: loop(*p) for participant in participants))
    assert len(order) == 30 + 30 + 20 + 60
    assert order == sorted(order)
    assert order[0] == (EPOCH_NS, 0, "a"), "time starts at the same instant in every run"


def test_only_one_runs_at_any_moment(run_dir: Path, serve: Serve) -> None:
    names = ["a", "b", "c"]
    serve(names)
    running: list[str] = []
    overlaps: list[list[str]] = []

    def loop(name: str) -> None:
        clock = VirtualClock(run_dir, name)
        for _ in range(100):
            clock.sleep_until(clock.now_ns() + MS)
            running.append(name)
            os.sched_yield()
            if running != [name]:
                overlaps.append(list(running))
            running.remove(name)
        clock.close()

    run_all(*(lambda n=name: loop(n) for name in names))
    assert overlaps == []


def test_a_slow_reader_has_received_all_that_was_published_before_its_turn(run_dir: Path, serve: Serve) -> None:
    serve(["writer", "reader"])
    counts: list[int] = []

    def write() -> None:
        clock = VirtualClock(run_dir, "writer")
        with Bus(run_dir, clock) as bus:
            publisher = bus.publisher(PING)
            for index in range(3000):
                clock.sleep_until(clock.now_ns() + MS)
                publisher.send(action(index))
            clock.sleep_until(clock.now_ns() + NS_PER_S)
        clock.close()

    def read() -> None:
        clock = VirtualClock(run_dir, "reader")
        with Bus(run_dir, clock) as bus:
            subscriber = bus.subscribe(PING, depth=2000)
            for second in range(1, 4):
                clock.sleep_until(EPOCH_NS + second * NS_PER_S)
                counts.append(len(subscriber.drain()))
            assert subscriber.dropped == 0
        clock.close()

    run_all(write, read)
    assert counts == [999, 1000, 1000], "at each instant `reader` comes before `writer`"


def test_a_second_subscription_is_promised_only_what_comes_after_it(run_dir: Path, serve: Serve) -> None:
    serve(["sender", "reader"])
    seen: list[list[int]] = []

    def sender() -> None:
        clock = VirtualClock(run_dir, "sender", 0)
        with Bus(run_dir, clock) as bus:
            actions = bus.publisher(PING)
            for tick in range(6):
                clock.sleep_until(EPOCH_NS + (tick + 1) * MS)
                actions.send(action(tick))
        clock.close()

    def reader() -> None:
        clock = VirtualClock(run_dir, "reader", 1)
        with Bus(run_dir, clock) as bus:
            first = bus.subscribe(PING, depth=10)
            clock.sleep_until(EPOCH_NS + 3 * MS)
            seen.append([message.tick for message in first.drain()])
            second = bus.subscribe(PING, depth=10)
            seen.append([message.tick for message in second.drain()])  # waits for nothing
            clock.sleep_until(EPOCH_NS + 5 * MS)
            seen.extend([message.tick for message in each.drain()] for each in (first, second))
            assert first.dropped == second.dropped == 0
        clock.close()

    run_all(sender, reader)
    assert seen == [[0, 1, 2], [], [3, 4], [3, 4]]


def test_waiting_for_a_message_wakes_at_the_instant_of_its_publication(run_dir: Path, serve: Serve) -> None:
    serve(["publisher", "waiter"])
    woken: list[tuple[int, int | None]] = []

    def publish() -> None:
        clock = VirtualClock(run_dir, "publisher")
        with Bus(run_dir, clock) as bus:
            publisher = bus.publisher(PING)
            for tick in (7, 19, 50):
                clock.sleep_until(EPOCH_NS + tick)
                publisher.send(action(tick))
            clock.sleep_until(EPOCH_NS + 1000)
        clock.close()

    def wait() -> None:
        clock = VirtualClock(run_dir, "waiter")
        with Bus(run_dir, clock) as bus:
            subscriber = bus.subscribe(PING)
            for _ in range(4):
                message = subscriber.wait(clock.now_ns() + 20)
                woken.append((clock.now_ns() - EPOCH_NS, None if message is None else message.tick))
        clock.close()

    run_all(publish, wait)
    assert woken == [(7, 7), (19, 19), (39, None), (50, 50)]


def test_a_publisher_restarted_in_virtual_time_reaches_its_subscriber(run_dir: Path, serve: Serve) -> None:
    serve(["first", "reader"])
    seen: list[tuple[int, int]] = []

    def publish(name: str, tick: int) -> None:
        clock = VirtualClock(run_dir, name)
        with Bus(run_dir, clock) as bus:
            publisher = bus.publisher(PING)
            for _ in range(5):
                clock.sleep_until(clock.now_ns() + MS)
                publisher.send(action(tick))
            clock.sleep_until(clock.now_ns() + MS)
        clock.close()

    def publish_twice() -> None:
        publish("first", 1)
        publish("second", 2)

    def read() -> None:
        clock = VirtualClock(run_dir, "reader")
        with Bus(run_dir, clock) as bus:
            subscriber = bus.subscribe(PING, depth=100)
            while len(seen) < 10:
                clock.sleep_until(clock.now_ns() + MS)
                seen.extend((message.tick, message.seq) for message in subscriber.drain())
            assert (subscriber.restarts, subscriber.dropped) == (1, 0)
        clock.close()

    run_all(publish_twice, read)
    assert seen == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5)]


def test_requests_in_virtual_time_are_answered_at_the_supervisors_next_turn(run_dir: Path, serve: Serve) -> None:
    serve(["operator", "supervisor"])
    answers: list[tuple[int, str]] = []

    def supervise() -> None:
        clock = VirtualClock(run_dir, "supervisor")
        with Bus(run_dir, clock) as bus:
            server = bus.server()
            pacer = Pacer(clock, 20 * MS)
            for _ in range(30):
                pacer.wait()
                while (request := server.receive()) is not None:
                    server.reply(Reply(ok=True, text=f"{request.verb} at {clock.now_ns() - EPOCH_NS}", mode=Mode.IDLE))
            clock.sleep_until(clock.now_ns() + NS_PER_S)
        clock.close()

    def operate() -> None:
        clock = VirtualClock(run_dir, "operator", priority=1)
        with Bus(run_dir, clock) as bus:
            client = bus.client()
            clock.sleep_until(EPOCH_NS + 5)
            for index in range(20):
                clock.sleep_until(clock.now_ns() + 3 * MS)
                reply = client.request(Request(verb=f"ask{index}"))
                answers.append((clock.now_ns() - EPOCH_NS, reply.text))
            clock.sleep_until(EPOCH_NS + 600 * MS)
            with pytest.raises(TransportError, match="did not answer 'late' within 500 ms"):
                client.request(Request(verb="late"), timeout_ms=500)
        clock.close()

    run_all(supervise, operate)
    assert answers == [((index + 1) * 20 * MS, f"ask{index} at {(index + 1) * 20 * MS}") for index in range(20)]


def test_a_topic_and_a_server_of_one_name_do_not_wait_for_each_other(
    run_dir: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serve(["operator", "recorder"])
    heard: list[str] = []

    def recorder() -> None:
        clock = VirtualClock(run_dir, "recorder")
        with Bus(run_dir, clock) as bus:
            server, state = bus.server(RECORDER), bus.publisher(messages.RECORDER)
            for _ in range(10):
                clock.sleep_until(clock.now_ns() + 20 * MS)
                while (request := server.receive()) is not None:
                    server.reply(Reply(ok=True, text=request.verb))
                state.send(RecorderState(stamp_ns=clock.now_ns(), phase="idle"))
        clock.close()

    def operate() -> None:
        clock = VirtualClock(run_dir, "operator")
        with Bus(run_dir, clock) as bus:
            client, reader = bus.client(RECORDER), bus.subscribe(messages.RECORDER)
            clock.sleep_until(clock.now_ns() + 50 * MS)
            heard.append(client.request(Request(verb="next")).text)
            assert reader.latest() is not None
        clock.close()

    run_all(recorder, operate)
    assert heard == ["next"]
    assert "goes on without" not in caplog.text


def test_a_killed_participant_does_not_stop_time_even_while_it_holds_it(
    run_dir: Path, serve: Serve, spawn: Spawn
) -> None:
    server = serve(["holder", "other"])
    holder = spawn(hold_time, run_dir, "holder")
    killer = threading.Timer(0.0, lambda: (until(lambda: server.grants >= 3), holder.kill()))
    killer.start()
    clock = VirtualClock(run_dir, "other")
    for _ in range(100):
        clock.sleep_until(clock.now_ns() + MS)
    assert clock.now_ns() == EPOCH_NS + 100 * MS
    assert server.participants == ["other"]
    killer.join()
    clock.close()


def test_a_participant_that_never_returns_is_expelled(
    run_dir: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serve(["stuck", "other"], stall_s=0.3)
    stuck: list[VirtualClock] = []
    joined = threading.Thread(target=lambda: stuck.append(VirtualClock(run_dir, "stuck", priority=-1)))
    joined.start()
    clock = VirtualClock(run_dir, "other")
    joined.join()
    clock.sleep_until(clock.now_ns() + NS_PER_S)
    assert f"stuck (pid {os.getpid()}) kept virtual time for 0 s: expelled" in caplog.text
    with pytest.raises(TransportError, match="virtual time of stuck ended"):
        stuck[0].sleep_until(FOREVER_NS)
    stuck[0].close()
    clock.close()


def test_who_joins_later_starts_at_the_time_it_then_is(run_dir: Path, serve: Serve) -> None:
    serve(["early"])
    early = VirtualClock(run_dir, "early")
    early.sleep_until(EPOCH_NS + 500)
    joined: list[int] = []

    def late() -> None:
        clock = VirtualClock(run_dir, "late")
        joined.append(clock.now_ns())
        clock.close()

    thread = threading.Thread(target=late)
    thread.start()
    while not joined:
        early.sleep_until(early.now_ns() + 1)
    assert EPOCH_NS + 500 <= joined[0] <= early.now_ns()
    thread.join()
    early.close()


def test_a_name_is_taken_once(run_dir: Path, serve: Serve) -> None:
    serve(["arms"])
    clock = VirtualClock(run_dir, "arms")
    with pytest.raises(TransportError, match=f"arms takes part in virtual time already: pid {os.getpid()}"):
        VirtualClock(run_dir, "arms")
    clock.sleep_until(clock.now_ns() + 1)
    clock.close()


def test_the_end_of_the_server_ends_its_participants(run_dir: Path, spawn: Spawn) -> None:
    server = spawn(serve_time, run_dir, ["a"])
    clock = VirtualClock(run_dir, "a", timeout_s=60)
    os.kill(server.pid or 0, signal.SIGKILL)
    with pytest.raises(TransportError, match="virtual time of a ended"):
        clock.sleep_until(clock.now_ns() + 1)
    clock.close()
    server.join()
    assert not time_served(run_dir)


def test_no_server(run_dir: Path) -> None:
    with pytest.raises(TransportError, match="no virtual time is served"):
        VirtualClock(run_dir, "a", timeout_s=0.0)


def test_a_second_server_is_refused(run_dir: Path, serve: Serve) -> None:
    serve([])
    assert time_served(run_dir)
    with pytest.raises(TransportError, match=f"served in {run_dir} already: pid {os.getpid()}"):
        TimeServer(run_dir)


def test_a_subscription_closed_twice_does_not_hide_a_new_one(run_dir: Path, serve: Serve) -> None:
    """The publisher waits for tokens it has heard of: one it never hears of would miss messages."""
    serve(["publisher", "reader"])
    seen: list[str] = []

    def publisher() -> None:
        clock = VirtualClock(run_dir, "publisher")
        with Bus(run_dir, clock) as bus:
            topic = bus.publisher(PING)
            clock.sleep_until(EPOCH_NS + 10 * MS)
            seen.extend(sorted(clock.tokens(topic.topic.name)))
        clock.close()

    def reader() -> None:
        clock = VirtualClock(run_dir, "reader")
        clock.subscribe(PING.name, "old")
        clock.sleep_until(EPOCH_NS + 1 * MS)
        clock.unsubscribe("old")
        clock.subscribe(PING.name, "new")
        clock.unsubscribe("old")
        clock.sleep_until(EPOCH_NS + 20 * MS)
        clock.close()

    run_all(publisher, reader)
    assert seen == ["new"]


def test_a_subscriber_that_dies_does_not_stop_its_publisher(run_dir: Path, serve: Serve) -> None:
    serve(["writer", "reader"])
    sent: list[int] = []

    def write() -> None:
        clock = VirtualClock(run_dir, "writer")
        with Bus(run_dir, clock) as bus:
            publisher = bus.publisher(PONG)
            for index in range(50):
                clock.sleep_until(clock.now_ns() + MS)
                publisher.send(action(index))
                sent.append(index)
        clock.close()

    def read() -> None:
        clock = VirtualClock(run_dir, "reader")
        bus = Bus(run_dir, clock)
        bus.subscribe(PONG)
        clock.sleep_until(clock.now_ns() + 10 * MS)
        clock.close()  # as the kernel does when a process dies: the clock's connection ends, nothing is unsubscribed
        bus.close()

    run_all(write, read)
    assert len(sent) == 50
