"""Figures of a span of the running system. Pure: a `Log` in, one flat dictionary out; reports and benchmarks share it.

What each figure means is said where it is computed. None stands for "nothing was measured".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import messages
from aloha_runtime.commands.observe import Log
from aloha_runtime.messages import MS, ArmsState, Mode, PolicyTick, SimState
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import DOF, GRIPPER_INDEX, tick_of
from aloha_runtime.sim.tasks import SUCCESS_STAGE

Figure = float | int | str | bool | None
Milliseconds = NDArray[np.float64]
"""(n,) durations in ms."""

SUCCESS_HELD_NS = 500 * MS
"""A task counts as solved once success has lasted this long: a cube that slips at once was not handed over."""
FLICKER_NS = 100 * MS
"""A grasped object loses contact for single physics steps; a shorter interruption of a stage is none."""
ARM_BITS = sum(1 << index for index in range(DOF) if index not in GRIPPER_INDEX)
"""Of `ArmsState.held_off`. A gripper that squeezes an object is held off by design, and left out."""
OUTSIDE = "goals_outside_envelope"
"""Figure in the health of `chain@ARM`."""
START_PERIODS = 2
"""Ticks that a mode needs to reach the policy: the heartbeat and the tick are 20 ms apart, not in step."""


@dataclass(frozen=True)
class TickSpan:
    """The 50 Hz ticks (absolute numbers, both included) during which the policy was to drive the arms."""

    first: int
    last: int

    def __contains__(self, tick: object) -> bool:
        return isinstance(tick, int) and self.first <= tick <= self.last

    @property
    def count(self) -> int:
        return max(0, self.last - self.first + 1)


def policy_span(log: Log) -> TickSpan:
    """From the second tick after POLICY was announced to the last whole tick of it; empty when it never was."""
    stamps = [heartbeat.stamp_ns for heartbeat in log.modes if heartbeat.mode is Mode.POLICY]
    if not stamps:
        return TickSpan(0, -1)
    return TickSpan(tick_of(stamps[0]) + START_PERIODS, tick_of(stamps[-1]) - 1)


def ticks_of(log: Log) -> list[PolicyTick]:
    """The policy's ticks inside `policy_span` that emitted an action, each once."""
    span = policy_span(log)
    return list({tick.tick: tick for tick in log.ticks if tick.tick in span and tick.chunks > 0}.values())


def lateness_ms(log: Log) -> Milliseconds:
    """Every emitted action's time after the start of its tick."""
    return _ms(tick.lateness_ns for tick in ticks_of(log))


def frame_age_ms(log: Log) -> Milliseconds:
    """Age of the oldest camera frame of the observation, at the tick; ticks without a frame are left out."""
    return _ms(tick.frame_age_ns for tick in ticks_of(log) if tick.frame_age_ns > 0)


def latency_ms(log: Log, mode: Mode) -> Milliseconds:
    """Observation to goal: from the oldest part of what an action was computed from to the first followers' cycle that
    moves to this action in `mode`. For teleoperation the action bears the stamp of the leaders' state itself."""
    observed = {
        action.stamp_ns: action.observation_stamp_ns or action.stamp_ns
        for action in log.of(messages.ACTION_TOPIC[mode])
    }
    obeyed: dict[int, int] = {}
    for state in log.followers:
        if state.mode is mode and state.action_stamp_ns in observed:
            obeyed.setdefault(state.action_stamp_ns, state.stamp_ns)
    return _ms(stamp_ns - observed[action_ns] for action_ns, stamp_ns in obeyed.items())


def figures(log: Log) -> dict[str, Figure]:
    """Every figure of the span by name; names carry the unit. Topics and processes appear as `rate_hz.TOPIC`,
    `dropped.TOPIC`, `cpu_percent.PROCESS` and `rss_mb.PROCESS`."""
    return {
        **_outcome(log),
        **_tick_figures(log),
        **_arms_figures(log),
        **_quantiles("latency", latency_ms(log, Mode.POLICY)),
        **_quantiles("teleop_latency", latency_ms(log, Mode.TELEOP)),
        **{f"rate_hz.{name}": flow.rate_hz for name, flow in log.flows.items()},
        **{f"dropped.{name}": flow.dropped for name, flow in log.flows.items()},
        **{f"cpu_percent.{name}": usage.cpu_percent for name, usage in log.usage.items()},
        **{f"rss_mb.{name}": usage.rss_mb for name, usage in log.usage.items()},
        "cpu_percent_total": sum(usage.cpu_percent for usage in log.usage.values()),
    }


