"""The whole system in virtual time: the real processes, driver, sockets and emulated chains, one at a time."""

import hashlib
from pathlib import Path

import pytest

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job
from aloha_runtime.run_directory import SHARED_MEMORY, ring_prefix

SECONDS = 6.5
"""Of virtual time: a demonstration takes 5.4 s."""


def demonstrate(run_dir: Path, seconds: float) -> tuple[int, float, str]:
    """Furthest stage, goals outside the envelope, and a digest of every state of the world."""
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    digest, stage = hashlib.sha256(), 0
    with Stack(rig, Job.DEMONSTRATE, run_dir) as stack:
        states = stack.bus.subscribe(messages.SIM_STATE, depth=10_000)
        operate.raise_arms(stack)
        stack.wait(lambda: operate.mode_of(stack) is Mode.TELEOP, 5.0, "the squeeze")
        end_ns = stack.clock.now_ns() + int(seconds * 1e9)
        while stack.clock.now_ns() < end_ns:
            stack.watch()
            stack.pause()
            for state in states.drain():
                stage = max(stage, state.stage)
                digest.update(messages.encode(state))
        operate.mode_of(stack)  # raises when something stopped the arms
        outside = sum(
            health.latest().figures["goals_outside_envelope"]
            for name, health in stack.health.items()
            if name.startswith("chain@follower")
        )
    return stage, outside, digest.hexdigest()


@pytest.mark.timeout(600)
def test_a_demonstration_through_every_process_transfers_the_cube(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    stage, outside, _ = demonstrate(run_dir, SECONDS)
    assert stage == 4
    assert outside == 0
    assert not run_dir.exists()
    assert not list(SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*"))


@pytest.mark.timeout(600)
def test_two_runs_are_the_same_to_the_byte(tmp_path: Path) -> None:
    runs = [demonstrate(tmp_path / "run", 1.0)[2] for _ in range(2)]
    assert runs[0] == runs[1]
