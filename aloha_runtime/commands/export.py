"""`aloha export`: a faster engine of a checkpoint, with its error against eager measured before it may run.

An engine that loses precision is calibrated and judged on frames of a dataset: every second one of those drawn evenly
from it sets the ranges, the others are what the error is measured on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act import engine_files as files
from aloha_runtime.act.config import IMAGE_PREFIX
from aloha_runtime.act.engine_choice import durations, engine_of_graph, open_engine, some_observation
from aloha_runtime.act.engines import FP32_ENGINES, JUDGED_ENGINES, CudaEngine, EagerEngine, Engine
from aloha_runtime.config import policy_path
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import CheckpointError, DatasetError

FRAMES = 200
"""Half of them calibrate: ranges of activations change little after some dozens of frames."""
MIN_FRAMES = 20

Frames = list[Mapping[str, Any]]


def export(checkpoint: str, engine: str, calibration: Path | None, threads: int = 2) -> None:
    """Make, measure and record one engine; prints a line with error and speed.

    Raises:
        CheckpointError: no such engine, a checkpoint that cannot be read, or an engine too far from eager.
        DatasetError: an engine that needs frames was given none, or a dataset of another robot.
    """
    exported = (*FP32_ENGINES, *JUDGED_ENGINES)
    if engine not in exported:
        raise CheckpointError(f"there is nothing to export for engine {engine!r}; choose one of {', '.join(exported)}")
    directory = policy_path(checkpoint)
    if calibration is None and engine in JUDGED_ENGINES:
        raise DatasetError(
            f"engine {engine} loses precision, so it is judged on frames the policy will see: give a dataset of its "
            "task, --calibration DATASET"
        )
    policy = ACTPolicy.from_pretrained(directory)
    frames = [some_observation(policy)] * 2 if calibration is None else read_frames(policy.config, calibration)
    made = make_engine(policy, directory, engine, frames[::2], threads)
    eager = EagerEngine(policy, threads)
    held_out = frames[1::2]
    error = files.measure_error(policy, made, held_out, [eager.predict(frame) for frame in held_out])
    ms = durations([eager, made], held_out[0])
    _say(made, error, ms, files.home(directory))
    files.judge(engine, error)
    if engine in JUDGED_ENGINES:
        record = files.Record(engine, files.graph_of(engine), files.digest(directory), error, str(calibration))
        files.write_record(files.home(directory), record)


def make_engine(policy: ACTPolicy, directory: Path, name: str, calibration: Frames, threads: int) -> Engine:
    """The engine, its graph made again where it has one of its own; not judged yet."""
    if name in FP32_ENGINES:
        return open_engine(name, policy, directory, threads)
    (files.home(directory) / f"{name}.json").unlink(missing_ok=True)  # what it says ends here
    if name == "cuda-fp16":
        files.home(directory).mkdir(parents=True, exist_ok=True)
        return CudaEngine(policy)
    graph = files.ensure_fp32(policy, directory)
    if name == "onnx-int8":
        int8 = files.home(directory) / files.INT8_GRAPH
        files.quantize(policy, graph, int8, calibration)
        graph = int8
    return engine_of_graph(name, graph, policy, threads)


def read_frames(config: ACTConfig, path: Path) -> Frames:
    """Up to `FRAMES` observations, evenly from a dataset that has what the policy looks at."""
    dataset = Dataset(path)
    for name, shape in config.input_shapes.items():
        camera = name.removeprefix(IMAGE_PREFIX)
        size = dataset.cameras.get(camera)
        if size is None and name not in dataset.info.vectors:
            raise DatasetError(f"{path} has no {name}, which the policy needs; give a dataset of the policy's own task")
        if size is not None and size != shape[1:]:
            raise DatasetError(f"{path}: {name} is {size[1]}x{size[0]}, the policy's is {shape[2]}x{shape[1]}")
    if len(dataset) < MIN_FRAMES:
        raise DatasetError(f"{path} has {len(dataset)} frames; calibration needs at least {MIN_FRAMES}")
    vectors = {name: dataset.vectors(name) for name in config.input_shapes if name not in config.images}
    frames: Frames = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, FRAMES).astype(int)).tolist():
        frame: dict[str, Any] = {name: values[index] for name, values in vectors.items()}
        frame.update({name: dataset.frame(name.removeprefix(IMAGE_PREFIX), index) for name in config.images})
        frames.append(frame)
    return frames


def _say(engine: Engine, error: files.Error, ms: Mapping[str, float], home: Path) -> None:
    speed = " ".join(f"{name} {value:.1f} ms" for name, value in ms.items())
    Console(highlight=False).print(
        f"{engine.name} in {home}: {error.normalized_p99:.2g} from eager in normalised units (99th percentile of "
        f"{error.frames} frames; largest {error.normalized_max:.2g}), {error.mrad_p99:.2g} mrad (largest "
        f"{error.mrad_max:.2g}); {speed}",
        soft_wrap=True,
    )
