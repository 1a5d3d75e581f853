"""One episode of one contender, in a worker process of `aloha eval`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import ACTION
from aloha_runtime.act.ensemble import Mode
from aloha_runtime.act.execution import execution_of
from aloha_runtime.act.worker import Predict, predictor
from aloha_runtime.commands.evaluate_figures import SCRIPTED, Contender, Outcome, Trial
from aloha_runtime.commands.report_video import CODEC, FPS
from aloha_runtime.config import policy_path
from aloha_runtime.data.video import Image
from aloha_runtime.data.video_encoder import VideoEncoder
from aloha_runtime.errors import CheckpointError
from aloha_runtime.robot import CONTROL_HZ, DOF, Vector
from aloha_runtime.sim.env import IMAGE_PREFIX, Env, Observation, make_env
from aloha_runtime.sim.rig_env import RigEnv

WIDTH, HEIGHT = 640, 480
INSET = (160, 120)
"""The policy's own view in a corner of the video: width, height."""
WHITE, DARK = (235, 235, 235), (24, 24, 24)
LAST_FRAMES = FPS // 2
"""The end is shown for half a second more."""


class Pilot(Protocol):
    """Who acts in an environment."""

    seen: Observation
    """What it last looked at."""

    def reset(self, env: Env) -> None:
        """At the start of an episode."""

    def __call__(self, env: Env) -> Vector:
        """The action (14,) for an environment as it stands; called once for each step."""


def player(
    contenders: tuple[Contender, ...], task: str, max_steps: int | None, device: str = "cpu"
) -> Callable[[Trial], Outcome]:
    """A worker's set-up: every policy loaded on `device`, and the function that plays one episode.

    Raises:
        CheckpointError: a policy is absent, damaged, or wants what the task does not give.
        SimulationError: the task cannot run here.
    """
    seats: list[tuple[Env, Pilot]] = []
    loaded: dict[str, tuple[Env, ACTPolicy, Predict]] = {}
    for contender in contenders:
        if contender.policy == SCRIPTED:
            seats.append((make_env(task, {}, max_steps), Scripted()))
            continue
        if contender.policy not in loaded:
            loaded[contender.policy] = _load(contender.policy, task, max_steps, device)
        env, policy, predict = loaded[contender.policy]
        seats.append((env, Ensembled(policy, predict, contender.ensemble)))

    def play(trial: Trial) -> Outcome:
        try:
            return run(*seats[trial.contender], trial)
        except ValueError as error:  # numbers that are not finite must not move an arm
            name = contenders[trial.contender].policy
            raise CheckpointError(f"policy {name} failed at seed {trial.seed}: {error}") from error

    return play


