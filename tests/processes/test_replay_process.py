"""A replay through every process, in virtual time: followers do what was recorded, no goal leaves the envelope."""

from pathlib import Path

import numpy as np
import pytest

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.observe import Log
from aloha_runtime.commands.replay import compare
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.limits import default_limits
from aloha_runtime.data import recording
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import CONTROL_HZ, IS_GRIPPER, NAMES, START_POSE, pose_vector
from aloha_runtime.sim.chain_control import GetReport, ask

FRAMES = 75


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A wave of both arms that begins 0.2 rad beside the start pose."""
    path = tmp_path / "wave"
    time_s = np.arange(FRAMES) / CONTROL_HZ
    swing = 0.2 * np.cos(2 * np.pi * time_s)[:, None] * ~IS_GRIPPER
    actions = pose_vector(START_POSE, 0.5) + swing
    with DatasetWriter.create(path, vectors={"action": NAMES, "observation.state": NAMES}) as writer:
        for action in actions:
            writer.add_frame({"action": action, "observation.state": action})
        writer.save_episode("wave")
    return path


def test_the_followers_do_what_was_recorded(dataset: Path, tmp_path: Path) -> None:
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", "virtual")
    with Stack(rig, Job.REPLAY, tmp_path / "run", episode=(str(dataset), 0)) as stack:
        states = stack.bus.subscribe(messages.FOLLOWERS, depth=10_000)
        operate.raise_arms(stack)
        states.drain()
        stack.ask("replay")
        report = stack.health["replay"]
        stack.wait(lambda: bool(report.latest().figures.get("done")), 20.0, "the end of the replay")
        operate.mode_of(stack)  # raises when something stopped the arms
        log = Log(rig, "", 0, stack.clock.now_ns(), {messages.FOLLOWERS.name: states.drain()})
        play_ns = int(report.latest().figures["play_ns"])
        for arm in rig.arms_of("follower"):
            judged = ask(tmp_path / "run", f"follower_{arm}", GetReport()).report
            assert judged is not None
            assert judged.goals > 0
            assert judged.counts == {}
    found = recording.load(dataset, 0, default_limits())
    tracking = compare(found, log, play_ns)
    arms = np.flatnonzero(~IS_GRIPPER)
    position, actions = tracking.position[:, arms], found.actions[:, arms]
    assert np.abs(position[0] - actions[0]).max() < 0.06  # at rest on the first action, but for the sag
    lags = [np.sqrt(((position[lag:] - actions[: FRAMES - lag]) ** 2).mean()) for lag in range(10)]
    assert 1 <= int(np.argmin(lags)) <= 7  # the servos' lag
    assert min(lags) < 0.05  # rad; gravity makes the elbows sag by that much
