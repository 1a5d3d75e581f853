"""Inference on a CPU: every engine against our eager and against LeRobot, in turns, so that other load falls on all.

The standard network (ResNet-18, width 512, feed-forward 3200, chunk 100) with random weights, one observation at a
time, and the shipped policy. LeRobot runs in an environment of its own as a child process; without it that peer is
left out. Its time is that of the network alone, ours includes the way from uint8 pixels.

On a machine that is busy, two threads of PyTorch wait for each other far longer than they compute (100 ms became 4 s),
which says nothing of the engines: compare with `threads` 1 there.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import ACTION, STATE, aloha_inputs
from aloha_runtime.act.engine_choice import some_observation
from aloha_runtime.act.engine_files import judge, measure_error
from aloha_runtime.act.engines import FP32_ENGINES, WARM_UP, EagerEngine, Engine
from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.export import Frames, make_engine
from aloha_runtime.config import policy_path
from aloha_runtime.errors import CheckpointError

INTEROP = Path(__file__).parents[2] / ".venv-interop/bin/python"
LEROBOTS_SCRIPT = Path(__file__).parents[1] / "act/lerobot_inference.py"
LEROBOT = "LeRobot"
CASES = ((3, 224, 224), (1, 480, 640), (4, 480, 640))
"""Cameras, height, width."""
MIN_ROUNDS = 5
CALIBRATION, HELD_OUT = 12, 4
FP32_GOAL, REDUCED_GOAL = 1.6, 2.5
"""How many times faster than LeRobot's eager: in float32, and in fewer bits where the actions stay accurate."""


def run(seconds: float, threads: int) -> list[Row]:
    """Each case for `seconds`, and at least `MIN_ROUNDS` inferences of everyone."""
    rows = []
    for cameras, height, width in CASES:
        shapes = aloha_inputs({f"cam_{index}": (height, width) for index in range(cameras)})
        config = ACTConfig(input_shapes=shapes, pretrained_backbone=False)
        policy = ACTPolicy(config, _usual_stats(config)).eval()
        frames: Frames = [_frame(policy.config, seed) for seed in range(CALIBRATION + HELD_OUT)]
        with TemporaryDirectory(prefix="aloha-bench-") as folder, _lerobot(height, width, cameras, threads) as peer:
            policy.save_pretrained(folder)
            names = (*FP32_ENGINES, "onnx-int8", "openvino-bf16")
            rows += _case(f"{cameras}x{height}x{width}", policy, Path(folder), names, frames, peer, seconds, threads)
    with TemporaryDirectory(prefix="aloha-bench-") as folder:
        demo = ACTPolicy.from_pretrained(policy_path("demo"))
        demo.save_pretrained(folder)
        rows += _case(
            "shipped policy", demo, Path(folder), FP32_ENGINES, [some_observation(demo)] * 2, {}, seconds, threads
        )
    return rows


def _case(
    title: str,
    policy: ACTPolicy,
    folder: Path,
    names: tuple[str, ...],
    frames: Frames,
    peer: Mapping[str, Callable[[], float]],
    seconds: float,
    threads: int,
) -> list[Row]:
    """Rows of one network: error and durations of each engine, and the goals."""
    engines: list[Engine] = [EagerEngine(policy, threads)]
    held_out = frames[-HELD_OUT:]
    reference = [engines[0].predict(frame) for frame in held_out]
    rows, accurate = [], []
    for name in names:
        try:
            engine = make_engine(policy, folder, name, frames[:CALIBRATION], threads)
            error = measure_error(policy, engine, held_out, reference)
        except CheckpointError as problem:  # such as a CPU without bfloat16
            Console().print(f"{title}: {problem}")
            continue
        engines.append(engine)
        rows.append(Row(f"{title}: {name}, error p99", error.normalized_p99, "normalised"))
        try:
            judge(name, error)
            accurate.append(name)
        except CheckpointError as problem:
            Console().print(f"{title}: {problem}")
    contenders = {engine.name: _timed(engine, held_out[0]) for engine in engines} | dict(peer)
    taken = in_turns(contenders, seconds)
    theirs = taken.get(LEROBOT)
    for name, ms in taken.items():
        for kind, figure in (("median", statistics.median), ("p99", _p99)):
            beside = None if theirs is None or name == LEROBOT else figure(theirs)
            rows.append(Row(f"{title}: {name}, {kind}", figure(ms), "ms", beside))
    return rows + _goals(title, taken, accurate)


