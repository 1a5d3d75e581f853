"""A log without a rig: followers that sweep, a policy that drives them, and what a recorder says of it."""

from pathlib import Path

import numpy as np
from mcap.records import Attachment

from aloha_runtime import messages
from aloha_runtime.flight_log import channels, mcap_file, thumbnails
from aloha_runtime.flight_log.ring import Ring
from aloha_runtime.flight_log.triggers import Event
from aloha_runtime.flight_log.writer import about
from aloha_runtime.messages import Action, ArmsState, FrameInfo, Health, Mode, ModeHeartbeat

S = 1_000_000_000
WALL = 1_780_000_000 * S
"""Wall time at which monotonic time is zero: May 2026."""
CYCLE = S // 200
TOPICS = (*messages.TOPICS, messages.health_topic("policy"), messages.camera_topic("cam_high"))
CHANNELS = channels.Channels(TOPICS, ["cam_high"])


def put(ring: Ring, topic: messages.Topic, message: messages.Message) -> None:
    stamp_ns = WALL + message.stamp_ns
    ring.add(CHANNELS.ids[channels.name_of(topic)], stamp_ns, message.seq, channels.encoded(message))


def say(ring: Ring, stamp_ns: int, level: channels.Level, who: str, text: str) -> None:
    ring.add(CHANNELS.ids[channels.LOG], WALL + stamp_ns, 1, channels.line(WALL + stamp_ns, level, who, text))


def make(path: Path, seconds: int = 6, hole: tuple[float, float] = (2.0, 2.3), everybody: bool = False) -> Path:
    """Six seconds; nothing of the followers (or of `everybody`) in `hole`; the policy sends a NaN and dies at 4 s, HOLD
    at 4.06 s."""
    ring = Ring(600 * S, 1 << 30)
    for index in range(seconds * 200):
        now, held = index * CYCLE, index * CYCLE >= int(4.06 * S)
        pose = (0.3 * np.sin(np.arange(14) + min(now, 4.06 * S) / S)).tolist()
        state = ArmsState(
            stamp_ns=now, seq=index + 1, position=pose, velocity=[0.1] * 14, effort_ma=[20.0] * 14, goal=pose
        )
        state.mode, state.held_off = (Mode.HOLD if held else Mode.POLICY), 1 << 4 if index == 700 else 0
        state.target = None if held else pose
        if not hole[0] <= now / S < hole[1]:
            put(ring, messages.FOLLOWERS, state)
        elif everybody:
            continue
        if index % 4 == 0:
            mode, cause = (
                (Mode.HOLD, "policy has been silent for 512 ms") if held else (Mode.POLICY, "policy by operator")
            )
            put(ring, messages.MODE, ModeHeartbeat(stamp_ns=now, seq=index // 4 + 1, mode=mode, cause=cause))
            if now < 4 * S:
                last = index == 796
                action = Action(stamp_ns=now, seq=index // 4 + 1, tick=index // 4, position=pose)
                if last:
                    action.position = [float("nan"), *pose[1:]]
                put(ring, messages.ACTION_POLICY, action)
                put(
                    ring,
                    TOPICS[-1],
                    FrameInfo(stamp_ns=now, seq=index, camera="cam_high", height=4, width=4, pixels=b"x"),
                )
        if index % 40 == 0 and now < 4 * S:
            health = Health(stamp_ns=now, seq=index, process="policy", pid=7, figures={"inference_ms": index / 10})
            put(ring, messages.health_topic("policy"), health)
        if index % 200 == 0:
            picture = thumbnails.jpeg(np.full((12, 16, 3), index % 255, np.uint8))
            name = channels.thumbnail_name("cam_high")
            ring.add(CHANNELS.ids[name], WALL + now, index, channels.thumbnail(WALL + now, "cam_high", picture))
            ring.seal()
    say(ring, 0, "info", "mode", "policy: policy by operator")
    say(ring, int(4.06 * S), "error", "mode", "hold: policy has been silent for 512 ms")
    say(ring, int(5.0 * S), "error", "policy", "died")
    ring.seal()
    event = Event("hold", "policy has been silent for 512 ms", WALL + int(4.06 * S), "policy")
    kept = about(event, WALL, also="policy died", rig="sim", lost="3", wall_step_s="3600.0")
    rig = Attachment(WALL, WALL, "rig.yaml", "text/yaml", b"name: sim\n")
    with path.open("wb") as file:
        mcap_file.write(file, CHANNELS, ring.since(0), kept, [rig])
    return path
