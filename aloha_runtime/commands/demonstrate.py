"""Record scripted demonstrations on the simulated rig or in gym-aloha, in virtual time, as a LeRobot dataset.

An episode starts as deployment does: arms in START_POSE, grippers closed, leaders at rest in the same pose.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.data.recorded import ENVIRONMENT
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.robot import CONTROL_HZ, DOF, IS_GRIPPER, NAMES, Vector
from aloha_runtime.sim import gym_demonstration
from aloha_runtime.sim.env import GYM_TASKS, check_name
from aloha_runtime.sim.episode import Episode, demonstration, run_episode
from aloha_runtime.sim.gym_demonstration import GymEpisode
from aloha_runtime.sim.gym_env import CAMERA, MAX_STEPS, GymEnv
from aloha_runtime.sim.model import Task
from aloha_runtime.sim.render import Renderer
from aloha_runtime.sim.tasks import environment_names
from aloha_runtime.sim.world import World

TASK_TEXT: dict[Task, str] = {
    "transfer_cube": "Pick up the cube with the right arm and hand it to the left arm.",
    "insertion": "Pick up peg and socket and insert the peg into the socket.",
}

PUSH_RAD = 0.012
"""Largest standard deviation of the pushes on the joints: about 5 mm at the tool, which most demonstrations survive."""

PUSH_TICKS = 8.0
"""Width of the Gaussian that smooths the pushes: they last about 0.3 s, longer than the servos' lag."""

START_OFFSET_RAD = 0.03
"""Arms start this much beside START_POSE at most: more than the sag they have there after a ramp."""

NICENESS = 5

BATCH = 8
"""Seeds handed to each worker at a time: finished episodes wait in memory, 15 MB each, until they are written."""

Size = tuple[int, int]
"""Width and height in pixels."""


def demonstrate(
    task: str,
    episodes: int,
    first_seed: int,
    out: Path,
    workers: int = 1,
    cameras: Mapping[str, Size] | None = None,
    with_object_poses: bool = False,
    report: Callable[[str], None] = print,
) -> Path:
    """Record `episodes` successful demonstrations of `task` from seeds `first_seed`, `first_seed` + 1, ... into `out`.

    `task`: one of the simulated rig, or an environment of gym-aloha, whose own pictures are then recorded.
    `cameras`: name to (width, height), cam_high at 160x120 unless given. `with_object_poses`: store where the objects
    are, for a policy that learns to estimate it (`estimate_dim`); LeRobot's trainer, and others, would take it as an
    input of the policy without being asked, and no camera gives it on a real robot.

    Failures are left out. Every episode is disturbed (smooth pushes, a start beside the start pose) so that a policy
    sees how to come back. The same seeds give the same numbers, whatever the number of workers.
    """
    task = task.removeprefix("gym_aloha/")
    in_gym = task in GYM_TASKS
    sizes = {CAMERA if in_gym else "cam_high": (160, 120)} if cameras is None else dict(cameras)
    scene = check_name(task)
    measured = {} if in_gym else {"observation.velocity": NAMES, "observation.effort": NAMES}
    vectors: dict[str, Sequence[str]] = {
        "observation.state": NAMES,
        **measured,
        **({ENVIRONMENT: environment_names(scene)} if with_object_poses else {}),
        "action": NAMES,
    }
    shapes = {name: (height, width) for name, (width, height) in sizes.items()}
    saved = tried = 0
    with DatasetWriter.create(out, vectors=vectors, cameras=shapes, fps=CONTROL_HZ) as writer:
        for episode in _episodes(task, first_seed, workers, sizes):
            tried += 1
            if not episode.solved_at_end:
                report(f"seed {episode.seed}: not solved, left out")
                continue
            _write(writer, episode, with_object_poses)
            writer.save_episode(TASK_TEXT[scene])
            saved += 1
            if saved % 10 == 0:
                report(f"{saved} of {episodes} episodes ({tried} tried)")
            if saved == episodes:
                break
    return out


def _episodes(task: str, first_seed: int, workers: int, sizes: Mapping[str, Size]) -> Iterator[Episode | GymEpisode]:
    """Episodes of consecutive seeds without end, in order, from worker processes."""
    # A fresh interpreter for each worker: an OpenGL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=os.nice, initargs=(NICENESS,)) as pool:
        wanted = tuple(sizes.items())
        in_gym = functools.partial(record_in_gym, task, wanted)
        on_rig = functools.partial(record_one, check_name(task), wanted)
        record = in_gym if task in GYM_TASKS else on_rig
        while True:
            yield from pool.imap(record, range(first_seed, first_seed + BATCH * workers))
            first_seed += BATCH * workers


@functools.cache
def _rig(task: Task, sizes: tuple[tuple[str, Size], ...]) -> tuple[World, dict[str, Renderer]]:
    """The world and cameras of this worker process, made once."""
    world = World(task)
    return world, {name: Renderer(world.model, width, height, name) for name, (width, height) in sizes}


def record_one(task: Task, sizes: tuple[tuple[str, Size], ...], seed: int) -> Episode:
    """The disturbed demonstration of one seed, solved or not; `sizes` as the items of `demonstrate`'s `cameras`."""
    world, cameras = _rig(task, sizes)
    random = np.random.default_rng([seed, 2])
    start = world.closed_start() + np.where(IS_GRIPPER, 0.0, random.uniform(-1, 1, DOF) * START_OFFSET_RAD)
    world.reset(seed, start)
    controller, ticks = demonstration(world, seed)
    return run_episode(world, seed, controller, ticks, cameras, pushes(random, ticks))


@functools.cache
def _gym(name: str) -> GymEnv:
    return GymEnv(name, cameras={})


def record_in_gym(name: str, sizes: tuple[tuple[str, Size], ...], seed: int) -> GymEpisode:
    """As `record_one`, in an environment of gym-aloha."""
    random = np.random.default_rng([seed, 2])
    return gym_demonstration.demonstrate(_gym(name), seed, pushes(random, MAX_STEPS), sizes[0][1])


def pushes(random: np.random.Generator, ticks: int) -> NDArray[np.float64]:
    """Smooth random pushes on the arm joints, (ticks, 14) rad; their strength is drawn once for the episode."""
    reach = int(3 * PUSH_TICKS)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / PUSH_TICKS) ** 2)
    window /= np.sqrt((window**2).sum())
    white = random.normal(size=(ticks + 2 * reach, DOF))
    smooth = np.stack([np.convolve(column, window, "valid") for column in white.T], axis=1)
    return np.asarray(np.where(IS_GRIPPER, 0.0, random.uniform(0.2, 1.0) * PUSH_RAD * smooth))


def _write(writer: DatasetWriter, episode: Episode | GymEpisode, with_object_poses: bool) -> None:
    columns: dict[str, NDArray[np.float64]] = {"observation.state": episode.state, "action": episode.action}
    if with_object_poses:
        columns[ENVIRONMENT] = episode.environment_state
    if isinstance(episode, Episode):
        columns |= {"observation.velocity": episode.velocity, "observation.effort": episode.effort}
    for tick in range(len(episode.action)):
        frame: dict[str, Vector | NDArray[np.uint8]] = {key: values[tick] for key, values in columns.items()}
        frame |= {f"observation.images.{name}": images[tick] for name, images in episode.images.items()}
        writer.add_frame(frame)
