"""Tasks: start poses by seed, and stages as the original tasks reward them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aloha_runtime.sim import tasks
from aloha_runtime.sim.episode import Observation, demonstration, run_episode
from aloha_runtime.sim.gl import ensure_gl
from aloha_runtime.sim.model import TASKS, Task
from aloha_runtime.sim.world import World


def original(task: Task) -> Any:
    """gym-aloha's own task. Importing it settles dm-control's OpenGL for the whole process, so one is chosen first."""
    ensure_gl()
    from gym_aloha.tasks.sim import InsertionTask, TransferCubeTask

    return {"transfer_cube": TransferCubeTask, "insertion": InsertionTask}[task]()


@given(st.sampled_from(TASKS), st.integers(0, 2**32))
def test_objects_start_where_the_task_says(task: Task, seed: int) -> None:
    poses = tasks.draw_poses(task, seed)
    assert list(poses) == [item.name for item in tasks.OBJECTS[task]]
    for item in tasks.OBJECTS[task]:
        x, y, z, *quaternion = poses[item.name]
        assert item.x_range[0] <= x <= item.x_range[1]
        assert item.y_range[0] <= y <= item.y_range[1]
        assert z == tasks.START_HEIGHT_M
        assert quaternion == [1, 0, 0, 0]


def test_seeds_repeat_and_differ() -> None:
    first, again, other = (tasks.draw_poses("insertion", seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first["peg"], again["peg"])
    assert np.abs(first["peg"] - other["peg"]).max() > 1e-3
    assert np.abs(first["peg"][1] - first["socket"][1]) > 1e-3


def test_seeds_cover_the_table() -> None:
    places = np.array([tasks.draw_poses("transfer_cube", seed)["cube"][:2] for seed in range(500)])
    assert places.min(axis=0) == pytest.approx([0.0, 0.4], abs=0.005)
    assert places.max(axis=0) == pytest.approx([0.2, 0.6], abs=0.005)


@pytest.mark.parametrize("task", TASKS)
def test_stages_of_a_demonstration_are_the_original_rewards(task: Task) -> None:
    world = World(task, 12)
    names = SimpleNamespace(id2name=lambda index, kind: world.model.geom(index).name)
    physics = SimpleNamespace(data=world.data, model=names)
    theirs = original(task)
    controller, ticks = demonstration(world, 12)
    seen = []

    def watch(observation: Observation) -> np.ndarray:
        assert world.stage() == theirs.get_reward(physics)
        seen.append(world.stage())
        return controller(observation)

    episode = run_episode(world, 12, watch, ticks)
    assert set(seen) >= {0, 2, 4}
    assert episode.success
    assert episode.solved_at_end
