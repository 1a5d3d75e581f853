"""Ways to run a policy, behind one small interface. `eager` is the reference; every other is held against it.

| name | what runs | from |
|---|---|---|
| eager | `ACTPolicy` itself, float32 or on a GPU | the checkpoint |
| onnx-fp32, openvino-fp32 | the folded network (`fold.py`), on a CPU | `engines/fp32.onnx`, made at the first start |
| openvino-bf16 | the same file in bfloat16, on a CPU that has it | the same, after `aloha export` has judged it |
| onnx-int8 | convolutions and linear layers in 8 bits, on a CPU | `engines/int8.onnx`, made by `aloha export` |
| cuda-fp16 | the folded network in float16 as one captured graph | the checkpoint, after `aloha export` has judged it |

Which libraries are loaded depends on the engine: eager loads none of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from aloha_runtime.act.config import IMAGE_PREFIX, ACTConfig
from aloha_runtime.act.fold import FoldedACT
from aloha_runtime.act.policy import ACTPolicy
from aloha_runtime.errors import CheckpointError

Observation = Mapping[str, Any]
Chunk = NDArray[np.float32]

EAGER = "eager"
FP32_ENGINES = ("onnx-fp32", "openvino-fp32")
JUDGED_ENGINES = ("onnx-int8", "openvino-bf16", "cuda-fp16")
"""These lose precision: `aloha export` measures how much, on real frames, before any of them may run."""
ON_GPU = ("cuda-fp16",)
"""Run on a GPU alone; `eager` runs on either, all others on a CPU."""
ENGINES = (EAGER, *FP32_ENGINES, *JUDGED_ENGINES)
WARM_UP = 3
"""Inferences before a graph is captured or a duration counts: memory is allocated and kernels are chosen by then."""
INSTALL = 'install it with: pip install "aloha-runtime[export]"'


class Engine(Protocol):
    """Runs one policy on one observation."""

    name: str

    def predict(self, observation: Observation) -> Chunk:
        """Observation in raw units -> chunk (C, 14) in raw units. `ValueError` for one of the wrong kind."""

    def close(self) -> None:
        """Gives back what it holds."""


class EagerEngine:
    """The policy as it is, where it is."""

    name = EAGER

    def __init__(self, policy: ACTPolicy, threads: int) -> None:
        torch.set_num_threads(threads)
        self._policy = policy

    def predict(self, observation: Observation) -> Chunk:
        return np.asarray(self._policy.predict_action_chunk(observation).cpu().numpy(), dtype=np.float32)

    def close(self) -> None: ...


class OnnxEngine:
    """A graph of `export_onnx` in ONNX Runtime, on a CPU."""

    def __init__(self, name: str, graph: Path, config: ACTConfig, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise CheckpointError(f"engine {name} needs onnxruntime; {INSTALL}") from error
        self.name = name
        self._config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait busily between inferences would take the core from the arms.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._names = [item.name for item in self._session.get_inputs()]

    def predict(self, observation: Observation) -> Chunk:
        arrays = as_arrays(self._config, observation)
        return np.asarray(self._session.run(None, {name: arrays[name] for name in self._names})[0], dtype=np.float32)

    def close(self) -> None:
        del self._session


class OpenVinoEngine:
    """The same graph in OpenVINO, on a CPU. `precision`: f32, or bf16 where the CPU has it."""

    def __init__(self, name: str, graph: Path, config: ACTConfig, threads: int, precision: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise CheckpointError(f"engine {name} needs openvino; {INSTALL}") from error
        self.name = name
        self._config = config
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise CheckpointError(f"engine {name}: this CPU has no bfloat16 arithmetic; use another engine, or auto")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,  # left out, OpenVINO chooses bf16 without a word
        }
        model = core.compile_model(str(graph), "CPU", settings)
        self._names = [item.any_name for item in model.inputs]
        self._request = model.create_infer_request()

    def predict(self, observation: Observation) -> Chunk:
        arrays = as_arrays(self._config, observation)
        result = self._request.infer([arrays[name] for name in self._names], share_inputs=True)
        return np.array(result[0], dtype=np.float32)  # a copy: the request uses its memory again

    def close(self) -> None:
        del self._request


class CudaEngine:
    """The folded network in float16 on a GPU, captured as one graph: no kernel waits for Python.

    Observations are copied into the graph's own inputs, pixels as bytes.
    """

    name = "cuda-fp16"

    def __init__(self, policy: ACTPolicy) -> None:
        if not torch.cuda.is_available():
            raise CheckpointError("engine cuda-fp16 needs a GPU that PyTorch can use, and there is none; use auto")
        self._config = policy.config
        folded = FoldedACT(policy).half_precision().cuda()
        folded.to(memory_format=torch.channels_last)
        blank = blank_observation(policy.config)
        self._inputs = {name: torch.from_numpy(blank[name]).cuda() for name in folded.names}
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        inputs = list(self._inputs.values())
        with torch.inference_mode():
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    folded(*inputs)
            self._stream.synchronize()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._output = folded(*inputs)
        self._folded = folded  # the graph reads its weights

    @torch.inference_mode()
    def predict(self, observation: Observation) -> Chunk:
        arrays = as_arrays(self._config, observation)
        with torch.cuda.stream(self._stream):
            for name, place in self._inputs.items():
                place.copy_(torch.from_numpy(arrays[name]), non_blocking=True)
            self._graph.replay()
            chunk = self._output.cpu()  # waits for the stream
        return np.asarray(chunk.numpy(), dtype=np.float32)

    def close(self) -> None:
        del self._graph, self._folded, self._output


def as_arrays(config: ACTConfig, observation: Observation) -> dict[str, NDArray[Any]]:
    """An observation as the folded network takes it: uint8 (H, W, 3) and float32 (n,), contiguous.

    Raises `ValueError` for one that lacks an input or has it in another form (a batch, floats for pixels).
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, shape in config.input_shapes.items():
        if name not in observation:
            raise ValueError(f"observation lacks {name}; the policy needs {', '.join(config.input_shapes)}")
        value = np.asarray(observation[name])
        is_image = name.startswith(IMAGE_PREFIX)
        wanted = (*shape[1:], shape[0]) if is_image else shape
        if value.shape != wanted or (is_image and value.dtype != np.uint8):
            kind = "uint8 pixels" if is_image else "numbers"
            raise ValueError(f"{name} is {value.dtype} {value.shape}; this engine takes {kind} of shape {wanted}")
        arrays[name] = np.ascontiguousarray(value, dtype=np.uint8 if is_image else np.float32)
    return arrays


def blank_observation(config: ACTConfig) -> dict[str, NDArray[Any]]:
    """Black pictures and zeros, for a first inference."""
    blank: dict[str, NDArray[Any]] = {name: np.zeros(shape, np.float32) for name, shape in config.input_shapes.items()}
    blank.update({name: np.zeros((height, width, 3), np.uint8) for name, (_, height, width) in config.images.items()})
    return blank