def success_stamp_ns(states: Iterable[SimState]) -> int | None:
    """When the success that lasted `SUCCESS_HELD_NS` began; None when there was none."""
    since_ns = last_ns = 0
    for state in states:
        if state.success:
            if state.stamp_ns - last_ns > FLICKER_NS:
                since_ns = state.stamp_ns
            last_ns = state.stamp_ns
            if last_ns - since_ns >= SUCCESS_HELD_NS:
                return since_ns
    return None


def _outcome(log: Log) -> dict[str, Figure]:
    began_ns = next((heartbeat.stamp_ns for heartbeat in log.modes if heartbeat.mode is Mode.POLICY), log.start_ns)
    solved_ns = success_stamp_ns(log.sim)
    return {
        "success": solved_ns is not None,
        "seed": log.seed,
        "policy": log.policy,
        "task": log.task,
        "rig": log.rig.name,
        "clock": log.rig.sim.clock if log.rig.sim else "wall",
        "seconds": log.span_s,
        "stage": max((state.stage for state in log.sim), default=None),
        "stages": SUCCESS_STAGE,
        "time_to_success_s": None if solved_ns is None else (solved_ns - began_ns) / NS_PER_S,
        "hold_cause": next((said.cause for said in log.modes if said.mode in (Mode.HOLD, Mode.FAULT)), ""),
    }


def _tick_figures(log: Log) -> dict[str, Figure]:
    """`ticks`: 50 Hz periods in which the policy was to drive. `ticks_on_time`: share of them in which an action was
    emitted before the period ended; a period without an action counts against it. `ticks_fresh`: share in which a chunk
    from the tick's own observation took part."""
    span, emitted = policy_span(log), ticks_of(log)
    observed = [tick for tick in emitted if not tick.reason]
    return {
        "ticks": span.count,
        "ticks_on_time": sum(tick.on_time for tick in emitted) / span.count if span.count else None,
        "ticks_missing": span.count - len(emitted),
        "ticks_fresh": sum(tick.fresh for tick in emitted) / span.count if span.count else None,
        **_quantiles("tick_lateness", lateness_ms(log)),
        **_quantiles("frame_age", frame_age_ms(log)),
        **_quantiles("camera_skew", _ms(tick.camera_skew_ns for tick in observed if tick.frame_age_ns > 0)),
        **_quantiles("joint_skew", _ms(tick.joint_skew_ns for tick in observed if tick.frame_age_ns > 0)),
        **_quantiles("inference", _ms(tick.inference_ns for tick in emitted if tick.inference_ns > 0)),
    }


def _arms_figures(log: Log) -> dict[str, Figure]:
    """`arms_hz`: cycles of the followers' process a second; `arms_skipped`: cycles that it left out; `arms_held_off`:
    share of cycles in which a limit kept an arm joint off its target; `goals_outside_envelope`: goals outside the
    envelope that the emulated chains' own monitors have seen on the wire since they started."""
    states = log.followers
    judged = [log.health(f"chain@{arm}").get(OUTSIDE) for arm in log.rig.arms]
    seen = [count for count in judged if count is not None]
    found: dict[str, Figure] = {OUTSIDE: int(sum(seen)) if seen else None}
    if len(states) < 2:
        return found | {"arms_hz": None, "arms_skipped": None, "arms_held_off": None}
    cycles, elapsed_ns = _cycles(states), states[-1].stamp_ns - states[0].stamp_ns
    return found | {
        "arms_hz": cycles * NS_PER_S / elapsed_ns,
        "arms_skipped": max(0, round(elapsed_ns * log.rig.arms_hz / NS_PER_S) - cycles),
        "arms_held_off": sum(state.held_off & ARM_BITS != 0 for state in states) / len(states),
    }


def _cycles(states: Sequence[ArmsState]) -> int:
    """By sequence numbers, so that what this reader lost does not look like a cycle that did not happen."""
    return sum(max(0, later.seq - earlier.seq) for earlier, later in pairwise(states))


def _ms(durations_ns: Iterable[int]) -> Milliseconds:
    return np.fromiter(durations_ns, dtype=np.float64) / MS


def _quantiles(name: str, durations: Milliseconds) -> dict[str, Figure]:
    if not durations.size:
        return {f"{name}_p50_ms": None, f"{name}_p99_ms": None}
    p50, p99 = np.percentile(durations, (50, 99))
    return {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}
