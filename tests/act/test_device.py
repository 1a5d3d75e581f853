"""Where a policy's network runs by default, and what a GPU that fails says."""

import logging
from pathlib import Path

import pytest
import torch

from aloha_runtime import config
from aloha_runtime.act import opening
from aloha_runtime.act.device import Device, choose_device
from aloha_runtime.act.opening import Opened, open_engine, open_policy
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import CheckpointError, ConfigError

NAME = "Made-up GPU"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PyTorch had found one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=0: NAME)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("wanted", "engine", "virtual", "name", "why"),
    [
        ("auto", "auto", False, "cuda", f"GPU {NAME}"),
        ("auto", "eager", False, "cuda", f"GPU {NAME}"),
        ("cuda:0", "auto", True, "cuda:0", f"GPU {NAME}"),
        ("auto", "cuda-fp16", False, "cuda", f"GPU {NAME}"),
        ("auto", "onnx-fp32", False, "cpu", "engine onnx-fp32 runs there"),
        ("auto", "auto", True, "cpu", "virtual time, in which actions are the same on any machine"),
        ("cpu", "auto", False, "cpu", "asked for"),
    ],
)
def test_a_gpu_is_used_unless_something_speaks_against_it(
    wanted: str, engine: str, virtual: bool, name: str, why: str
) -> None:
    found = choose_device(wanted, engine, virtual)
    assert (found.name, found.why, found.doubt) == (name, why, "")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("wanted", "engine", "said"),
    [
        ("cuda:1", "auto", "there are 1 GPUs"),
        ("cuda", "onnx-fp32", "engine onnx-fp32 runs on cpu only"),
        ("cpu", "cuda-fp16", "engine cuda-fp16 runs on cuda only"),
    ],
)
def test_a_device_that_cannot_be_is_refused(wanted: str, engine: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choose_device(wanted, engine)


def real_rig() -> RigConfig:
    return config.load("sim")


@pytest.mark.usefixtures("gpu")
def test_the_policy_process_loads_its_network_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Device] = []

    def note(path: Path, wanted: str, device: Device, *_: object) -> None:
        asked.append(device)
        raise CheckpointError("enough")

    monkeypatch.setattr(opening, "open_engine", note)
    with pytest.raises(CheckpointError, match="enough"):
        open_policy("demo", real_rig(), virtual=False, log=logging.getLogger("policy"))
    assert [device.name for device in asked] == ["cuda"]


def test_the_network_is_loaded_where_it_is_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def note(path: Path, device: str = "cpu") -> None:
        asked.append(device)
        raise CheckpointError("enough")

    monkeypatch.setattr(opening.ACTPolicy, "from_pretrained", note)
    with pytest.raises(CheckpointError, match="enough"):
        open_engine(Path("demo"), "eager", Device("cuda:1", f"GPU {NAME}"), 1, 5.0, print)
    assert asked == ["cuda:1"]


def test_a_gpu_that_does_not_compute_is_refused_and_no_cpu_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nand more")

    monkeypatch.setattr(opening.ACTPolicy, "from_pretrained", broken)
    with pytest.raises(CheckpointError, match=rf"demo cannot run on cuda \(GPU {NAME}\): CUDA error: no kernel .*cpu"):
        open_engine(Path("demo"), "eager", Device("cuda", f"GPU {NAME}"), 1, 5.0, print)


def test_what_is_said_of_a_lost_gpu_names_engine_device_and_remedy() -> None:
    class Eager:
        name = "eager"

    opened = Opened(None, Eager(), Device("cuda", f"GPU {NAME}"))  # type: ignore[arg-type]
    said = opened.failed(RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`"))
    assert said.startswith(
        f"inference failed, engine eager on cuda (GPU {NAME}): CUDA error: unspecified launch failure;"
    )
    assert "nvidia-smi" in said
    assert "device: cpu" in said
    assert "\n" not in said
