"""The rig of the recording benchmark: four cameras, or the loop that moves the arms. Run as a module.

    python -m aloha_runtime.commands.bench_record_worker cameras|control RIG RUN_DIR PICTURES

Both go on until standard input is closed; the control loop then writes one line of JSON for every line that it had
read: the times (ms) of its cycles since the line before.
"""

import json
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.messages import MS, ArmsState, Health, Mode, ModeHeartbeat
from aloha_runtime.realtime import NS_PER_S, Pacer, WallClock
from aloha_runtime.rings import FramePublisher
from aloha_runtime.robot import DOF, START_POSE, pose_vector, tick_of

FPS = 50
ARMS_NS = 5_000_000
PIXELS_A_FRAME = 4
"""The pictures pass by sideways, as under a moving wrist."""


def asked() -> str | None:
    """A line of standard input if one is there; None when it was closed, "" when nothing is there."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return ""
    return sys.stdin.readline() or None


def cameras(rig: config.RigConfig, run_dir: Path, pictures: Path) -> None:
    """A frame of every camera each 1/50 s, just before the tick."""
    wide = np.load(pictures)
    clock = WallClock()
    with Bus(run_dir, clock) as bus:
        publishers = [
            FramePublisher(bus, messages.camera_topic(name, camera.fps), (*camera.shape, 3))
            for name, camera in rig.cameras.items()
        ]
        pacer = Pacer(clock, NS_PER_S // FPS, phase_ns=-2 * MS)
        while asked() is not None:
            beat = pacer.wait()
            for number, (publisher, camera) in enumerate(zip(publishers, rig.cameras.values(), strict=True)):
                start = PIXELS_A_FRAME * beat.index % (wide.shape[2] - camera.width)
                image = np.ascontiguousarray(wide[number, :, start : start + camera.width])
                publisher.send(image, clock.now_ns())


def control(_rig: config.RigConfig, run_dir: Path, _pictures: Path) -> None:
    """States of both pairs 200 times a second, the mode with them: what the arms do for a recorder."""
    clock = WallClock()
    times: list[float] = []
    with Bus(run_dir, clock) as bus:
        pairs = [bus.publisher(messages.FOLLOWERS), bus.publisher(messages.LEADERS)]
        mode, health = bus.publisher(messages.MODE), bus.publisher(messages.health_topic("arms@followers"))
        pacer = Pacer(clock, ARMS_NS)
        while (line := asked()) is not None:
            if line:
                sys.stdout.write(json.dumps(times) + "\n")
                sys.stdout.flush()
                times = []
            now_ns = pacer.wait().deadline_ns
            started = time.perf_counter_ns()
            swing = pose_vector(START_POSE, 0.5) + 0.2 * np.sin(2 * np.pi * now_ns / NS_PER_S)
            for pair in pairs:
                pair.send(_state(now_ns, swing))
            mode.send(ModeHeartbeat(stamp_ns=now_ns, mode=Mode.TELEOP))
            times.append((time.perf_counter_ns() - started) / MS)
            if pacer.beats % 40 == 0:
                health.send(Health(stamp_ns=now_ns, process="arms@followers", pid=0))


def _state(now_ns: int, place: Sequence[float] | np.ndarray) -> ArmsState:
    numbers = np.asarray(place).tolist()
    return ArmsState(
        stamp_ns=now_ns,
        position=numbers,
        velocity=[0.0] * DOF,
        effort_ma=[0.0] * DOF,
        goal=numbers,
        target=numbers,
        action_tick=tick_of(now_ns),
        mode=Mode.TELEOP,
    )


if __name__ == "__main__":
    role, rig_file, folder, picture_file = sys.argv[1:]
    (cameras if role == "cameras" else control)(config.load(rig_file), Path(folder), Path(picture_file))
