"""One joint of a simulated arm under two control loops: the original ALOHA's, and the gate beside the motors.

The original's loop writes an action to the servos' goal registers every 20 ms, whatever the joints do, with profile
velocity and acceleration 0 (`aloha_scripts/one_side_teleop.py` and `real_env.py`: set_joint_positions, sleep DT). Ours
gives the same action to the gate at the same instant, which sends goals at 200 Hz. Servos, arm, payload and
physics are the same; nothing is in the way. In virtual time, in one process.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.control.gate import Gate, Target
from aloha_runtime.control.limits import Limits, default_limits
from aloha_runtime.robot import ARM_JOINTS, CONTROL_HZ, DOF, GRIPPER_INDEX, TICK_NS, Vector
from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.world import World

CYCLE_NS = 5_000_000
CYCLE_S = CYCLE_NS * 1e-9
FOLDED = (0.0, -0.96, 1.0, 0.0, -0.3, 0.0)
"""Near the start pose; the elbow has room to swing."""
STRETCHED = (0.0, 0.7, -0.7, 0.0, 0.0, 0.0)
"""The arm reaches 0.75 m forward: the most that its weight and a payload can pull."""
ABOVE_TABLE = (0.0, 0.1, 0.3, 0.0, 0.6, 0.0)
"""The hand a few centimetres above the table."""
POSES = {"folded": FOLDED, "stretched": STRETCHED}
MOST_SWING_RAD = 0.45
"""From both poses every joint has this much room within its limits."""
WATCHDOG_S = 0.1
"""Of the servos (Bus Watchdog 5)."""
DELAY_S = 0.0145
"""What the gate adds to the original's loop, stated: it runs to an action in 25 ms, while the original's goal
stands still for 20 ms, 10 ms on average."""
Loop = Literal["original", "ours"]
ORIGINAL: Loop = "original"
OURS: Loop = "ours"
Floats = NDArray[np.float64]


class Trace(NamedTuple):
    """The joint under one loop, at the end of every cycle: s, rad, rad, rad/s, Nm."""

    time_s: Floats
    goal: Floats
    position: Floats
    velocity: Floats
    torque: Floats
    frozen_ns: int
    """When the goal changed last."""


class Arm:
    """The left arm of a world with a payload, of which one joint at a time moves. `contact`: it meets the table."""

    def __init__(self, payload_kg: float = 0.0, contact: bool = False) -> None:
        self.world = World("transfer_cube", payload_kg=payload_kg)
        if not contact:  # a stretched arm would meet the other one
            self.world.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT

    def run(
        self,
        loop: Loop,
        pose: tuple[float, ...],
        joint: str,
        way: Callable[[float], float],
        seconds: float,
        last_s: float = math.inf,
        dies_s: float = math.inf,
        limits: Limits | None = None,
    ) -> Trace:
        """Actions `pose` with `way(t)` (rad) added to a joint, until `last_s`; until `dies_s` somebody sends goals."""
        start, index = self.world.closed_start(), ARM_JOINTS.index(joint)
        start[: len(pose)] = pose
        start[index] += way(0.0)
        self.world.reset(0, start)
        gate = Gate(limits or default_limits(), _openings(start), 0)
        gate.follow(0)
        goal, sent, frozen_ns, tripped = start.copy(), start[index], 0, False
        cycles = round(seconds / CYCLE_S)
        rows = np.zeros((cycles, 4))
        actuator = self.world.model.actuator(f"vx300s_left/{joint}").id
        for cycle in range(cycles):
            now_ns, now_s = (cycle + 1) * CYCLE_NS, (cycle + 1) * CYCLE_S
            target = None
            if cycle * CYCLE_NS % TICK_NS == 0 and now_s <= last_s:
                target = start.copy()
                target[index] = pose[index] + way(now_s)
            if now_s > dies_s:  # nobody sends anything; the servos' watchdogs trip, and they hold where they are
                if now_s > dies_s + WATCHDOG_S and not tripped:
                    goal, tripped = self.world.angles(), True
            elif loop == OURS:
                action = None if target is None else Target(_openings(target), now_ns, cycle)
                output = gate.step(now_ns, _openings(self.world.angles()), action)
                goal[: len(pose)] = output.goal[: len(pose)]
            elif target is not None:
                goal = target
            if goal[index] != sent:
                sent, frozen_ns = goal[index], now_ns
            self.world.command(goal, np.ones(DOF, dtype=bool))
            self.world.step(CYCLE_NS)
            torque = float(self.world.data.actuator_force[actuator])
            rows[cycle] = sent, self.world.angles()[index], self.world.velocities()[index], torque
        time_s = np.linspace(CYCLE_S, cycles * CYCLE_S, cycles)
        return Trace(time_s, rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], frozen_ns)


def _openings(angles: Vector) -> Vector:
    """Motor angles with both grippers closed, as the gate counts them."""
    position = angles.copy()
    position[list(GRIPPER_INDEX)] = 0.0
    return position


class Swing(NamedTuple):
    """A sine: Hz, and the amplitude in rad."""

    frequency: float
    amplitude: float

    @property
    def seconds(self) -> float:
        """Two periods, at least 2 s, to come into it, and two that are looked at."""
        return max(2 / self.frequency, 2.0) + 2 / self.frequency

    def way(self, time_s: float) -> float:
        """Gathers amplitude during the first period, so that it starts without a jump of speed."""
        share = min(1.0, time_s * self.frequency)
        return self.amplitude * share * math.sin(2 * math.pi * self.frequency * time_s)


def swing_of(frequency: float, peak_rad_s: float) -> Swing:
    return Swing(frequency, min(MOST_SWING_RAD, peak_rad_s / (2 * math.pi * frequency)))


class Likeness(NamedTuple):
    """How much our motion is like the original's."""

    reached: float
    """Amplitude of the original, share of what was commanded."""
    amplitude: float
    """Ours, share of the original's."""
    error: float
    """Root mean square of the difference after `DELAY_S` is removed, share of the original's."""
    delay_s: float
    """By which ours is later, of the fundamental."""


