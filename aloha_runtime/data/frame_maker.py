"""One tick as a row of the dataset: what was seen, what was commanded, what was really sent, and what is amiss."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.sync import Observation
from aloha_runtime.data import ending, recorded
from aloha_runtime.data.quality import Takes, Vector32
from aloha_runtime.messages import MS, ArmsState, Mode
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import JOINTS, SIDES, TICK_NS

STATES_KEPT = 128
"""More than half a second at 200 Hz: ticks made up after a stall still find their action."""


class FrameMaker:
    """Makes the rows of one take, and keeps its account (`takes`) for the quality report."""

    def __init__(
        self, cameras: Sequence[str], first_tick: int, intervenes: bool, flags: Sequence[str] | None = None
    ) -> None:
        """`intervenes`: a person who moves the arms takes over from a policy. `flags`: the names that the dataset has
        for the numbers of `flags` (None: those of a new one)."""
        self.takes = Takes(cameras)
        self._cameras = list(cameras)
        self._flags = recorded.flag_names(cameras) if flags is None else list(flags)
        self._first_ns = first_tick * TICK_NS
        self._intervenes = intervenes
        self._row: dict[str, NDArray[Any]] = {}
        self._held_off = 0

    def row(
        self,
        tick: int,
        seen: Observation | None,
        states: Sequence[ArmsState],
        repeated: Collection[str],
        figures: Mapping[str, float],
        lateness_ns: int,
    ) -> dict[str, NDArray[Any]]:
        """Every feature of a tick but the pictures.

        `seen` None: no joint state was there, and the numbers of the tick before stand in. `states`: the followers'
        newest, in order. `repeated`: cameras whose picture before stands in. `figures`: health of the followers.
        """
        now_ns = tick * TICK_NS
        stamps = seen.frame_stamps_ns if seen else {}
        before = self.takes.ages_ms[-1] if self.takes.ages_ms else [0.0] * (len(self._cameras) + 1)
        ages = [
            (now_ns - stamps[camera]) / MS if camera in stamps else age + TICK_NS / MS
            for camera, age in zip(self._cameras, before, strict=False)
        ]
        ages.append((now_ns - seen.state_stamp_ns) / MS if seen else before[-1] + TICK_NS / MS)
        gone = [*(camera in repeated for camera in self._cameras), seen is None]
        if seen is not None:
            self._row |= _measured(seen) | _servos(figures)
        own = action_of(states, tick)
        acting = own or _held(states, tick)
        if acting is not None:
            self._row |= _commanded(acting)
            self._held_off = acting.held_off
        elif "action" not in self._row:
            self._row |= dict.fromkeys(("action", "goal"), self._row["observation.state"])
        intervention = self._intervenes and acting is not None and acting.mode is Mode.TELEOP
        self._row["frame_age_ms"] = np.array(ages, dtype=np.float32)
        if self._cameras:
            captured = [(now_ns - self._first_ns - age * MS) / NS_PER_S for age in ages[:-1]]
            self._row["capture_s"] = np.array(captured, dtype=np.float32)
        true = {name for name, is_gone in zip(recorded.repeated_names(self._cameras), gone, strict=True) if is_gone}
        true |= {recorded.LATE_ACTION} if own is None else set()
        true |= {recorded.INTERVENTION} if intervention else set()
        self._row[recorded.FLAGS] = recorded.flags(self._flags, true)
        self._row[recorded.INTERVENTION] = np.array([intervention])
        self._count(seen, ages, gone, own is None, lateness_ns)
        return self._row | ending.UNKNOWN

    def _count(
        self, seen: Observation | None, ages: list[float], gone: list[bool], late: bool, lateness_ns: int
    ) -> None:
        takes = self.takes
        takes.ages_ms.append(ages)
        takes.repeated.append(gone)
        takes.late_action.append(late)
        takes.skew_ms.append(seen.camera_skew_ns / MS if seen else 0.0)
        takes.lateness_ms.append(lateness_ns / MS)
        takes.position.append(self._row["observation.state"])
        takes.action.append(self._row["action"])
        takes.effort_ma.append(self._row["observation.effort"])
        takes.held_off.append(self._held_off)


class RecentStates:
    """The followers' newest states, in order."""

    def __init__(self) -> None:
        self.states: deque[ArmsState] = deque(maxlen=STATES_KEPT)

    def add(self, states: Sequence[ArmsState]) -> None:
        self.states.extend(state for state in states if state.valid)


def action_of(states: Sequence[ArmsState], tick: int) -> ArmsState | None:
    """The first state in which the arms follow the action of this very tick; None when they never took it up."""
    now_ns = tick * TICK_NS
    own = (state for state in states if state.stamp_ns > now_ns and state.action_tick == tick and state.target)
    return next(own, None)


def _held(states: Sequence[ArmsState], tick: int) -> ArmsState | None:
    """The state whose action the arms still followed when a tick ended without one of its own."""
    end_ns = (tick + 1) * TICK_NS
    before = [state for state in states if state.stamp_ns <= end_ns]
    commanded = (state for state in reversed(before) if state.target)
    return next(commanded, before[-1] if before else None)


def _measured(seen: Observation) -> dict[str, Vector32]:
    numbers = {
        "observation.state": seen.position,
        "observation.velocity": seen.velocity,
        "observation.effort": seen.effort_ma,
    }
    return {key: np.asarray(value, dtype=np.float32) for key, value in numbers.items()}


def _commanded(acting: ArmsState) -> dict[str, Vector32]:
    goal = acting.goal or acting.position
    return {
        "action": np.asarray(acting.target or goal, dtype=np.float32),
        "goal": np.asarray(goal, dtype=np.float32),
    }


def _servos(figures: Mapping[str, float]) -> dict[str, Vector32]:
    """Temperatures (deg C) and error bits of every joint; 0 where nothing is known."""
    joints = [f"{side}_{joint}" for side in SIDES for joint in JOINTS]
    return {
        "temperature_c": np.array([figures.get(f"temperature_{joint}_c", 0.0) for joint in joints], dtype=np.float32),
        "servo_error": np.array([figures.get(f"error_{joint}_bits", 0.0) for joint in joints], dtype=np.float32),
    }
