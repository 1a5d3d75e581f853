"""Wrong zeros by the currents of still arms: no false alarm at half or half as much again of friction, shoulders found.

`ALOHA_POSES=4000` gives the figures of docs/results.md (`-s` prints them).
"""

import os

import mujoco
import numpy as np
import pytest

from aloha_runtime.control import gravity, zeros
from aloha_runtime.control.zeros import DOUBT, SETTLES_NS, ArmZeros, ZeroWatch
from aloha_runtime.messages import MS
from aloha_runtime.robot import (
    ARM_JOINTS,
    KITS,
    RAD_PER_TICK,
    ROLES,
    SERVOS,
    START_POSE,
    Role,
    joint_limits,
    pose_vector,
)
from aloha_runtime.sim.model import build_model
from aloha_runtime.sim.servo import ServoPlant

POSES = int(os.environ.get("ALOHA_POSES", "150"))
START = np.array(START_POSE)


def currents_of(arm: ArmZeros, role: Role, true: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What an arm that really stands at `true` draws: friction of 0.5 to 1.5 of the usual, anywhere between both
    directions; weight 10 % off; noise of two units."""
    drawn = np.zeros(6)
    borne = -gravity.weight_torques(true, zeros.LINKS[role])[arm._index] * random.uniform(0.9, 1.1)
    friction = arm._friction * random.uniform(0.5, 1.5) * random.uniform(-1, 1, len(borne))
    drawn[arm._index] = (borne + friction) / arm._nm_per_ma + random.normal(0, 5, len(borne))
    return drawn


def found(role: Role, joint: str, ticks: int, start: bool, poses: int = POSES) -> tuple[float, float]:
    """Share of poses in which a doubt is said, and in which the joint is among those that it names."""
    arm, random = ArmZeros(f"{role}_left", role, SERVOS[role]), np.random.default_rng(1)
    low, high = (limits[:6] for limits in joint_limits(role))
    said = named = 0
    for _ in range(poses):
        reported = START if start else random.uniform(low, high)
        true = reported.copy()
        true[ARM_JOINTS.index(joint)] -= ticks * RAD_PER_TICK
        doubt = arm.doubt(reported, currents_of(arm, role, true, random))
        said += bool(doubt)
        named += joint in doubt.partition("the zero of ")[2].partition(" is wrong")[0]
    print(
        f"{role} {joint} {ticks} {'start' if start else 'any pose'}: said {said / poses:.3f}, named {named / poses:.3f}"
    )
    return said / poses, named / poses


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("start", [False, True])
def test_right_zeros_are_never_doubted(role: Role, start: bool) -> None:
    assert found(role, "shoulder", 0, start, 4 * POSES) == (0.0, 0.0)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("joint", "ticks", "start", "least"),
    [
        ("shoulder", 512, True, 1.0),
        ("shoulder", -512, True, 1.0),
        ("shoulder", 1024, True, 1.0),
        ("shoulder", 512, False, 0.9),
        ("shoulder", 1024, False, 0.95),
        ("elbow", 1024, True, 1.0),
        ("elbow", 512, False, 0.7),
        ("elbow", 1024, False, 0.9),
        ("wrist_angle", 1024, False, 0.3),
    ],
)
def test_wrong_zeros_are_found_and_named(role: Role, joint: str, ticks: int, start: bool, least: float) -> None:
    said, named = found(role, joint, ticks, start)
    assert said >= least
    assert named == said


def test_an_arm_that_lies_on_something_or_reads_nothing_is_not_judged() -> None:
    arm = ArmZeros("leader_left", "leader", SERVOS["leader"])
    assert arm.doubt(START, np.zeros(6)) == ""
    assert arm.doubt(START, np.full(6, np.nan)) == ""


def test_the_followers_weight_is_that_of_the_simulated_one() -> None:
    """Trossen's description and the model files of gym-aloha are of one arm."""
    kit = KITS["aloha"]
    model = build_model("transfer_cube", kit.follower_gripper, kit.gripper_current_ma)
    data, random = mujoco.MjData(model), np.random.default_rng(2)
    dof = [model.joint(f"vx300s_left/{joint}").dofadr[0] for joint in ARM_JOINTS]
    qpos = [model.joint(f"vx300s_left/{joint}").qposadr[0] for joint in ARM_JOINTS]
    low, high = (limits[:6] for limits in joint_limits("follower"))
    for _ in range(50):
        data.qpos[qpos] = pose = random.uniform(low, high)
        mujoco.mj_forward(model, data)
        simulated, ours = -data.qfrc_bias[dof], gravity.weight_torques(pose, gravity.VIPERX_300)
        assert ours == pytest.approx(simulated, rel=0.1, abs=0.25)


def test_a_pair_is_looked_at_once_after_it_has_stood_still() -> None:
    watch = ZeroWatch("follower", {"left": SERVOS["follower"], "right": SERVOS["follower"]})
    arm, random = ArmZeros("x", "follower", SERVOS["follower"]), np.random.default_rng(3)
    position, effort = pose_vector(START_POSE, 0.0), np.zeros(14)
    bent = START + np.where(np.array(ARM_JOINTS) == "shoulder", -1024 * RAD_PER_TICK, 0.0)
    effort[:6] = currents_of(arm, "follower", START, random)
    effort[7:13] = currents_of(arm, "follower", bent, random)
    moving = np.full(14, 0.2)
    assert not watch.update(0, True, position, moving, effort)
    for now_ns in range(5 * MS, SETTLES_NS, 5 * MS):
        assert not watch.update(now_ns, True, position, 0 * moving, effort)
    news = [watch.update(SETTLES_NS + step * 5 * MS, True, position, 0 * moving, effort) for step in range(10)]
    assert news.count(True) == 1
    assert watch.doubt.startswith("follower_right: shoulder bears ")
    assert DOUBT in watch.doubt
    assert "the zero of shoulder" in watch.doubt
    assert "follower_left" not in watch.doubt
    watch.update(SETTLES_NS * 2, False, position, moving, effort)
    assert watch.doubt == ""


@pytest.mark.parametrize("role", ROLES)
def test_emulated_arms_fit_their_pose_and_with_a_wrong_zero_they_do_not(role: Role) -> None:
    """The emulator has a weight of its own."""
    arm = ArmZeros(f"{role}_left", role, SERVOS[role])
    wrong = START + np.where(np.array(ARM_JOINTS) == "shoulder", -512 * RAD_PER_TICK, 0.0)
    for true, doubted in ((START, False), (wrong, True)):
        plant = ServoPlant(role, [*true, 0.0])
        plant.command(0, [*true, 0.0], [True] * 7, [2000.0] * 7, [0.0] * 7)
        state = plant.read(2000 * MS)
        reported = np.array(state.angles[:6]) + START - true
        doubt = arm.doubt(reported, np.array(state.currents_ma[:6]))
        assert bool(doubt) is doubted, doubt
        assert ("the zero of shoulder" in doubt) is doubted
