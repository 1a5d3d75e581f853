"""`aloha bench faithful`: our motion beside the original ALOHA's control loop, on the same simulated servos.

Every arm joint, slow to fast, folded and stretched out against gravity, with and without 0.75 kg in the hand; then a
minute of standing still, a push against the table, and what a joint still does when its actions end at full speed.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aloha_runtime.commands.bench import Row
from aloha_runtime.config_parts import FULL_DRIVE_RAD
from aloha_runtime.control.limits import ARM_VELOCITY_RAD_S
from aloha_runtime.robot import ARM_JOINTS
from aloha_runtime.sim import faithful
from aloha_runtime.sim.faithful import OURS, Arm, Likeness, Swing, Trace

FREQUENCIES = (0.1, 0.3, 0.6, 1.0, 1.5)
PEAKS_RAD_S = (1.0, ARM_VELOCITY_RAD_S)
PAYLOADS_KG = (0.0, 0.75)
WITHIN = 0.05
"""Amplitude and error, of the original's amplitude."""
CREEP_RAD = 0.002
"""In 55 s: about one tick of a servo."""
BRAKING_S = FULL_DRIVE_RAD / 3.14
"""A servo whose goal stands still comes to rest within its speed times this (no-load speed at full drive): 69 ms."""
BEYOND_RAD = 0.05
TRAVEL_RAD, ARMS_TRAVEL_RAD = 0.27, 0.30
FROZEN_MS = 70.0
SHOWN_HZ = 1.0


class Case(NamedTuple):
    """One joint's swing under both loops."""

    payload_kg: float
    pose: str
    joint: str
    swing: Swing
    found: Likeness
    original: Trace
    ours: Trace


def cases(arm: Arm, payload_kg: float) -> Iterator[Case]:
    """Every pose, joint and swing of an arm that holds `payload_kg`."""
    every = {faithful.swing_of(frequency, peak) for frequency, peak in product(FREQUENCIES, PEAKS_RAD_S)}
    for pose, joint, swing in product(faithful.POSES, ARM_JOINTS, sorted(every)):
        original, ours = faithful.swings(arm, pose, joint, swing)
        yield Case(payload_kg, pose, joint, swing, faithful.compare(original, ours, swing), original, ours)


def run(curves: Path | None = None) -> list[Row]:
    """All rows; `curves` is written as a picture."""
    found, rows = [], []
    for payload_kg in PAYLOADS_KG:
        arm = Arm(payload_kg)
        found += list(cases(arm, payload_kg))
        rows += [*_hold_rows(arm, payload_kg), *_stop_rows(arm, payload_kg)]
    rows += _press_rows()
    if curves is not None:
        draw(found, curves)
    return [*_swing_rows(found), *rows]


def _swing_rows(found: list[Case]) -> list[Row]:
    rows = []
    for payload_kg, pose, joint in product(PAYLOADS_KG, faithful.POSES, ARM_JOINTS):
        own = [case.found for case in found if case[:3] == (payload_kg, pose, joint)]
        name = f"{payload_kg:g} kg, {pose}, {joint}"
        amplitude = min(own, key=lambda like: -abs(like.amplitude - 1)).amplitude
        error = max(like.error for like in own)
        reached = [like.reached for like in own]
        rows += [
            Row(f"{name}: amplitude, of the original's (worst of {len(own)})", amplitude, "", 1.0, WITHIN,
                abs(amplitude - 1) <= WITHIN),
            Row(f"{name}: error after {faithful.DELAY_S * 1e3:.1f} ms", error, "", None, WITHIN, error <= WITHIN),
            Row(f"{name}: the original reaches, of what is commanded", min(reached), "", max(reached)),
        ]  # fmt: skip
    return rows


def _hold_rows(arm: Arm, payload_kg: float) -> list[Row]:
    theirs, ours = faithful.holds(arm, faithful.ORIGINAL), faithful.holds(arm, OURS)
    name = f"{payload_kg:g} kg, stretched, 60 s"
    return [
        Row(f"{name}: sag", ours.sag, "rad", theirs.sag, theirs.sag + 1e-3, ours.sag <= theirs.sag + 1e-3),
        Row(f"{name}: creep", ours.creep, "rad", theirs.creep, CREEP_RAD, ours.creep <= CREEP_RAD),
    ]


