"""The process itself on a real bus: it hears, notices, writes; killed, starved of its disk, asked by a person."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from aloha_runtime import config, messages
from aloha_runtime.bus import FLIGHT, Bus
from aloha_runtime.flight_log import shelf
from aloha_runtime.flight_log.channels import LogLine
from aloha_runtime.flight_log.reader import FlightLog
from aloha_runtime.messages import ArmsState, Health, Mode, ModeHeartbeat, Request
from aloha_runtime.realtime import WallClock
from aloha_runtime.rings import FramePublisher
from aloha_runtime.run_directory import RunDirectory

PATIENCE_S = 60
AFTER_S = 0.3


class Rig:
    """Publishers of a rig in this process, and its recorder as a process of its own."""

    def __init__(self, bus: Bus, folder: Path, tmp_path: Path, **wishes: object) -> None:
        self.folder, self.bus = folder, bus
        data = yaml.safe_load(config.find("sim").read_text())
        flight = {"folder": str(folder), "after_s": AFTER_S, "thumbnails_hz": 5, **wishes}
        self.rig_file = tmp_path / "rig.yaml"
        self.rig_file.write_text(yaml.safe_dump({**data, "flight": flight}))
        self.followers = bus.publisher(messages.FOLLOWERS)
        self.mode = bus.publisher(messages.MODE)
        self.health = {name: bus.publisher(messages.health_topic(name)) for name in ("supervisor", "policy")}
        self.camera = FramePublisher(bus, messages.camera_topic("cam_high", 50), (120, 160, 3))
        self.recorder = bus.subscribe(messages.health_topic("flight"))
        self.silent: set[str] = set()
        self.said, self.cause = Mode.POLICY, "policy by operator"
        self.order_ns = 0
        self.sent = 0
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """The recorder; returns when it is heard and listens."""
        words = ["flight", "--rig", str(self.rig_file), "--run-dir", str(self.bus.run_dir)]
        child = subprocess.Popen([sys.executable, "-m", "aloha_runtime.processes.flight", *words])
        self.children.append(child)
        self.until(lambda: (report := self.recorder.latest()) is not None and report.pid == child.pid)
        return child

    def say(self) -> None:
        """One cycle of everybody."""
        now = time.monotonic_ns()
        still = [0.1] * 14
        state = ArmsState(stamp_ns=now, position=still, velocity=still, effort_ma=still, goal=still, mode=self.said)
        self.followers.send(state)
        self.sent += 1
        self.camera.send(np.full((120, 160, 3), 90, np.uint8), now)
        if "supervisor" not in self.silent:
            self.mode.send(ModeHeartbeat(stamp_ns=now, mode=self.said, cause=self.cause, order_ns=self.order_ns))
        for name, publisher in self.health.items():
            if name not in self.silent:
                publisher.send(Health(stamp_ns=now, process=name, pid=os.getpid()))

    def change(self, mode: Mode, cause: str) -> None:
        """What the supervisor says from now on."""
        self.said, self.cause, self.order_ns = mode, cause, time.monotonic_ns()

    def until(self, condition: object) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < give_up, [path.name for path in self.folder.glob("*")]
            self.say()
            time.sleep(0.02)

    def logs(self, kind: str) -> list[Path]:
        return [path for path in shelf.logs(self.folder) if shelf.kind_of(path) == kind]

    def log(self, kind: str) -> FlightLog:
        """The first log of a kind, once there is one."""
        self.until(lambda: self.logs(kind))
        return FlightLog(self.logs(kind)[0])

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with RunDirectory(tmp_path / "run") as directory, Bus(directory.path, WallClock()) as bus:
        made = Rig(bus, tmp_path / "logs", tmp_path)
        yield made
        for child in made.children:
            child.kill()
            child.wait()


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    assert child.wait(PATIENCE_S) == 0


def test_a_hold_leaves_a_log_with_what_came_before_and_after(rig: Rig) -> None:
    child = rig.start()
    rig.run(0.5)
    rig.change(Mode.HOLD, "guard: left gripper comes within 4 mm of table")
    with rig.log("hold") as log:
        about = log.about
        assert (about.cause, about.mode, about.rig) == (rig.cause, "policy", "sim")
        states = list(log.messages("/followers", ArmsState))
        modes = [state.mode for _, state in states]
        assert {Mode.POLICY, Mode.HOLD} == set(modes)
        assert modes == sorted(modes, key=lambda mode: mode == Mode.HOLD)
        assert [state.seq for _, state in states] == list(range(states[0][1].seq, states[-1][1].seq + 1)), (
            "none is missing"
        )
        assert states[-1][0] > about.event_ns
        assert abs(about.event_ns - time.clock_gettime_ns(time.CLOCK_REALTIME)) < PATIENCE_S * 1e9
        assert log.counts()["/thumbnail/cam_high"] >= 1
    end(child)
    assert {path.suffix for path in rig.folder.iterdir() if path.name != shelf.INDEX} == {".mcap"}, (
        "no ring is left after a clean end"
    )


def test_a_log_begins_where_the_one_before_ended_and_a_routine_leaves_none(rig: Rig) -> None:
    child = rig.start()
    rig.run(0.5)
    rig.change(Mode.HOLD, "guard: left gripper comes within 4 mm of table")
    rig.log("hold").close()
    rig.change(Mode.TELEOP, "teleop by operator")
    rig.run(0.5)
    rig.change(Mode.HOLD, "routine stop by operator")
    rig.run(4 * AFTER_S)
    assert [shelf.kind_of(path) for path in shelf.logs(rig.folder)] == ["hold"]
    rig.change(Mode.TELEOP, "teleop by operator")
    rig.run(0.2)
    rig.change(Mode.HOLD, "stop by operator")
    with rig.log("hold") as first, rig.log("stop") as second:
        assert (first.about.continues, second.about.continues) == ("", first.path.name)
        one, two = ([state.seq for _, state in log.messages("/followers", ArmsState)] for log in (first, second))
        assert two[0] == one[-1] + 1, "nothing twice, nothing lost"
        routine = [line.message for _, line in second.messages("/log", LogLine)]
        assert "hold: routine stop by operator" in routine
    end(child)


def test_a_supervisor_that_dies_is_an_event_and_the_recorder_goes_on(rig: Rig) -> None:
    child = rig.start()
    rig.run(0.3)
    rig.silent.add("supervisor")
    with rig.log("stalled") as log:  # its lock is held by this test, which lives
        assert log.about.cause.startswith("supervisor has been silent for 1")
    assert child.poll() is None
    rig.silent.clear()
    rig.change(Mode.FAULT, "arms@followers: left elbow: overload")
    with rig.log("fault") as log:
        told = [line.message for _, line in log.messages("/log", LogLine)]
        assert "is back" in told
    end(child)


def test_a_recorder_that_is_killed_leaves_all_but_its_last_second(rig: Rig) -> None:
    child = rig.start()
    rig.until(lambda: sum(path.stat().st_size for path in rig.folder.glob(".ring-*.0.mcap")) > 40_000)
    sent = rig.sent
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    second = rig.start()
    with rig.log("recovered") as log:
        kept = [state.seq for _, state in log.messages("/followers", ArmsState)]
    assert kept == list(range(kept[0], kept[-1] + 1))
    newest_s = (sent - kept[-1]) * 0.02
    assert newest_s < 3, "a second of messages, and what waited in the sockets"
    rig.change(Mode.HOLD, "stop by operator")
    rig.log("stop").close()
    end(second)


def test_a_person_gets_a_log_at_once_and_is_told_when_there_is_none(rig: Rig, tmp_path: Path) -> None:
    child = rig.start()
    rig.until(lambda: (report := rig.recorder.latest()) is not None and report.figures["ring_mb"] > 0.01)
    client = rig.bus.client(FLIGHT)
    reply = client.request(Request(verb="save", argument="odd noise", sender="operator"), timeout_ms=PATIENCE_S * 1000)
    assert reply.ok
    assert Path(reply.text).name.endswith("_saved_odd-noise.mcap")
    with FlightLog(Path(reply.text)) as log:
        assert log.about.kind == "saved"
        assert log.counts()["/followers"] > 0
    assert not client.request(Request(verb="explode"), timeout_ms=PATIENCE_S * 1000).ok
    rig.folder.rename(tmp_path / "elsewhere")
    rig.folder.write_text("a file in the way")
    reply = client.request(Request(verb="save", sender="operator"), timeout_ms=PATIENCE_S * 1000)
    assert not reply.ok
    assert "File exists" in reply.text
    rig.until(lambda: (report := rig.recorder.latest()) is not None and "a log cannot be written" in report.message)
    assert child.poll() is None
    rig.folder.unlink()
    reply = client.request(Request(verb="save", sender="operator"), timeout_ms=PATIENCE_S * 1000)
    assert reply.ok, reply.text
    end(child)


def test_arms_that_were_left_in_motion_are_in_a_log(rig: Rig) -> None:
    child = rig.start()
    rig.run(0.3)
    end(child)
    (path,) = rig.logs("ended")
    with FlightLog(path) as log:
        assert log.about.cause == "the system was ended in policy"