def run(env: Env, pilot: Pilot, trial: Trial) -> Outcome:
    """One episode, until the task is solved or time is over."""
    video = None if trial.video is None else EpisodeVideo(trial.video, f"seed {trial.seed}")
    env.reset(seed=trial.seed)
    pilot.reset(env)
    best = steps = 0
    solved = over = False
    try:
        while not (solved or over):
            action = pilot(env)
            if video is not None and steps % (CONTROL_HZ // FPS) == 0:
                video.add(env, pilot, steps)
            solved, over = env.advance(action)
            steps += 1
            best = max(best, env.stage)
        if video is not None:
            video.end(env, pilot, steps, solved)
    except BaseException:
        if video is not None:
            video.discard()
        raise
    return Outcome(trial.seed, solved, best, steps, steps if solved else None)


class Ensembled:
    """A policy as it runs on the robot: chunks, ensembled by absolute step. Call it once for each step.

    `paper` and `newest` predict at every step; `off` executes `n_action_steps` of a chunk (all of it,
    where the policy says that it is ensembled) before it looks again.
    """

    def __init__(self, policy: ACTPolicy, predict: Predict, mode: Mode) -> None:
        execution = execution_of(policy.config, mode)
        self._predict = predict
        self._every = execution.steps if mode == "off" else 1
        self._ensemble = execution.ensemble()
        self._step = 0
        self.seen: Observation = {}

    def reset(self, env: Env) -> None:
        self._ensemble.reset()
        self._step = 0

    def __call__(self, env: Env) -> Vector:
        if self._step % self._every == 0:
            self.seen = env.observe()
            self._ensemble.add(self._step, self._predict(self.seen))
        action = self._ensemble.action(self._step)
        assert action is not None, "a chunk is at least as long as the steps that are executed of it"
        self._step += 1
        return action


class Scripted:
    """The demonstrator: knows where the objects are, and looks at nothing."""

    def __init__(self) -> None:
        self.seen: Observation = {}

    def reset(self, env: Env) -> None:
        self._next = env.demonstrator()

    def __call__(self, env: Env) -> Vector:
        return self._next()


class EpisodeVideo:
    """H.264 of one episode at 25 frames a second, the policy's own view in a corner."""

    def __init__(self, path: Path, title: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._title = title
        self._encoder = VideoEncoder(path, HEIGHT, WIDTH, FPS, CODEC)

    def add(self, env: Env, pilot: Pilot, step: int) -> None:
        """The environment as it now stands."""
        self._encoder.put(self._frame(env, pilot, step, f"stage {env.stage} of 4"))

    def end(self, env: Env, pilot: Pilot, step: int, solved: bool) -> None:
        """The last picture for a while, and the file is whole."""
        frame = self._frame(env, pilot, step, "solved" if solved else "time is over")
        for _ in range(LAST_FRAMES):
            self._encoder.put(frame)
        self._encoder.finish()

    def discard(self) -> None:
        self._encoder.discard()

    def _frame(self, env: Env, pilot: Pilot, step: int, state: str) -> Image:
        picture = env.render(WIDTH, HEIGHT).copy()
        views = [pixels for name, pixels in pilot.seen.items() if name.startswith(IMAGE_PREFIX)]
        if views and isinstance(env, RigEnv):  # gym-aloha's picture is itself what the policy sees
            width, height = INSET
            picture[-height - 8 : -8, 8 : width + 8] = cv2.resize(views[0], INSET, interpolation=cv2.INTER_AREA)
            cv2.rectangle(picture, (7, HEIGHT - height - 9), (width + 8, HEIGHT - 8), WHITE, 1)
        caption = f"{self._title}   {step / CONTROL_HZ:.2f} s   {state}"
        cv2.rectangle(picture, (0, 0), (WIDTH, 30), DARK, cv2.FILLED)
        cv2.putText(picture, caption, (12, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.55, WHITE, 1, cv2.LINE_AA)
        return picture


def _load(name: str, task: str, max_steps: int | None, device: str) -> tuple[Env, ACTPolicy, Predict]:
    """A policy and the environment with the pictures that it wants."""
    policy = ACTPolicy.from_pretrained(policy_path(name))
    try:
        policy.to(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA, no GPU, or no such device
        raise CheckpointError(f"policy {name} cannot run on --device {device}: {str(error).splitlines()[0]}") from error
    env = make_env(task, policy.config.cameras, max_steps)
    _refuse_unfit(name, policy.config, env)
    return env, policy, predictor(policy, threads=1)


def _refuse_unfit(name: str, config: ACTConfig, env: Env) -> None:
    """Raise `CheckpointError` unless the vectors of a policy are those of the environment."""
    there = env.reset(seed=0)[0]
    for feature, shape in (*config.input_shapes.items(), *config.output_shapes.items()):
        given = (DOF,) if feature == ACTION else there[feature].shape
        if not feature.startswith(IMAGE_PREFIX) and given != tuple(shape):
            raise CheckpointError(
                f"policy {name} has {feature} {tuple(shape)}, the task {env.task} {given}; "
                "use a policy trained on this task"
            )