def _goals(title: str, taken: Mapping[str, list[float]], accurate: list[str]) -> list[Row]:
    """How many times faster than LeRobot the fastest engine of each class is, of those that are accurate."""
    if LEROBOT not in taken:
        return []
    median = {name: statistics.median(ms) for name, ms in taken.items()}
    rows = []
    for text, goal, chosen in (
        ("float32", FP32_GOAL, [name for name in accurate if name in FP32_ENGINES]),
        ("fewer bits", REDUCED_GOAL, [name for name in accurate if name not in FP32_ENGINES]),
    ):
        if chosen:
            best = min(chosen, key=lambda name: median[name])
            ratio = median[LEROBOT] / median[best]
            rows.append(Row(f"{title}: LeRobot / {best} (best of {text})", ratio, "times", None, goal, ratio >= goal))
    return rows


def in_turns(contenders: Mapping[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """Durations (ms) of each contender, one of each after the other."""
    for contender in contenders.values():
        for _ in range(WARM_UP):
            contender()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    end, rounds = time.monotonic() + seconds, 0
    while rounds < MIN_ROUNDS or time.monotonic() < end:
        for name, contender in contenders.items():
            taken[name].append(contender())
        rounds += 1
    return taken


def _timed(engine: Engine, frame: Mapping[str, Any]) -> Callable[[], float]:
    def once() -> float:
        begun_ns = time.perf_counter_ns()
        engine.predict(frame)
        return (time.perf_counter_ns() - begun_ns) / 1e6

    return once


def _p99(ms: list[float]) -> float:
    return float(np.percentile(ms, 99))


@contextmanager
def _lerobot(height: int, width: int, cameras: int, threads: int) -> Iterator[dict[str, Callable[[], float]]]:
    """LeRobot's network as a contender; none where its environment is absent."""
    if not INTEROP.exists():
        Console().print("LeRobot is not installed beside this checkout (`make interop` does it): left out")
        yield {}
        return
    command = [str(INTEROP), str(LEROBOTS_SCRIPT), *map(str, (height, width, cameras, threads))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        asked, answers = child.stdin, child.stdout
        try:
            while (line := answers.readline()).strip() != "ready":
                if not line:
                    raise CheckpointError(f"{INTEROP} {LEROBOTS_SCRIPT.name} ended before it was ready; run it by hand")

            def once() -> float:
                asked.write("\n")
                asked.flush()
                return float(answers.readline())

            yield {LEROBOT: once}
        finally:
            child.kill()


def _usual_stats(config: ACTConfig) -> dict[str, dict[str, Any]]:
    """Statistics of the usual size: ImageNet's pixels, and joints that move by 0.2 rad."""
    usual = {STATE: (0.0, 0.2, (14,)), ACTION: (0.0, 0.2, (14,))} | dict.fromkeys(
        config.images, (0.45, 0.225, (3, 1, 1))
    )
    return {
        name: {"mean": np.full(shape, mean, np.float32), "std": np.full(shape, std, np.float32)}
        for name, (mean, std, shape) in usual.items()
    }


def _frame(config: ACTConfig, seed: int) -> dict[str, NDArray[Any]]:
    """Smooth random pictures, as a camera's are, and joints within a deviation."""
    random = np.random.default_rng(seed)
    frame: dict[str, NDArray[Any]] = {STATE: random.uniform(-0.2, 0.2, 14).astype(np.float32)}
    for name, (_, height, width) in config.images.items():
        coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        frame[name] = coarse.repeat(16, axis=0).repeat(16, axis=1)
    return frame
