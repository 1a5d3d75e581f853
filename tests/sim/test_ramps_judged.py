"""Every ramp from random poses and from the poses of the kits, judged by MuJoCo: nothing sweeps into the table or the
other arm. `-rP` shows how many ways are straight, in stages, or refused."""

from collections import Counter

import numpy as np
import pytest
from mujoco_arms import MujocoArms

from aloha_runtime import config
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.control.limits import default_limits
from aloha_runtime.control.ramp import FINEST_M, YIELD_M, Way, finished, planner_for
from aloha_runtime.control.shape import scene_of
from aloha_runtime.robot import KITS, Role, Vector, joint_limits, pose_vector

STEP_RAD = 0.03
"""Of the fastest joint, between two poses that the judge looks at: 21 mm at the arm's reach."""
RANDOM_POSES = {"follower": 500, "leader": 200}
MINIMUM_M = GuardConfig().minimum_distance_m


def judge_of(role: Role) -> MujocoArms:
    """Leaders, whose places are not published, have to do with the table only."""
    bases = GuardConfig().bases() if role == "follower" else dict.fromkeys(("left", "right"), (0.0, 0.0, 0.0))
    return MujocoArms(role, bases, KITS["aloha"].gripper(role), hands=True, together=role == "follower")


def legal_poses(role: Role, judge: MujocoArms) -> list[Vector]:
    """Poses within the joint limits in which nothing overlaps, as the judge says: the others cannot be."""
    limits, random, found = default_limits(role), np.random.default_rng(10), []
    while len(found) < RANDOM_POSES[role]:
        pose = random.uniform(limits.low, limits.high)
        if judge.nearest(pose).distance_m > 0:
            found.append(pose)
    return found


def swept(start: Vector, way: Way) -> np.ndarray:
    """Poses (N, 14) along a way."""
    poses = [start[None]]
    for stage in way.stages:
        last = poses[-1][-1]
        count = int(np.abs(stage - last).max() / STEP_RAD) + 2
        poses.append(np.linspace(last, stage, count)[1:])
    return np.concatenate(poses)


def assert_clear(judge: MujocoArms, start: Vector, way: Way) -> float:
    """Every pair of parts keeps the minimum, or goes only away from where it began; the smallest distance."""
    distances = np.array([judge.distances(pose) for pose in swept(start, way)])
    allowed = np.minimum(MINIMUM_M, np.maximum.accumulate(distances, axis=0)) - YIELD_M - FINEST_M / 2
    assert (distances >= allowed).all(), (start.tolist(), way, float((distances - allowed).min()))
    return float(distances.min())


@pytest.mark.parametrize("role", RANDOM_POSES)
def test_from_random_legal_poses_no_ramp_sweeps_into_the_table_or_the_other_arm(role: Role) -> None:
    judge, rig = judge_of(role), config.load("aloha")
    planner, home = planner_for(rig, role), pose_vector(rig.start_pose, 0.0)
    count: Counter[str] = Counter()
    for start in legal_poses(role, judge):
        way = finished(planner.plan(start, home, "start"))
        count["straight" if len(way.stages) == 1 else "in stages" if way.stages else "refused"] += 1
        if way.refusal:
            assert "first move" in way.refusal
        else:
            assert (way.stages[-1] == home).all()
            assert_clear(judge, start, way)
    print(role, dict(count))
    assert count["refused"] <= 0.01 * RANDOM_POSES[role]
    assert count["in stages"] >= 0.01 * RANDOM_POSES[role], "a straight ramp would not do"


def test_straight_ramps_do_sweep_into_the_table() -> None:
    """Without a planner some of them would: the test above can fail."""
    judge = judge_of("follower")
    home = pose_vector(config.load("aloha").start_pose, 0.0)
    hit = 0
    for start in legal_poses("follower", judge)[:150]:
        distances = [judge.nearest(pose).distance_m for pose in swept(start, Way((home,)))]
        hit += min(distances) < 0
    assert hit > 0


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("role", RANDOM_POSES)
def test_between_the_poses_of_the_kits_ramps_are_straight_and_clear(kit: str, role: Role) -> None:
    judge, rig = judge_of(role), config.load(kit)
    planner = planner_for(rig, role)
    home, asleep = (pose_vector(pose, 0.0) for pose in (rig.start_pose, rig.sleep_pose(role)))
    for start, end in ((home, asleep), (asleep, home)):
        way = finished(planner.plan(start, end, "start"))
        assert len(way.stages) == 1
        assert assert_clear(judge, start, way) > MINIMUM_M


def test_a_part_that_comes_near_for_a_moment_is_seen() -> None:
    """A forearm that swings past the other arm's hand, its nearest far from where the first looks are taken."""
    judge, rig = judge_of("follower"), config.load("aloha")
    planner = planner_for(rig, "follower")
    unseen = 0
    for start in legal_poses("follower", judge)[:150]:
        for change in np.eye(14)[[0, 1, 2, 7, 8, 9]]:
            end = np.clip(start + 1.5 * change, *joint_limits("follower"))
            straight = Way((end,))
            if judge.nearest(end).distance_m <= 0:
                continue
            if finished(planner._blocked(planner._scene, [start, end])) is None:
                distances = np.array([judge.distances(pose) for pose in swept(start, straight)])
                least = np.minimum(planner._margin_m, np.minimum(distances[0], distances[-1]))
                unseen += bool((distances < least - YIELD_M - FINEST_M / 2).any())
    assert unseen == 0


@pytest.mark.parametrize("kit", KITS)
def test_parking_from_random_poses_is_clear_as_well(kit: str) -> None:
    judge, rig = judge_of("follower"), config.load(kit)
    planner, asleep = planner_for(rig, "follower"), pose_vector(rig.sleep_pose("follower"), 0.0)
    refused = 0
    for start in legal_poses("follower", judge)[:60]:
        way = finished(planner.plan(start, asleep, "sleep"))
        refused += not way.stages
        if way.stages:
            assert_clear(judge, start, way)
    assert refused <= 1


def test_the_judge_and_the_planner_see_the_same_rig() -> None:
    scene = scene_of(config.load("aloha"), "follower", hands=True)
    pose = pose_vector(config.load("aloha").start_pose, 0.3)
    assert scene.nearest(pose).distance_m == pytest.approx(judge_of("follower").nearest(pose).distance_m, abs=1e-9)
