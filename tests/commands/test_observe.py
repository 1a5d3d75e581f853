"""The observer on a stack made up of one process: this one."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from made_up import RIG, followers, policy_tick

from aloha_runtime import messages
from aloha_runtime.bus import Bus, Publisher
from aloha_runtime.commands.observe import Observer, observed_topics
from aloha_runtime.config import RigConfig
from aloha_runtime.processes.table import Job, Process, processes
from aloha_runtime.realtime import WallClock


@dataclass
class FakeStack:
    """What an observer needs of a stack."""

    run_dir: Path
    rig: RigConfig = RIG
    table: list[Process] = field(default_factory=lambda: processes(RIG, Job.DEPLOY, "demo"))
    clock: WallClock = field(default_factory=WallClock)

    def pid(self, _name: str) -> int:
        return os.getpid()


def connected(observer: Observer, publisher: Publisher, message: messages.Message) -> None:
    """Sends a message every 10 ms until the observer's subscription stands and the first ones have arrived."""
    clock = WallClock()
    while observer.latest(publisher.topic) is None:
        publisher.send(message)
        clock.sleep_until(clock.now_ns() + 10 * messages.MS)
    caught_up(observer, publisher)


def caught_up(observer: Observer, publisher: Publisher) -> None:
    """Waits until the observer has what was sent last."""
    clock = WallClock()
    while observer.latest(publisher.topic).seq < publisher.seq:
        clock.sleep_until(clock.now_ns() + 10 * messages.MS)


@pytest.fixture
def stack(run_dir: Path) -> Any:
    return cast("Any", FakeStack(run_dir))


def test_every_topic_of_a_running_process_is_observed_and_no_other(stack: Any) -> None:
    names = {topic.name for topic in observed_topics(stack)}
    assert {"followers", "policy_tick", "camera.cam_high", "health.chain@leader_left"} <= names
    assert names.isdisjoint({"action_teleop", "action_replay", "health.teleop"})


def test_what_comes_after_the_mark_is_in_the_log(stack: Any, bus: Bus) -> None:
    publisher = bus.publisher(messages.POLICY_TICK)
    with Observer(stack, "demo") as observer:
        connected(observer, publisher, policy_tick(1))
        observer.mark()
        for tick in range(10, 15):
            publisher.send(policy_tick(tick))
        caught_up(observer, publisher)
        log = observer.log()
    assert [tick.tick for tick in log.ticks] == list(range(10, 15))
    assert log.flows["policy_tick"].received == 5
    assert log.flows["policy_tick"].dropped == 0
    assert log.end_ns > log.start_ns
    assert (log.task, log.seed, log.policy) == ("transfer_cube", 7, "demo")


def test_lost_messages_are_counted_from_the_mark_on(stack: Any, bus: Bus) -> None:
    publisher = bus.publisher(messages.FOLLOWERS)
    state = followers(1)[0]
    with Observer(stack) as observer:
        connected(observer, publisher, state)
        publisher.seq += 100
        publisher.send(state)
        caught_up(observer, publisher)
        observer.mark()
        publisher.send(state)
        publisher.seq += 3
        publisher.send(state)
        caught_up(observer, publisher)
        assert observer.log().flows["followers"].dropped == 3


def test_usage_covers_the_span_alone(stack: Any) -> None:
    with Observer(stack) as observer:
        sum(index * index for index in range(1_000_000))  # work before the mark
        observer.mark()
        usage = observer.log().usage
    assert set(usage) == {process.name for process in stack.table}
    assert all(used.cpu_percent >= 0 for used in usage.values())
    assert all(used.rss_mb > 1 for used in usage.values())
