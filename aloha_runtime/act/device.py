"""Where a policy's network runs: a GPU of this machine where PyTorch can use one, else the CPU; and why."""

from dataclasses import dataclass
from pathlib import Path

import torch

from aloha_runtime.act.engines import EAGER, ON_GPU
from aloha_runtime.errors import ConfigError

AUTO = "auto"
CPU = "cpu"
CUDA = "cuda"
DRIVER = Path("/proc/driver/nvidia/gpus")
"""One folder for each GPU that NVIDIA's driver has."""


@dataclass(frozen=True)
class Device:
    """`name`: as PyTorch spells it. `why` it is this one. `doubt`: what a person should look at, or empty."""

    name: str
    why: str
    doubt: str = ""

    @property
    def is_gpu(self) -> bool:
        return self.name.startswith(CUDA)

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def choose_device(wanted: str, engine: str, virtual: bool = False) -> Device:
    """The device for an engine (`auto`: any). `wanted`: auto, cpu, cuda or cuda:1; in `virtual` time auto is the CPU.

    Raises ConfigError where the device that was asked for is not there, or the engine cannot run on it.
    """
    needs = CUDA if engine in ON_GPU else "" if engine in (AUTO, EAGER) else CPU
    if wanted != AUTO and needs and not wanted.startswith(needs):
        raise ConfigError(
            f"device {wanted}: engine {engine} runs on {needs} only; take the device auto, or that engine"
        )
    if wanted == CPU:
        return Device(CPU, "asked for")
    if wanted == AUTO and needs == CPU:
        return Device(CPU, f"engine {engine} runs there")
    if wanted == AUTO and virtual:
        return Device(CPU, "virtual time, in which actions are the same on any machine")
    if not torch.cuda.is_available():
        if wanted != AUTO or needs:
            raise ConfigError(f"device {wanted if wanted != AUTO else CUDA}: PyTorch finds no GPU here; {_remedy()}")
        return Device(CPU, "PyTorch finds no GPU here", _unused_gpu())
    name = CUDA if wanted == AUTO else wanted
    index = int(name.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device {name}: there are {torch.cuda.device_count()} GPUs, the first is cuda:0")
    return Device(name, f"GPU {torch.cuda.get_device_name(index)}")


def _unused_gpu() -> str:
    """That this machine has a GPU which PyTorch cannot use; empty where it has none."""
    if not DRIVER.is_dir() or not any(DRIVER.iterdir()):
        return ""
    return f"the CPU is used, although this machine has an NVIDIA GPU: {_remedy()}"


def _remedy() -> str:
    if torch.version.cuda is None:
        return "this PyTorch is built for CPUs alone: install the build for CUDA, or take the device cpu"
    return "see what `nvidia-smi` and `dmesg` say of it, or take the device cpu"
