"""`aloha response`: the simulated servos' step responses as a picture."""

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from aloha_runtime.sim.response import step_response
from aloha_runtime.sim.world import World

STEPS = {"left_waist": (0.1, 1.0), "left_elbow": (-0.1, -0.5), "left_wrist_rotate": (0.1, 1.0)}
"""Joint -> a small step (rad), which stays linear, and a large one, which meets voltage and speed limits."""


def response(out: Path) -> None:
    """Draw angle and velocity after a step of the goal for three joints, and print what the curves say."""
    world = World("transfer_cube")
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, len(STEPS), sharex=True)
    for column, (joint, sizes) in enumerate(STEPS.items()):
        for size in sizes:
            found = step_response(world, joint, size)
            axes[0, column].plot(found.time_s, (found.angle - found.angle[0]) / size, label=f"{size:+.1f} rad")
            axes[1, column].plot(found.time_s, found.velocity)
            Console().print(
                f"{joint} {size:+.1f} rad: rise {found.rise_s:.3f} s, overshoot {found.overshoot:.1%}, "
                f"peak {abs(found.velocity).max():.2f} rad/s"
            )
        axes[0, column].set(title=joint, ylabel="share of the step" if column == 0 else "")
        axes[0, column].axhline(1.0, color="0.7", linewidth=0.8)
        axes[0, column].legend()
        axes[1, column].set(xlabel="s", ylabel="rad/s" if column == 0 else "")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})
    Console().print(f"picture: {out}")
