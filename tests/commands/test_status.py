"""`aloha status` against publishers of this test in a run directory of its own."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up import RIG, START_NS, followers
from rich.console import Console

from aloha_runtime import messages
from aloha_runtime.bus import Bus, Subscriber
from aloha_runtime.commands import status, watch
from aloha_runtime.config import StopInputConfig
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, Health, Mode, ModeHeartbeat
from aloha_runtime.realtime import WallClock

FIGURES = {"temperature_left_waist_c": 41.0, "temperature_left_gripper_c": 73.0, "left_incomplete": 12.0}


def publish(run_dir: Path, stop: threading.Event) -> None:
    """A supervisor in HOLD and followers with a hot gripper, as if both ran."""
    with Bus(run_dir, WallClock()) as bus:
        mode = bus.publisher(messages.MODE)
        state = bus.publisher(messages.FOLLOWERS)
        health = bus.publisher(messages.health_topic("arms@followers"))
        while not stop.wait(0.02):
            now = WallClock().now_ns()
            mode.send(ModeHeartbeat(stamp_ns=now, mode=Mode.HOLD, cause="operator: stop"))
            state.send(followers(1, Mode.HOLD, stamp_ns=now)[0])
            health.send(Health(stamp_ns=now, process="arms@followers", pid=1, message="no priority", figures=FIGURES))


@pytest.fixture
def running(run_dir: Path) -> Iterator[Path]:
    stop = threading.Event()
    thread = threading.Thread(target=publish, args=(run_dir, stop))
    thread.start()
    yield run_dir
    stop.set()
    thread.join()


def test_one_table_says_mode_processes_topics_and_servos(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (running / "health.policy.lock").touch()  # a policy that was killed
    status.status(running, once=True)
    lines = capsys.readouterr().out.splitlines()
    assert "mode HOLD" in lines[0]
    assert "operator: stop" in lines[0]
    shown = {line.split()[0]: line for line in lines if line.split()}
    assert "no priority" in shown["arms@followers"]
    assert "dead" in shown["policy"]
    assert "200" in shown["followers"]
    assert "73" in shown["gripper"]
    assert "incomplete 12" in shown["counted"]
    assert "teleop" not in shown


def test_nothing_to_show_is_one_clear_error(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "FIRST_S", 0.1)
    with pytest.raises(TransportError, match="aloha up"):
        status.status(run_dir / "absent", once=True)
    with pytest.raises(TransportError, match="nothing runs in"):
        status.status(run_dir, once=True)
    (run_dir / "rig.yaml").unlink()
    with pytest.raises(TransportError, match="nothing runs in"):
        status.status(run_dir, once=True)


def wait_for(reader: Subscriber, seq: int) -> None:
    while reader.latest().seq < seq:
        WallClock().sleep_until(WallClock().now_ns() + MS)


def test_rate_and_jitter_are_those_of_the_stamps(bus: Bus) -> None:
    seen = watch.TopicWatch(bus, messages.FOLLOWERS)
    publisher = bus.publisher(messages.FOLLOWERS)
    pauses_ms = [5, 5, 5, 7, 3, 5, 5]
    stamps = [START_NS + sum(pauses_ms[:index]) * MS for index in range(len(pauses_ms) + 1)]
    while seen.reader.latest() is None:  # until the subscription stands
        publisher.send(followers(1, stamp_ns=stamps[0])[0])
        WallClock().sleep_until(WallClock().now_ns() + 10 * MS)
    wait_for(seen.reader, publisher.seq)
    seen.reader.drain()
    for stamp in stamps:
        publisher.send(followers(1, stamp_ns=stamp)[0])
    wait_for(seen.reader, publisher.seq)
    seen.poll(stamps[-1])
    assert seen.rate_hz == pytest.approx(200.0)
    assert seen.jitter_ms == pytest.approx(2.0, abs=0.01)
    assert seen.age_ms(stamps[-1] + 4 * MS) == pytest.approx(4.0)


def test_a_silent_supervisor_is_named(run_dir: Path, bus: Bus) -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(status.picture(watch.System(bus, RIG)))
    assert "no supervisor is heard" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_physical_stop_is_shown_as_the_supervisor_sees_it(run_dir: Path, bus: Bus) -> None:
    rig = RIG.model_copy(update={"stop_input": StopInputConfig(device="/dev/input/pedal", key="KEY_B")})
    system = watch.System(bus, rig)

    def shown() -> str:
        console = Console(file=io.StringIO(), width=120)
        console.print(status.picture(system))
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert "stop input KEY_B of /dev/input/pedal   not ready, arming is refused" in shown()
    health = bus.publisher(messages.health_topic("supervisor"))
    figures = {"stop_input_ready": 1.0}
    give_up = time.monotonic() + 20
    while "pedal   ready" not in shown():
        assert time.monotonic() < give_up
        health.send(Health(stamp_ns=WallClock().now_ns(), process="supervisor", pid=1, figures=figures))
        system.poll(WallClock().now_ns())