def compare(original: Trace, ours: Trace, swing: Swing) -> Likeness:
    """Over the last two periods."""
    late = original.time_s > swing.seconds - 2 / swing.frequency
    time_s, angular = original.time_s[late], 2 * math.pi * swing.frequency
    waves = np.column_stack([np.sin(angular * time_s), np.cos(angular * time_s), np.ones(time_s.size)])
    fits = [np.linalg.lstsq(waves, trace.position[late], rcond=None)[0] for trace in (original, ours)]
    theirs, own = (complex(fit[0], fit[1]) for fit in fits)
    shifted = np.interp(time_s - DELAY_S, original.time_s, original.position)
    around = shifted - shifted.mean()
    error = math.sqrt(float(np.mean((ours.position[late] - shifted) ** 2) / np.mean(around**2)))
    delay_s = -float(np.angle(own / theirs)) / angular
    return Likeness(abs(theirs) / swing.amplitude, abs(own) / abs(theirs), error, delay_s)


def swings(arm: Arm, pose: str, joint: str, swing: Swing, limits: Limits | None = None) -> tuple[Trace, Trace]:
    """The same swing under both loops."""
    place = POSES[pose]
    original = arm.run(ORIGINAL, place, joint, swing.way, swing.seconds)
    return original, arm.run(OURS, place, joint, swing.way, swing.seconds, limits=limits)


class Stop(NamedTuple):
    """What a joint still does when its actions end at `speed` (rad/s, when the last one came)."""

    speed: float
    frozen_ms: float
    """From the last action to the last change of the goal."""
    frozen_speed: float
    travel: float
    """Farthest from where it was when the last action came (of an arms process: when it died)."""
    frozen_travel: float
    """The same from the cycle in which the goal froze."""


def stops(arm: Arm, pose: str, joint: str, speed_rad_s: float, loop: Loop = OURS, *, arms_die: bool = False) -> Stop:
    """Actions move a joint at a constant speed through a pose and end there. `arms_die`: goals end with them."""
    last_s = (round(0.25 * CONTROL_HZ) / CONTROL_HZ) + CYCLE_S
    last = round(last_s / CYCLE_S) - 1

    def way(time_s: float) -> float:
        return speed_rad_s * (time_s - last_s)

    dies_s = last_s if arms_die else math.inf
    trace = arm.run(loop, POSES[pose], joint, way, last_s + 1.5, last_s, dies_s)
    frozen = max(last, round(trace.frozen_ns / CYCLE_NS) - 1)
    sign = math.copysign(1.0, speed_rad_s)
    # The joint was seen at the beginning of the cycle in which the action came.
    start, froze = trace.position[last - 1], trace.position[frozen - 1]
    return Stop(
        speed=abs(float(trace.velocity[last - 1])),
        frozen_ms=(frozen - last) * CYCLE_S * 1e3,
        frozen_speed=abs(float(trace.velocity[frozen - 1])),
        travel=float((sign * (trace.position[last:] - start)).max()),
        frozen_travel=float((sign * (trace.position[frozen:] - froze)).max()),
    )


class Hold(NamedTuple):
    """A stretched arm that is told to stay for a minute."""

    sag: float
    """Of the shoulder after 5 s (rad)."""
    creep: float
    """How much lower it is after 60 s."""


def holds(arm: Arm, loop: Loop, seconds: float = 60.0) -> Hold:
    trace = arm.run(loop, STRETCHED, "shoulder", lambda _: 0.0, seconds)
    early, late = (float(trace.position[round(at / CYCLE_S) - 1]) for at in (5.0, seconds))
    return Hold(early - STRETCHED[1], late - early)


def presses(arm: Arm, loop: Loop) -> float:
    """The hardest torque (Nm) of a shoulder that is led 0.6 rad into the table at 1 rad/s, and held there for 2 s."""
    trace = arm.run(loop, ABOVE_TABLE, "shoulder", lambda time_s: min(0.6, time_s), 3.0)
    return float(np.abs(trace.torque).max())
