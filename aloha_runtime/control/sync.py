"""The observation of a moment: the one place where frames and joint states become one observation.

The policy and the recorder call it alike, so that training and running see the same thing: from each camera the newest
valid frame not after the moment and not older than its maximum age, and the newest valid joint state likewise. Nothing
later than the moment is looked at, except when interpolation of the joint state is asked for (offline, for conversion).
"""

from bisect import bisect_right, insort
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from aloha_runtime.messages import FOLLOWERS, MS, ArmsState
from aloha_runtime.robot import TICK_NS

FRAMES_KEPT = 16
"""Per camera: a quarter of a second at 60 fps, no more than a frame ring holds."""
STATES_KEPT = 64
"""A third of a second at 200 Hz."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame by reference: `ref` is whatever finds its pixels (a `FrameInfo`, an index)."""

    stamp_ns: int
    ref: Any


@dataclass(frozen=True, slots=True)
class Observation:
    """What the robot knew at `stamp_ns`. `position`, `velocity`, `effort_ma`: 14 numbers in contract order."""

    stamp_ns: int
    frames: dict[str, Any]
    """Frame reference by camera."""
    frame_stamps_ns: dict[str, int]
    position: list[float]
    velocity: list[float]
    effort_ma: list[float]
    state: ArmsState
    """The joint state that the numbers come from (the earlier of two when interpolated)."""
    state_stamp_ns: int
    camera_skew_ns: int
    """Newest minus oldest frame; 0 with less than two cameras."""
    joint_skew_ns: int
    """Between the joint state and the newest frame, absolute; 0 without cameras."""

    def less(self, cameras: Collection[str]) -> "Observation":
        """The same without some cameras."""
        if not self.frames.keys() & set(cameras):
            return self
        stamps = {camera: stamp for camera, stamp in self.frame_stamps_ns.items() if camera not in cameras}
        newest = max(stamps.values(), default=self.state_stamp_ns)
        return replace(
            self,
            frames={camera: self.frames[camera] for camera in stamps},
            frame_stamps_ns=stamps,
            camera_skew_ns=newest - min(stamps.values(), default=newest),
            joint_skew_ns=abs(self.state_stamp_ns - newest),
        )

    @property
    def tick(self) -> int:
        """Absolute 50 Hz tick of `stamp_ns`."""
        return self.stamp_ns // TICK_NS

    @property
    def frame_age_ns(self) -> int:
        """Age of the oldest frame at the moment; 0 without cameras."""
        return max((self.stamp_ns - stamp for stamp in self.frame_stamps_ns.values()), default=0)

    @property
    def oldest_stamp_ns(self) -> int:
        """Stamp of the oldest part."""
        return min(self.state_stamp_ns, *self.frame_stamps_ns.values(), self.stamp_ns)


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no observation: `reason` for people; the camera or topic, and its age where it has one."""

    reason: str
    source: str = ""
    age_ms: float | None = None


class Synchroniser:
    """Keeps the last frames and states and answers for any moment near the present. Bounded; not thread-safe."""

    def __init__(
        self,
        max_age_ms: Mapping[str, float],
        state_max_age_ms: float = FOLLOWERS.max_age_ms,
        state_topic: str = FOLLOWERS.name,
        interpolate: bool = False,
    ) -> None:
        """`max_age_ms` by camera name.

        `interpolate`: joint state on the line between the two around the moment, where a later one is there already.
        """
        self._max_age_ns = {camera: int(age * MS) for camera, age in max_age_ms.items()}
        self._state_max_age_ns = int(state_max_age_ms * MS)
        self._state_topic = state_topic
        self._interpolate = interpolate
        self._frames: dict[str, list[Frame]] = {camera: [] for camera in max_age_ms}
        self._states: list[ArmsState] = []
        self.invalid = dict.fromkeys([*max_age_ms, state_topic], 0)
        """Frames and states that came marked invalid and were passed over, by source."""

    def add_frame(self, camera: str, stamp_ns: int, valid: bool, ref: Any) -> None:
        """Take a frame; raises KeyError for a camera that was not named at the start. Any order of stamps will do."""
        kept = self._frames[camera]
        if not valid:
            self.invalid[camera] += 1
            return
        insort(kept, Frame(stamp_ns, ref), key=_stamp)
        del kept[:-FRAMES_KEPT]

    def add_state(self, state: ArmsState) -> None:
        """Take a joint state."""
        if not state.valid:
            self.invalid[self._state_topic] += 1
            return
        insort(self._states, state, key=_stamp)
        del self._states[:-STATES_KEPT]

    def observation(self, stamp_ns: int, without: Collection[str] = ()) -> Observation | Missing:
        """The observation of a moment (of tick t: `t * TICK_NS`), or the reason why there is none.

        `without`: cameras that it need not show.
        """
        frames: dict[str, Frame] = {}
        for camera, kept in self._frames.items():
            if camera in without:
                continue
            index = bisect_right(kept, stamp_ns, key=_stamp) - 1
            newest_ns = kept[index].stamp_ns if index >= 0 else None
            missing = _judge(camera, "frame", newest_ns, stamp_ns, self._max_age_ns[camera])
            if missing is not None:
                return missing
            frames[camera] = kept[index]
        index = bisect_right(self._states, stamp_ns, key=_stamp) - 1
        newest_ns = self._states[index].stamp_ns if index >= 0 else None
        missing = _judge(self._state_topic, "joint state", newest_ns, stamp_ns, self._state_max_age_ns)
        if missing is not None:
            return missing
        state = self._states[index]
        later = self._states[index + 1] if self._interpolate and index + 1 < len(self._states) else None
        if later is not None and later.stamp_ns - stamp_ns > self._state_max_age_ns:
            later = None
        return _assemble(stamp_ns, frames, state, later)


_stamp = attrgetter("stamp_ns")


def _judge(source: str, what: str, newest_ns: int | None, stamp_ns: int, max_age_ns: int) -> Missing | None:
    """None when the newest part not after the moment is there and fresh."""
    if newest_ns is None:
        return Missing(f"{source}: no valid {what} yet", source)
    age_ns = stamp_ns - newest_ns
    if age_ns <= max_age_ns:
        return None
    age_ms = age_ns / MS
    return Missing(
        f"{source}: newest {what} is {age_ms:.0f} ms old, allowed are {max_age_ns / MS:.0f} ms", source, age_ms
    )


def _assemble(stamp_ns: int, frames: dict[str, Frame], state: ArmsState, later: ArmsState | None) -> Observation:
    stamps = {camera: frame.stamp_ns for camera, frame in frames.items()}
    state_ns = state.stamp_ns if later is None else stamp_ns
    newest = max(stamps.values(), default=state_ns)
    share = (stamp_ns - state.stamp_ns) / (later.stamp_ns - state.stamp_ns) if later else 0.0
    return Observation(
        stamp_ns=stamp_ns,
        frames={camera: frame.ref for camera, frame in frames.items()},
        frame_stamps_ns=stamps,
        position=_between(state.position, later.position, share) if later else state.position,
        velocity=_between(state.velocity, later.velocity, share) if later else state.velocity,
        effort_ma=_between(state.effort_ma, later.effort_ma, share) if later else state.effort_ma,
        state=state,
        state_stamp_ns=state_ns,
        camera_skew_ns=newest - min(stamps.values(), default=newest),
        joint_skew_ns=abs(state_ns - newest),
    )


def _between(earlier: list[float], later: list[float], share: float) -> list[float]:
    return [a + share * (b - a) for a, b in zip(earlier, later, strict=True)]
