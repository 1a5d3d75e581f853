"""The capsules against the meshes of the rig's model: the same joints, and nothing sticks out of them; their distances
against MuJoCo's."""

import math

import numpy as np
import pytest
from mujoco_arms import MujocoArms

from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.control.shape import FAR_M, Scene
from aloha_runtime.robot import (
    ARM_JOINTS,
    GRIPPER_INDEX,
    KITS,
    ROLES,
    SIDE_SLICE,
    SIDES,
    START_POSE,
    Role,
    Vector,
    joint_limits,
    pose_vector,
)
from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.model import build_model

KIT = KITS["aloha"]
STICKS_OUT_M = 0.001
CAPSULES = {
    "2_shoulder": ("shoulder",),
    "3_upper_arm": ("upper arm",),
    "4_upper_forearm": ("forearm",),
    "5_lower_forearm": ("forearm",),
    "6_wrist": ("wrist",),
    "7_gripper": ("gripper", "wrist"),
    "8_gripper_prop": ("gripper",),
    "9_gripper_bar": ("gripper",),
    "10_left_gripper_finger": ("fingers/left_finger", "gripper"),
    "10_right_gripper_finger": ("fingers/right_finger", "gripper"),
}
"""Which capsules cover a mesh."""


@pytest.fixture(scope="module")
def arms() -> Scene:
    return Scene("follower", GuardConfig().bases(), dict.fromkeys(SIDES, KIT.follower_gripper))


def outside(points: np.ndarray, model: mujoco.MjModel, data: mujoco.MjData, capsule: str) -> np.ndarray:
    """How far (n,) points (n, 3) lie outside a capsule."""
    geom = model.geom(capsule).id
    radius, half = model.geom_size[geom][:2]
    axis = data.geom_xmat[geom].reshape(3, 3)[:, 2]
    offset = points - data.geom_xpos[geom]
    along = np.clip(offset @ axis, -half, half)
    return np.linalg.norm(offset - along[:, None] * axis, axis=1) - radius


def test_no_mesh_sticks_out_of_its_capsules() -> None:
    arms = MujocoArms("follower", GuardConfig().bases(), KIT.follower_gripper)
    rig = build_model("transfer_cube", KIT.follower_gripper, KIT.gripper_current_ma)
    data = mujoco.MjData(rig)
    random = np.random.default_rng(0)
    for _ in range(5):
        position = random.uniform(-1.2, 1.2, 14)
        position[list(GRIPPER_INDEX)] = random.uniform(0, 1, 2)
        arms.nearest(position)
        for side in SIDES:
            _place(rig, data, side, position)
        mujoco.mj_kinematics(rig, data)
        for side in SIDES:
            for mesh, capsules in CAPSULES.items():
                points = _vertices(rig, data, f"vx300s_{side}/{mesh}")
                covered = [outside(points, arms.model, arms.data, f"{side}/{capsule}") for capsule in capsules]
                assert np.min(covered, axis=0).max() < STICKS_OUT_M, (side, mesh)


def _place(rig: mujoco.MjModel, data: mujoco.MjData, side: str, position: Vector) -> None:
    part = position[SIDE_SLICE[side]]
    gripper = KIT.follower_gripper
    finger = gripper.position_close + part[-1] * (gripper.position_open - gripper.position_close)
    names = [*ARM_JOINTS, "left_finger", "right_finger"]
    for joint, value in zip(names, [*part[:-1], finger, -finger], strict=True):
        data.qpos[rig.joint(f"vx300s_{side}/{joint}").qposadr[0]] = value


def _vertices(rig: mujoco.MjModel, data: mujoco.MjData, geom: str) -> np.ndarray:
    index = rig.geom(geom).id
    mesh = rig.geom_dataid[index]
    first = rig.mesh_vertadr[mesh]
    vertices = rig.mesh_vert[first : first + rig.mesh_vertnum[mesh]]
    return vertices @ data.geom_xmat[index].reshape(3, 3).T + data.geom_xpos[index]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("hands", [False, True])
