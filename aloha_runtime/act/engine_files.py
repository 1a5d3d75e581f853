"""Graphs of a policy and what is known of them, in `engines/` of its directory.

    fp32.onnx, int8.onnx      the folded network; int8 with quantised convolutions and linear layers
    fp32.onnx.json            digest of the checkpoint that the graph was made from
    onnx-int8.json, ...       of an engine that loses precision: the same, and its error against eager on real frames

What names another digest than the checkpoint's is of other weights and is never run: a float32 graph is made again,
other engines are refused.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aloha_runtime.act.config import ACTION
from aloha_runtime.act.engines import (
    INSTALL,
    JUDGED_ENGINES,
    Engine,
    Observation,
    as_arrays,
    blank_observation,
)
from aloha_runtime.act.fold import FoldedACT
from aloha_runtime.act.header import CONFIG, OURS
from aloha_runtime.act.json_file import read_json
from aloha_runtime.act.pipeline_file import AFTER, BEFORE
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.errors import CheckpointError
from aloha_runtime.robot import IS_GRIPPER

FOLDER = "engines"
FP32_GRAPH, INT8_GRAPH = "fp32.onnx", "int8.onnx"
OPSET = 18
FP32_BOUND = 1e-4
"""Largest difference from eager that rounding in another order makes, in normalised units; 1e-6 to 1e-5 is usual."""
JUDGED_BOUND = 0.05
"""Largest for an engine of less precision, at the 99th percentile of all actions, in normalised units: the shipped
policy's own error on demonstrations it has not seen is 0.055 on average."""
JUDGED_BOUND_MRAD = 10.0
"""The same for joints: 10 mrad at the shoulder is 5 mm at an outstretched gripper (0.5 m)."""


@dataclass(frozen=True)
class Error:
    """Difference from eager over frames, steps and joints: normalised units, and mrad of the arms' joints."""

    normalized_p99: float
    normalized_max: float
    mrad_p99: float
    mrad_max: float
    frames: int


@dataclass(frozen=True)
class Record:
    """What is known of an exported engine."""

    engine: str
    graph: str
    source: str
    """Digest of the checkpoint that the graph was made from."""
    error: Error
    frames_from: str


def digest(directory: Path) -> str:
    """SHA-256 of everything in a policy directory that shapes its actions."""
    pipelines = [directory / f"{name}.json" for name in (BEFORE, AFTER)]
    paths = [directory / CONFIG, directory / OURS, *pipelines, *sorted(directory.glob("*.safetensors"))]
    whole = hashlib.sha256()
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def home(directory: Path) -> Path:
    """Where graphs of a checkpoint lie: in its directory, or in the user's cache where that cannot be written."""
    if os.access(directory, os.W_OK):
        return directory / FOLDER
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return cache / "aloha_runtime" / FOLDER / digest(directory)[:16]


def graph_of(name: str) -> str:
    """File of an engine's graph; empty for one that is made from the checkpoint itself."""
    return {"onnx-int8": INT8_GRAPH, "cuda-fp16": ""}.get(name, FP32_GRAPH)


def read_record(folder: Path, name: str, source: str) -> Record:
    """What was written of an engine's export. Raises `CheckpointError` when it is absent or of other weights."""
    path = folder / f"{name}.json"
    command = f"aloha export CHECKPOINT --engine {name}" + (" --calibration DATASET" if name in JUDGED_ENGINES else "")
    if not path.exists() or not (folder / graph_of(name)).exists():
        raise CheckpointError(f"engine {name} has not been exported to {folder}; run: {command}")
    content = read_json(path)
    try:
        error = Error(**content.pop("error"))
        record = Record(error=error, **content)
    except (KeyError, TypeError) as problem:
        names = ", ".join(field.name for field in fields(Record))
        raise CheckpointError(f"{path} does not hold {names} ({problem}); export it again: {command}") from problem
    if record.source != source:
        raise CheckpointError(f"{path} is of other weights than the checkpoint's; export it again: {command}")
    return record


def write_record(folder: Path, record: Record) -> None:
    aside = folder / f"{record.engine}.json.tmp"
    aside.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    aside.replace(folder / f"{record.engine}.json")


def ensure_fp32(policy: ACTPolicy, directory: Path) -> Path:
    """The float32 graph of a checkpoint, made (6 s for the standard network) unless there is one of these weights."""
    folder, source = home(directory), digest(directory)
    path = folder / FP32_GRAPH
    marker = folder / f"{FP32_GRAPH}.json"
    if path.exists() and marker.exists() and read_json(marker).get("source") == source:
        return path
    marker.unlink(missing_ok=True)
    export_onnx(policy, path)
    marker.write_text(json.dumps({"source": source}) + "\n", encoding="utf-8")
    return path


