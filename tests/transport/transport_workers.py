"""What the other processes of these tests do, and how to wait for them."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aloha_runtime.bus import Bus, wait_any
from aloha_runtime.messages import FOLLOWERS, MODE, Action, ArmsState, Mode, ModeHeartbeat, Topic, camera_topic
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock
from aloha_runtime.rings import FramePublisher, FrameSubscriber
from aloha_runtime.time_server import TimeServer
from aloha_runtime.virtual_time import VirtualClock

PATIENCE_S = 60.0
"""How long a test waits for another process before it fails; nothing is judged by how long it took."""
PING = Topic("ping", Action, 50, 60, "pinger")
PONG = Topic("pong", Action, 50, 60, "ponger")


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test fails when it does not come true."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.002)


def heartbeat() -> ModeHeartbeat:
    return ModeHeartbeat(stamp_ns=WallClock().now_ns(), mode=Mode.IDLE)


def publish_heartbeats(run_dir: Path) -> None:
    """Publish the mode until killed."""
    publisher = Bus(run_dir, WallClock()).publisher(MODE)
    while True:
        publisher.send(heartbeat())
        time.sleep(0.002)


def read_one_and_stop(run_dir: Path) -> None:
    """Read one state of the followers and then nothing any more: the whole process stands still."""
    reader = Bus(run_dir, WallClock()).subscribe(FOLLOWERS)
    while reader.wait(WallClock().now_ns() + NS_PER_S) is None:
        pass
    os.kill(os.getpid(), signal.SIGSTOP)


def publish_frames(run_dir: Path, height: int, width: int, slots: int, pause_s: float) -> None:
    """Publish frames of one colour, the low byte of the sequence number, until killed."""
    publisher = FramePublisher(Bus(run_dir, WallClock()), camera_topic("top"), (height, width, 3), slots=slots)
    image = np.empty((height, width, 3), np.uint8)
    seq = 0
    while True:
        seq += 1
        image[:] = seq % 251
        publisher.send(image, WallClock().now_ns())
        if pause_s:
            time.sleep(pause_s)


def verify_frames(run_dir: Path, whole: int, overwritten: int, result: Path) -> None:
    """Read frames of `publish_frames` until both counts are reached; write how many were torn."""
    with Bus(run_dir, WallClock()) as bus:
        frames = FrameSubscriber(bus, camera_topic("top"))
        good = torn = 0
        give_up = time.monotonic() + PATIENCE_S
        while (good < whole or frames.overwritten < overwritten) and time.monotonic() < give_up:
            wait_any([frames.messages], WallClock().now_ns() + NS_PER_S // 10)
            for info in reversed(frames.drain()):  # the newest first: the others are late anyway
                image = frames.pixels(info)
                if image is not None:
                    intact = bool((image == info.seq % 251).all())
                    good, torn = good + intact, torn + (not intact)
        result.write_text(json.dumps({"good": good, "torn": torn, "overwritten": frames.overwritten}))


def serve_time(run_dir: Path, expected: list[str]) -> None:
    """Grant virtual time until killed or everybody has left."""
    server = TimeServer(run_dir, expected)
    server.run(lambda: not server.missing and not server.participants)
    server.close()


def ping(run_dir: Path, steps: int, log: Path) -> None:
    """Every 20 ms publish a number; note what has come back by then."""
    clock = VirtualClock(run_dir, "pinger", timeout_s=PATIENCE_S)
    with Bus(run_dir, clock) as bus:
        publisher, answers = bus.publisher(PING), bus.subscribe(PONG, depth=100)
        pacer = Pacer(clock, 20_000_000)
        lines = []
        for _ in range(steps):
            beat = pacer.wait()
            seen = [(answer.tick, answer.stamp_ns, answer.seq) for answer in answers.drain()]
            lines.append(f"{clock.now_ns()} {beat} {seen}")
            publisher.send(Action(stamp_ns=0, tick=beat.index, position=[0.0] * 14), stamp=True)
        log.write_text("\n".join(lines))
        clock.sleep_until(clock.now_ns() + NS_PER_S)  # the other one ends first
    clock.close()


def pong(run_dir: Path, steps: int, log: Path) -> None:
    """Every 7 ms, and whenever a number comes, answer what came; publish the arms' state every time."""
    clock = VirtualClock(run_dir, "ponger", timeout_s=PATIENCE_S)
    with Bus(run_dir, clock) as bus:
        publisher, numbers = bus.publisher(PONG), bus.subscribe(PING, depth=100)
        states = bus.publisher(FOLLOWERS)
        lines = []
        for _ in range(steps):
            number = numbers.wait(clock.now_ns() + 7_000_000)
            lines.append(f"{clock.now_ns()} {None if number is None else (number.tick, number.seq)}")
            states.send(ArmsState(stamp_ns=0, position=[0.0] * 14, velocity=[], effort_ma=[]), stamp=True)
            if number is not None:
                publisher.send(Action(stamp_ns=0, tick=-number.tick, position=[]), stamp=True)
        log.write_text("\n".join(lines))
    clock.close()


def hold_time(run_dir: Path, name: str) -> None:
    """Take part in virtual time and never give a grant back."""
    clock = VirtualClock(run_dir, name)
    clock.sleep_until(clock.now_ns() + 1)
    while True:
        time.sleep(1)
