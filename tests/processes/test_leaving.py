"""Rigs with less than four arms, and how a stack leaves the arms when something is wrong. Real processes."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from aloha_runtime import config, messages
from aloha_runtime.commands import operate
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job, processes
from aloha_runtime.robot import IS_GRIPPER, SIDE_SLICE, START_POSE, pose_vector
from aloha_runtime.sim.chain_control import RaiseError, ask
from aloha_runtime.sim.link import Link

OVERLOAD = 1 << 5
"""Of Hardware_Error_Status."""


def rig_of(*arms: str, clock: str = "virtual") -> RigConfig:
    """The simulated rig with these arms alone."""
    rig = operate.with_task(config.load("sim"), 3, "transfer_cube", clock)
    return RigConfig.model_validate(rig.model_dump() | {"arms": {arm: rig.arms[arm].model_dump() for arm in arms}})


@pytest.mark.long
def test_one_side_is_armed_led_and_parked(tmp_path: Path) -> None:
    """A left leader and a left follower: nobody waits for arms that are not there."""
    rig = rig_of("leader_left", "follower_left")
    gripper = rig.gripper("leader", "left")
    with Stack(rig, Job.TELEOP, tmp_path / "run") as stack:
        followers = stack.bus.subscribe(messages.FOLLOWERS, depth=5000)
        operate.raise_arms(stack)
        link = Link.attach(stack.run_dir)

        def hold(opening: float, lift: float, seconds: float) -> None:
            angles = pose_vector(START_POSE, 0.0) + np.where(IS_GRIPPER, 0.0, lift)
            angles[IS_GRIPPER] = gripper.angle_from_action(opening)
            link.write_hand("leader_left", angles[SIDE_SLICE["left"]].tolist())
            stack.pause(seconds)

        hold(1.0, 0.0, 0.3)
        hold(0.0, 0.0, 0.5)
        assert operate.mode_of(stack) is Mode.TELEOP
        one = stack.pid("teleop")
        stack.exchange(next(process for process in stack.table if process.name == "teleop"))
        assert stack.pid("teleop") != one
        before = followers.drain()[-1]
        for lift in np.linspace(0.0, 0.1, 20):
            hold(0.0, float(lift), 0.02)
        hold(0.0, 0.1, 0.5)
        after = followers.drain()[-1]
        moved = np.abs(np.array(after.position) - np.array(before.position))
        assert (moved[1:6] > 0.05).all(), "the left follower followed"
        assert moved[SIDE_SLICE["right"]].max() < 1e-6, "the right side is not there"
        link.write_hand("leader_left", None)
        stack.ask("stop")
        stack.ask("park")
        stack.wait(lambda: stack.mode.latest().mode is Mode.IDLE, 15.0, "the end of parking")


def test_a_rig_without_leaders_has_no_process_for_them() -> None:
    rig = rig_of("follower_left", "follower_right")
    names = [process.name for process in processes(rig, Job.DEPLOY)]
    assert "arms@followers" in names
    assert "arms@leaders" not in names
    assert rig.led_sides == ()


def test_teleoperation_without_a_leader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    plain = config.load("sim").model_dump(mode="json")
    plain["arms"] = {"follower_left": plain["arms"]["follower_left"], "leader_right": plain["arms"]["leader_right"]}
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigError, match="no leader with a follower on its side"):
        operate.teleop(str(path), scripted=False, seed=None, task=None, seconds=1, run_dir=tmp_path / "run")


def test_after_a_fault_leaving_moves_nothing(tmp_path: Path) -> None:
    """A servo in overload while the arms rise; the stack is left as Ctrl-C leaves it."""
    stack = Stack(rig_of("follower_left"), Job.TELEOP, tmp_path / "run")
    stack.__enter__()
    followers = stack.bus.subscribe(messages.FOLLOWERS, depth=5000)
    stack.ask("arm", "start")
    stack.pause(1.0)
    ask(stack.run_dir, "follower_left", RaiseError(servo=3, bits=OVERLOAD))
    stack.wait(lambda: stack.mode.latest().mode is Mode.FAULT, 2.0, "the fault")
    stack.pause(0.2)
    followers.drain()
    end, goals = stack._end, []

    def watched() -> None:
        stack.pause(1.0)
        goals.extend(state.goal for state in followers.drain() if state.goal)
        end()

    stack._end = watched
    with pytest.raises(AlohaError, match=r"not parked.*torque on.*overload"):
        stack.__exit__(None, None, None)
    assert len(goals) > 100
    assert np.ptp(np.array(goals), axis=0).max() == 0.0


def test_a_hung_supervisor_is_named_when_the_stack_is_left(tmp_path: Path) -> None:
    stack = Stack(rig_of("follower_left", clock="wall"), Job.TELEOP, tmp_path / "run")
    with pytest.raises(AlohaError, match=r"not parked.*the supervisor \(pid \d+\) did not answer"), stack:
        os.kill(stack.pid("supervisor"), signal.SIGSTOP)


def test_a_closed_terminal_keeps_nothing_from_happening(tmp_path: Path) -> None:
    """Rich turns a broken pipe into SystemExit; files raise OSError or, closed, ValueError."""
    for error in (OSError(5, "Input/output error"), ValueError("closed file"), SystemExit(1)):

        def say(text: str, error: BaseException = error) -> None:
            raise error

        Stack(rig_of("follower_left"), Job.TELEOP, tmp_path / "run", say=say).say("parking the arms")