def test_distances_are_those_of_mujoco(role: Role, hands: bool) -> None:
    """Overlapping parts only have to be below zero on both sides: how deep is not asked for."""
    bases: dict = {"left": (-0.3, 0.1, 0.4), "right": (0.35, 0.0, 2.6)}
    scene = Scene(role, bases, dict.fromkeys(SIDES, KIT.gripper(role)), 0.05, hands)
    judge = MujocoArms(role, bases, KIT.gripper(role), 0.05, hands)
    random = np.random.default_rng(0)
    poses = random.uniform(*joint_limits(role), (150, 14))
    for ours, pose in zip(scene.nearest_of(poses), poses, strict=True):
        theirs = judge.nearest(pose)
        if theirs.distance_m > 0:
            assert ours.distance_m == pytest.approx(theirs.distance_m, abs=1e-6)
            assert {ours.first, ours.second} == {theirs.first, theirs.second}
        else:
            assert ours.distance_m <= 0


@pytest.mark.parametrize("role", ROLES)
def test_no_distance_changes_by_more_than_the_reach_says(role: Role) -> None:
    scene = Scene(role, GuardConfig().bases(), dict.fromkeys(SIDES, KIT.gripper(role)), hands=True)
    random = np.random.default_rng(0)
    poses = random.uniform(*joint_limits(role), (300, 14))
    moved = poses + random.uniform(-0.05, 0.05, poses.shape) * (random.uniform(size=poses.shape) < 0.3)
    changes = np.abs(scene.distances(moved) - scene.distances(poses))
    assert (changes <= np.abs(moved - poses) @ scene.reach.T + 1e-12).all()


def test_arms_whose_places_are_unknown_have_to_do_with_the_table_only() -> None:
    here = {"left": (0.0, 0.0, 0.0), "right": (0.0, 0.0, 0.0)}
    scene = Scene("leader", here, dict.fromkeys(SIDES, KIT.leader_gripper), together=False)
    assert {second for _, second in scene.pairs} == {"table"}
    assert scene.nearest(pose_vector(START_POSE, 0.0)).distance_m > 0.05
    nothing = Scene("leader", here, dict.fromkeys(SIDES, KIT.leader_gripper), table_m=None, together=False)
    assert nothing.nearest(pose_vector(START_POSE, 0.0)) == (FAR_M, "", "")


@pytest.mark.parametrize("kit", KITS.values(), ids=lambda kit: kit.name)
def test_published_poses_are_clear(arms: Scene, kit) -> None:
    for pose in (START_POSE, kit.follower_sleep):
        assert arms.nearest(pose_vector(pose, 0.0)).distance_m > 0.05


def test_the_nearest_bodies_are_named(arms: Scene) -> None:
    down = pose_vector(START_POSE, 0.0)
    down[1] = 0.9
    near = arms.nearest(down)
    assert near.distance_m < 0
    assert (near.first, near.second) == ("left gripper", "table")
    level = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    face_to_face = arms.nearest(pose_vector(level, 0.0))
    assert face_to_face.distance_m < 0.0
    assert {face_to_face.first.split()[0], face_to_face.second.split()[0]} == {"left", "right"}


def test_hands_may_meet_and_a_hand_may_not_meet_a_wrist(arms: Scene) -> None:
    """Straight arms face to face, bases moved apart until only the fingers overlap."""
    level = pose_vector((0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.0)
    distances = []
    for half in (0.70, 0.62):
        apart = {"left": (-half, 0.5, 0.0), "right": (half, 0.5, math.pi)}
        distances.append(Scene("follower", apart, dict.fromkeys(SIDES, KIT.follower_gripper)).nearest(level))
    assert distances[0].distance_m > 0.02
    assert distances[1].distance_m < distances[0].distance_m


def test_one_follower_has_the_table_only() -> None:
    arm = Scene("follower", {"right": (0.0, 0.0, 0.0)}, dict.fromkeys(SIDES, KIT.follower_gripper))
    assert arm.nearest(pose_vector(START_POSE, 0.0)).second == "table"
    assert arm.nearest(pose_vector((0.0, -1.0, -0.5, 0.0, 0.0, 0.0), 0.0)).distance_m <= FAR_M
