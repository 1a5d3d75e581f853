"""Which engine runs a policy: the one that was asked for, or the fastest as measured here and now."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aloha_runtime.act.engine_files import (
    FP32_GRAPH,
    INT8_GRAPH,
    digest,
    ensure_fp32,
    home,
    judge,
    measure_error,
    read_record,
)
from aloha_runtime.act.engines import (
    EAGER,
    ENGINES,
    FP32_ENGINES,
    JUDGED_ENGINES,
    ON_GPU,
    WARM_UP,
    CudaEngine,
    EagerEngine,
    Engine,
    Observation,
    OnnxEngine,
    OpenVinoEngine,
    blank_observation,
)
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.errors import CheckpointError

AUTO = "auto"
RUNS = 7
"""Inferences of each candidate that are timed, in turns, so that whatever else the machine does falls on all."""


@dataclass(frozen=True)
class Choice:
    """The engine that runs, and what was measured of it and of those it was preferred to (name -> median ms)."""

    engine: Engine
    ms: Mapping[str, float]

    def __str__(self) -> str:
        others = ", ".join(f"{name} {ms:.1f}" for name, ms in self.ms.items() if name != self.engine.name)
        return f"engine {self.engine.name}, {self.ms[self.engine.name]:.1f} ms" + (f" ({others})" if others else "")


def open_engine(name: str, policy: ACTPolicy, directory: Path, threads: int) -> Engine:
    """The named engine of a checkpoint.

    Raises `CheckpointError` for one that is unknown, that cannot run on this machine or with this policy, and for one
    of less precision that `aloha export` has not let through for these very weights.
    """
    if name not in ENGINES:
        raise CheckpointError(f"there is no engine {name!r}; choose one of {', '.join((AUTO, *ENGINES))}")
    if name == EAGER:
        return EagerEngine(policy, threads)
    if name in JUDGED_ENGINES:
        judge(name, read_record(home(directory), name, digest(directory)).error)
    if name == "cuda-fp16":
        return CudaEngine(policy)
    graph = home(directory) / INT8_GRAPH if name == "onnx-int8" else ensure_fp32(policy, directory)
    engine = engine_of_graph(name, graph, policy, threads)
    if name in FP32_ENGINES:
        seen = [some_observation(policy)]
        judge(name, measure_error(policy, engine, seen, [EagerEngine(policy, threads).predict(seen[0])]))
    return engine


def engine_of_graph(name: str, graph: Path, policy: ACTPolicy, threads: int) -> Engine:
    """An engine on a graph that is known to be of this policy."""
    if name.startswith("onnx"):
        return OnnxEngine(name, graph, policy.config, threads)
    return OpenVinoEngine(name, graph, policy.config, threads, "bf16" if name.endswith("bf16") else "f32")


def choose(
    wanted: str, policy: ACTPolicy, directory: Path, threads: int, enough_ms: float, report: Callable[[str], None]
) -> Choice:
    """Open the engine `wanted`, warmed up; `auto` takes the fastest.

    When eager needs less than `enough_ms` and no graph has been made before, `auto` stays with it: there is nothing to
    gain, and the start and the memory stay those of torch alone. `report` hears why a candidate is not one.
    """
    if wanted != AUTO:
        engine = open_engine(wanted, policy, directory, threads)
        return Choice(engine, durations([engine], blank_observation(policy.config)))
    blank = blank_observation(policy.config)
    engines: list[Engine] = [EagerEngine(policy, threads)]
    ms = durations(engines, blank)
    if ms[EAGER] <= enough_ms and not (home(directory) / FP32_GRAPH).exists():
        return Choice(engines[0], ms)
    for name in ENGINES[1:]:
        if (name in ON_GPU) != (policy.device.type == "cuda"):
            continue  # it would run elsewhere than where the policy is
        if name in JUDGED_ENGINES and not (home(directory) / f"{name}.json").exists():
            continue  # nobody asked for it
        try:
            engines.append(open_engine(name, policy, directory, threads))
        except (CheckpointError, OSError) as error:
            report(f"engine {name} is left out: {error}")
    ms = durations(engines, blank)
    best = min(engines, key=lambda engine: ms[engine.name])
    for engine in engines:
        if engine is not best:
            engine.close()
    return Choice(best, ms)


def durations(engines: list[Engine], observation: Observation) -> dict[str, float]:
    """Median duration of an inference of each engine, ms."""
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        for _ in range(WARM_UP):
            engine.predict(observation)
    for _ in range(RUNS):
        for engine in engines:
            begun_ns = time.perf_counter_ns()
            engine.predict(observation)
            taken[engine.name].append((time.perf_counter_ns() - begun_ns) / 1e6)
    return {name: statistics.median(values) for name, values in taken.items()}


def some_observation(policy: ACTPolicy) -> Observation:
    """Noise for pixels, and vectors half a deviation from the mean: an observation that no fold survives by luck."""
    random = np.random.default_rng(0)
    seen = dict(blank_observation(policy.config))
    for name, value in seen.items():
        if value.dtype == np.uint8:
            seen[name] = random.integers(0, 256, value.shape, dtype=np.uint8)
        elif name in policy.normalizer.offset:
            offset, scale = (x[name].cpu().numpy() for x in (policy.normalizer.offset, policy.normalizer.scale))
            middle = policy.normalizer.shift[name] + random.uniform(-0.5, 0.5, value.shape)
            seen[name] = (offset + scale * middle).astype(np.float32)
    return seen