def export_onnx(policy: ACTPolicy, path: Path) -> None:
    """The folded network in float32 as an ONNX graph; the file appears whole."""
    try:
        import onnxscript  # noqa: F401 - the exporter would miss it with a traceback
    except ImportError as error:
        raise CheckpointError(f"making {path.name} needs onnx and onnxscript; {INSTALL}") from error
    folded = FoldedACT(policy)
    blank = blank_observation(policy.config)
    inputs = tuple(torch.from_numpy(blank[name]) for name in folded.names)
    with _aside(path) as aside, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            folded, inputs, str(aside), dynamo=True, verbose=False, external_data=False, opset_version=OPSET,
            input_names=folded.names, output_names=[ACTION],
        )  # fmt: skip


def quantize(policy: ACTPolicy, fp32: Path, path: Path, observations: Iterable[Observation]) -> None:
    """An int8 graph from a float32 one, its ranges taken from `observations`; the file appears whole.

    What stays in float32: products of two activations (attention: 2 % of the work), and `SENSITIVE` modules.
    `reduce_range` keeps weights to 7 bits, because AVX2 adds two products in 16 bits and saturates (error 0.39
    instead of 0.06, measured); CPUs with VNNI would not need it, but a graph travels.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._arrays = (as_arrays(policy.config, observation) for observation in observations)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._arrays, None)

    with _aside(path) as aside:
        quantize_static(
            str(fp32), str(aside), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=_sensitive(fp32),
            op_types_to_quantize=["Conv", "MatMul", "Gemm"], extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip


SENSITIVE = ("action_head.", "trunk.heat.", "spatial.", "pixels.")
"""Modules of `FoldedACT` that stay in float32, all small: actions in raw units, and the keypoints of the small trunk,
for which a step of 8 bits is a pixel; and what resizes pictures."""


def _sensitive(graph: Path) -> list[str]:
    """Names of the products that stay in float32: of a sensitive module, of a vector input, or with a vector (the
    soft-argmax of the small trunk)."""
    import onnx

    model = onnx.load(str(graph)).graph
    vectors = {item.name for item in model.input if len(item.type.tensor_type.shape.dim) == 1}
    vectors |= {item.name for item in model.initializer if len(item.dims) == 1}
    return [
        node.name
        for node in model.node
        if any(name.startswith(SENSITIVE) for name in node.input) or vectors.intersection(node.input[:2])
    ]


def measure_error(
    policy: ACTPolicy, engine: Engine, observations: Sequence[Observation], reference: Sequence[Any]
) -> Error:
    """How far an engine is from `reference`, the chunks (C, 14) that eager made of the same observations."""
    difference = np.stack(
        [np.abs(engine.predict(item) - chunk) for item, chunk in zip(observations, reference, strict=True)]
    )  # (frames, C, 14)
    if not np.isfinite(difference).all():
        raise CheckpointError(f"engine {engine.name} makes numbers that are not finite of this policy; use another")
    scale = policy.normalizer.scale.get(ACTION)
    normalized = difference if scale is None else difference / scale.cpu().numpy()
    arms = difference[..., ~IS_GRIPPER] if difference.shape[-1] == len(IS_GRIPPER) else difference
    return Error(
        normalized_p99=float(np.percentile(normalized, 99)),
        normalized_max=float(normalized.max()),
        mrad_p99=1000 * float(np.percentile(arms, 99)),
        mrad_max=1000 * float(arms.max()),
        frames=len(observations),
    )


def judge(name: str, error: Error) -> None:
    """Raise `CheckpointError` with the figure when an engine is too far from eager."""
    if name not in JUDGED_ENGINES:
        if error.normalized_max > FP32_BOUND:
            raise CheckpointError(
                f"engine {name} differs from eager by {error.normalized_max:.2g} (normalised units; allowed: "
                f"{FP32_BOUND:g}); use eager, and report it with the checkpoint"
            )
        return
    for value, bound, unit in (
        (error.normalized_p99, JUDGED_BOUND, "in normalised units"),
        (error.mrad_p99, JUDGED_BOUND_MRAD, "mrad"),
    ):
        if value > bound:
            raise CheckpointError(
                f"engine {name} differs from eager by {value:.3g} {unit} (99th percentile of {error.frames} frames; "
                f"allowed: {bound:g}); calibrate on more frames of the policy's own task, or use a float32 engine"
            )


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A path to write to, beside the final one, which it replaces when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        yield aside
        aside.replace(path)
