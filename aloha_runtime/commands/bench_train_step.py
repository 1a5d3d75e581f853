"""Training: our step against LeRobot's, the same network and batch, eager fp32 on one thread, in CPU time.

Both run in turns, a few steps each, so that other load on the machine meets both alike; the median counts.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.bench_train import INTEROP

LEROBOTS_STEP = Path(__file__).parents[1] / "act/lerobot_step.py"

SIZES: Mapping[str, tuple[dict[str, Any], int]] = {
    "dim 256, ffn 1024, 2 layers, chunk 50, 1x120x160, batch 8": (
        {
            "cameras": 1, "height": 120, "width": 160, "batch": 8,
            "policy": {"dim_model": 256, "dim_feedforward": 1024, "n_encoder_layers": 2, "chunk_size": 50},
        },
        2,
    ),
    "standard, 1x224x224, batch 2": ({"cameras": 1, "height": 224, "width": 224, "batch": 2, "policy": {}}, 1),
    "standard, 3x224x224, batch 2": ({"cameras": 3, "height": 224, "width": 224, "batch": 2, "policy": {}}, 1),
}  # fmt: skip
"""Name: what is trained, and how many steps each side makes in a turn."""
TURNS = 6


def step_rows() -> list[Row]:
    """Seconds of CPU a step; without LeRobot's environment (`make interop`) no peer."""
    return [_row(name, sizes, count) for name, (sizes, count) in SIZES.items()]


def _row(name: str, sizes: dict[str, Any], count: int) -> Row:
    from aloha_runtime.act.step_time import make_timer

    ours, theirs = make_timer(sizes), _Lerobot(sizes)
    try:
        own_times: list[float] = []
        peer_times: list[float] = []
        ours(1), theirs.run(1)  # the first step allocates
        for _ in range(TURNS):
            own_times += ours(count)
            peer_times += theirs.run(count)
    finally:
        theirs.close()
    own, peer = 1000 * median(own_times), 1000 * median(peer_times) if peer_times else None
    return Row(f"training step, {name}", own, "ms CPU", peer=peer, goal=peer, met=None if peer is None else own <= peer)


class _Lerobot:
    """LeRobot's step in a process of its own; makes no steps where LeRobot is not installed."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        self._child: subprocess.Popen[str] | None = None
        if INTEROP.exists():
            environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            command = [str(INTEROP), str(LEROBOTS_STEP), json.dumps(sizes)]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=environment,
            )  # fmt: skip

    def run(self, count: int) -> list[float]:
        if self._child is None or self._child.stdin is None or self._child.stdout is None:
            return []
        try:
            self._child.stdin.write(f"{count}\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return []
        times: list[float] = json.loads(self._child.stdout.readline() or "[]")
        return times

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
