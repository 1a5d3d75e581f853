"""One tick as a row of the dataset: what was seen, what was commanded, what was really sent, and what is amiss."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from aloha_runtime.control.sync import Observation
from aloha_runtime.data import recorded
from aloha_runtime.data.quality import Takes, Vector32
from aloha_runtime.messages import MS, ArmsState
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import JOINTS, SIDES, TICK_NS

STATES_KEPT = 128
"""More than half a second at 200 Hz: ticks made up after a stall still find their action."""


class FrameMaker:
    """Makes the rows of one take, and keeps its account (`takes`) for the quality report."""

    def __init__(self, cameras: Sequence[str], first_tick: int, intervenes: bool) -> None:
        """`intervenes`: a person who moves the arms takes over from a policy."""
        self.takes = Takes(cameras)
        self._cameras = list(cameras)
        self._first_ns = first_tick * TICK_NS
        self._intervenes = intervenes
        self._row: dict[str, Vector32] = {}
        self._held_off = 0

    def row(
        self,
        tick: int,
        seen: Observation | None,
        states: Sequence[ArmsState],
        repeated: Collection[str],
        figures: Mapping[str, float],
        teleoperated: bool,
        lateness_ns: int,
    ) -> dict[str, Vector32]:
        """Every vector feature of a tick.

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
            self._row = self._measured(seen, states, now_ns) | _servos(figures)
        self._row["frame_age_ms"] = np.array(ages, dtype=np.float32)
        if self._cameras:
            captured = [(now_ns - self._first_ns - age * MS) / NS_PER_S for age in ages[:-1]]
            self._row["capture_s"] = np.array(captured, dtype=np.float32)
        self._row["flags"] = recorded.flags(gone, self._intervenes and teleoperated)
        self._count(seen, ages, gone, lateness_ns)
        return self._row

    def _measured(self, seen: Observation, states: Sequence[ArmsState], now_ns: int) -> dict[str, Vector32]:
        """The action of a tick is the first that the arms took up for it: it was computed from what is seen here."""
        acting = _acting(states, now_ns)
        self._held_off = acting.held_off
        goal = acting.goal or seen.position
        numbers = {
            "observation.state": seen.position,
            "observation.velocity": seen.velocity,
            "observation.effort": seen.effort_ma,
            "action": acting.target or goal,
            "goal": goal,
        }
        return {key: np.asarray(value, dtype=np.float32) for key, value in numbers.items()}

    def _count(self, seen: Observation | None, ages: list[float], gone: list[bool], lateness_ns: int) -> None:
        takes = self.takes
        takes.ages_ms.append(ages)
        takes.repeated.append(gone)
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


def _acting(states: Sequence[ArmsState], now_ns: int) -> ArmsState:
    """The first state after a moment in which the arms follow an action of that tick or a later one; else the newest
    with an action, else the newest."""
    tick = now_ns // TICK_NS
    later = (state for state in states if state.stamp_ns > now_ns and state.action_tick >= tick and state.target)
    commanded = (state for state in reversed(states) if state.target)
    return next(later, None) or next(commanded, None) or states[-1]


def _servos(figures: Mapping[str, float]) -> dict[str, Vector32]:
    """Temperatures (deg C) and error bits of every joint; 0 where nothing is known."""
    joints = [f"{side}_{joint}" for side in SIDES for joint in JOINTS]
    return {
        "temperature_c": np.array([figures.get(f"temperature_{joint}_c", 0.0) for joint in joints], dtype=np.float32),
        "servo_error": np.array([figures.get(f"error_{joint}_bits", 0.0) for joint in joints], dtype=np.float32),
    }
