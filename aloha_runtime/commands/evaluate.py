"""`aloha eval`: a policy on the simulated rig over many seeds, in virtual time and parallel workers."""

import json
import math
import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from aloha_runtime.act import ACTPolicy, TemporalEnsemble
from aloha_runtime.act.config import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE
from aloha_runtime.act.worker import predictor
from aloha_runtime.config import policy_path
from aloha_runtime.robot import IS_GRIPPER, Vector
from aloha_runtime.sim.episode import Controller, Observation, demonstration, run_episode
from aloha_runtime.sim.model import Task
from aloha_runtime.sim.render import Renderer
from aloha_runtime.sim.world import World

EPISODE_TICKS = 400
"""8 s: demonstrations take 5.4 s on average, and a policy may hesitate."""
START_OFFSET_RAD = 0.01
"""Arms start this much beside the start pose at most, as they do after a ramp."""
Z95 = 1.959964
"""Quantile of the normal distribution for a 95 % interval."""


@dataclass(frozen=True)
class Outcome:
    """One episode. `stage`: the furthest reached (0..4); `ticks`: until success, or all."""

    seed: int
    success: bool
    stage: int
    ticks: int


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson 1927): right also for few trials and for rates near 0 and 1."""
    if not trials:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z95 * Z95
    centre = rate + z2 / (2 * trials)
    half = Z95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def evaluate(policy: str, task: Task, episodes: int, first_seed: int, workers: int, out: Path | None) -> list[Outcome]:
    """Run `episodes` seeds from `first_seed`; prints the rate, writes JSON.

    `policy`: a directory, `demo`, or `scripted` (the demonstrator, as an upper bound)."""
    if policy != "scripted":
        ACTPolicy.from_pretrained(policy_path(policy))  # an error here is one message, not one per worker
    context = multiprocessing.get_context("spawn")
    seeds = range(first_seed, first_seed + episodes)
    with context.Pool(min(workers, episodes), initializer=_start_worker, initargs=(policy, task)) as pool:
        outcomes = list(track(pool.imap(_one_episode, seeds), f"{task} by {policy}", total=episodes))
    _report(policy, task, outcomes, out)
    return outcomes


def _report(policy: str, task: Task, outcomes: list[Outcome], out: Path | None) -> None:
    console = Console()
    solved = sum(outcome.success for outcome in outcomes)
    low, high = wilson(solved, len(outcomes))
    stages = [sum(outcome.stage >= stage for outcome in outcomes) for stage in range(1, 5)]
    console.print(f"{task} by {policy}: {solved} of {len(outcomes)} solved ({low:.0%} to {high:.0%})")
    console.print("reached stage " + ", ".join(f"{stage}: {count}" for stage, count in enumerate(stages, 1)))
    failed = [outcome.seed for outcome in outcomes if not outcome.success]
    if failed:
        console.print(f"failed seeds: {', '.join(map(str, failed))}")
    if out is not None:
        report = {
            "policy": policy,
            "task": task,
            "success_rate": solved / len(outcomes),
            "interval": [low, high],
            "stages": stages,
            "episodes": [asdict(outcome) for outcome in outcomes],
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")


_world: World
_policy: ACTPolicy | None
_cameras: dict[str, Renderer]


def _start_worker(policy: str, task: Task) -> None:
    global _world, _policy, _cameras  # noqa: PLW0603 — a pool's initializer has no other way to hand over
    _world, _policy, _cameras = World(task), None, {}
    if policy == "scripted":
        return
    _policy = ACTPolicy.from_pretrained(policy_path(policy))
    for camera, (height, width) in _policy.config.cameras.items():
        _cameras[camera] = Renderer(_world.model, width, height, camera)


def _one_episode(seed: int) -> Outcome:
    offset = np.random.default_rng([seed, 3]).uniform(-START_OFFSET_RAD, START_OFFSET_RAD, IS_GRIPPER.size)
    _world.reset(seed, _world.closed_start() + np.where(IS_GRIPPER, 0.0, offset))
    controller, ticks = demonstration(_world, seed) if _policy is None else (_act(_policy), EPISODE_TICKS)
    episode = run_episode(_world, seed, controller, ticks, _cameras)
    solved = np.flatnonzero(episode.stages == episode.stages.max())
    return Outcome(seed, episode.success, int(episode.stages.max()), int(solved[0]) if episode.success else ticks)


def _act(policy: ACTPolicy) -> Controller:
    """The policy as the policy process runs it: a chunk at every tick, ensembled by absolute tick."""
    predict = predictor(policy, threads=1)
    ensemble = TemporalEnsemble("paper")
    tick = -1

    def act(observation: Observation) -> Vector:
        nonlocal tick
        tick += 1
        inputs: dict[str, Any] = {STATE: observation.state.astype(np.float32)}
        inputs |= {IMAGE_PREFIX + name: picture for name, picture in observation.images.items()}
        if ENVIRONMENT_STATE in policy.config.input_shapes:
            inputs[ENVIRONMENT_STATE] = observation.environment_state.astype(np.float32)
        ensemble.add(tick, predict(inputs))
        action = ensemble.action(tick)
        assert action is not None, "the chunk just added covers this tick"
        return action

    return act


def default_workers() -> int:
    """One worker a core."""
    return len(os.sched_getaffinity(0))
