"""Faults of a camera: its picture freezes, it stalls, it is unplugged, its process is killed or stopped.

The policy looks through it. What it sends must come from fresh pictures or not at all, and HOLD must name the camera.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from aloha_runtime import messages
from aloha_runtime.commands.faults.motion import Motion, scenario
from aloha_runtime.commands.faults.pictures import Source
from aloha_runtime.commands.faults.rig import FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.messages import MS, Action, FrameInfo

CAMERA = "cam_high"
SIZE = (48, 64)
ALLOWED_MS = 100.0 + 200.0 + 40.0
"""A picture may be 100 ms old when the network gets it (`max_age_ms`); its chunk goes on for the ten ticks after which
the supervisor holds; and two ticks to compute and to be heard."""
GONE_S = 1.0
BACK_WITHIN_S = 10.0


class CameraRig(FaultRig):
    """The fault rig with one camera, whose source can be disturbed."""

    def __init__(self, source: Source) -> None:
        super().__init__({CAMERA: source.url}, SIZE)
        self.source = source

    def __enter__(self) -> "CameraRig":
        super().__enter__()
        self.frames = self.stack.bus.subscribe(messages.camera_topic(CAMERA), depth=100)
        return self

    def oldest_picture_ms(self, since_ns: int) -> float:
        """Age of the oldest part of an observation behind an action, by the actions heard since an instant."""
        actions: list[Action] = [action for action in self.acted if action.stamp_ns >= since_ns]
        return max(((one.stamp_ns - one.observation_stamp_ns) / MS for one in actions), default=0.0)


@contextmanager
def camera_rig() -> Iterator[CameraRig]:
    with Source(*SIZE) as source, CameraRig(source) as rig:
        yield rig


def frozen(rig: CameraRig, _chance: Random) -> tuple[int, str]:
    rig.source.frozen = True
    return time.monotonic_ns(), CAMERA


def stalled(rig: CameraRig, _chance: Random) -> tuple[int, str]:
    rig.source.stalled = True
    return time.monotonic_ns(), CAMERA


def killed(rig: CameraRig, _chance: Random) -> tuple[int, str]:
    return rig.kill(f"camera@{CAMERA}"), CAMERA


def stopped(rig: CameraRig, _chance: Random) -> tuple[int, str]:
    return rig.kill(f"camera@{CAMERA}", signal.SIGSTOP), CAMERA


def mended(rig: CameraRig, look: Look) -> str:
    """The camera is well again; no action came from a picture that was too old."""
    rig.source.frozen = rig.source.stalled = False
    with_process = rig.pid(f"camera@{CAMERA}")
    if os.path.exists(f"/proc/{with_process}"):
        os.kill(with_process, signal.SIGCONT)
    age_ms = rig.oldest_picture_ms(look.fault_ns)
    return f"an action came from a picture that was {age_ms:.0f} ms old" if age_ms > ALLOWED_MS else ""


def unplugged(rig: CameraRig, chance: Random) -> Trial:
    """HOLD names it; a fresh frame is there within 3 s of plugging it in again."""
    rig.move(chance)
    rig.source.unplug()
    fault_ns = time.monotonic_ns()
    mode, cause, hold_ms = rig.await_stop(fault_ns, 3.0)
    rig.pause(GONE_S)
    rig.source.plug()
    plugged_ns = time.monotonic_ns()
    fresh = _fresh_frame(rig, plugged_ns)
    rig.until(fresh, BACK_WITHIN_S, f"a frame of {CAMERA} after it was plugged in")
    back_ms = (time.monotonic_ns() - plugged_ns) / MS
    age_ms = rig.oldest_picture_ms(fault_ns)
    broken = [
        "" if hold_ms is not None and CAMERA in cause else f"the mode is {mode} ({cause})",
        f"an action came from a picture that was {age_ms:.0f} ms old" if age_ms > ALLOWED_MS else "",
    ]
    return Trial("; ".join(filter(None, broken)), back_ms, hold_ms=hold_ms)


def _fresh_frame(rig: CameraRig, since_ns: int) -> Callable[[], bool]:
    def came() -> bool:
        frame: FrameInfo | None = rig.frames.latest()
        return frame is not None and frame.stamp_ns > since_ns

    return came


PROMISE = "no inference from a picture older than 100 ms; HOLD that names the camera 200 ms later"

CAMERAS = Family(
    "cameras",
    camera_rig,
    (
        scenario(
            "camera frozen, stamps go on",
            PROMISE,
            "ms to HOLD",
            None,
            Motion(frozen, figure=lambda look: look.hold_ms, after=mended),
            count=2,
            soak=20,
        ),
        scenario(
            "camera stalls",
            PROMISE,
            "ms to HOLD",
            None,
            Motion(stalled, figure=lambda look: look.hold_ms, after=mended),
            count=2,
            soak=20,
        ),
        Scenario(
            "camera unplugged and back",
            "back within 3 s of plugging it in; the operator goes on",
            "ms to be back",
            3000.0,
            unplugged,
            count=2,
            soak=20,
        ),
        scenario(
            "camera process killed",
            PROMISE,
            "ms to HOLD",
            None,
            Motion(killed, figure=lambda look: look.hold_ms, after=mended),
            count=2,
            soak=20,
        ),
        scenario(
            "camera process stopped",
            PROMISE,
            "ms to HOLD",
            None,
            Motion(stopped, figure=lambda look: look.hold_ms, after=mended),
            count=2,
            soak=20,
        ),
    ),
)