def _press_rows() -> list[Row]:
    arm = Arm(contact=True)
    theirs, ours = faithful.presses(arm, faithful.ORIGINAL), faithful.presses(arm, OURS)
    return [Row("into the table: torque of the shoulder", ours, "Nm", theirs, theirs, ours <= theirs + 1e-6)]


def _stop_rows(arm: Arm, payload_kg: float) -> list[Row]:
    """Of a folded arm without a load the promises are judged; of all others the figure is beside the original's."""
    rows = []
    for pose, joint in product(faithful.POSES, ARM_JOINTS):
        judged = pose == "folded" and not payload_kg
        for speed in (ARM_VELOCITY_RAD_S, -ARM_VELOCITY_RAD_S):
            name = f"{payload_kg:g} kg, {pose}, {joint} at {speed:+.1f} rad/s"
            theirs = faithful.stops(arm, pose, joint, speed, faithful.ORIGINAL).travel
            ends = faithful.stops(arm, pose, joint, speed)
            dead = faithful.stops(arm, pose, joint, speed, arms_die=True).travel
            most = BRAKING_S * ends.frozen_speed + BEYOND_RAD
            for what, value, unit, peer, goal in (
                ("goal still", ends.frozen_ms, "ms", None, FROZEN_MS),
                ("travel from the last action", ends.travel, "rad", theirs, TRAVEL_RAD),
                ("travel from the freeze", ends.frozen_travel, "rad", None, most),
                ("travel when the arms process dies", dead, "rad", None, ARMS_TRAVEL_RAD),
            ):
                rows.append(Row(f"{name}: {what}", value, unit, peer, goal, value <= goal if judged else None))
    return rows


def draw(found: list[Case], path: Path) -> None:
    """A column a joint: a fast swing folded and empty, the same stretched with a load, and amplitude by frequency."""
    figure = Figure(figsize=(15, 7), dpi=100, layout="constrained")
    axes = figure.subplots(3, len(ARM_JOINTS))
    for column, joint in enumerate(ARM_JOINTS):
        own = [case for case in found if case.joint == joint]
        for row, (payload_kg, pose) in enumerate(((PAYLOADS_KG[0], "folded"), (PAYLOADS_KG[-1], "stretched"))):
            part = [case for case in own if (case.payload_kg, case.pose) == (payload_kg, pose)]
            fast = [case for case in part if case.swing.frequency == SHOWN_HZ]
            _draw_swing(axes[row, column], max(fast, key=lambda case: case.swing.amplitude))
            axes[row, column].set_title(f"{joint}, {pose}, {payload_kg:g} kg", fontsize=8)
            _draw_amplitudes(axes[2, column], part, "C1" if payload_kg else "C0", f"{pose}, {payload_kg:g} kg")
    for at in axes[:2, 0]:
        at.set_ylabel("rad")
    axes[2, 0].set_ylabel("amplitude / commanded")
    axes[0, 0].legend(fontsize=7)
    axes[2, 0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _draw_swing(panel: Axes, case: Case) -> None:
    late = case.original.time_s > case.swing.seconds - 2 / case.swing.frequency
    time_s = case.original.time_s[late]
    panel.plot(time_s, case.original.goal[late], color="0.75", linewidth=1.0, label="original's goal")
    panel.plot(time_s, case.original.position[late], color="C2", linewidth=2.4, label="original")
    earlier = f"ours, {faithful.DELAY_S * 1e3:.1f} ms earlier"
    panel.plot(time_s - faithful.DELAY_S, case.ours.position[late], color="C3", linewidth=1.0, label=earlier)
    panel.set_xlabel("s", fontsize=7)


def _draw_amplitudes(panel: Axes, part: list[Case], colour: str, name: str) -> None:
    fastest = {case.swing.frequency: case for case in sorted(part, key=lambda case: case.swing.amplitude)}
    frequencies = sorted(fastest)
    theirs = [fastest[frequency].found.reached for frequency in frequencies]
    ours = [fastest[frequency].found.reached * fastest[frequency].found.amplitude for frequency in frequencies]
    panel.semilogx(frequencies, theirs, color=colour, linewidth=2.4, alpha=0.4, label=f"original, {name}")
    panel.semilogx(frequencies, ours, "o--", color=colour, markersize=3, linewidth=1.0, label=f"ours, {name}")
    panel.set_xlabel("Hz, up to 2.5 rad/s", fontsize=7)
    panel.set_ylim(0.0, 1.5)
