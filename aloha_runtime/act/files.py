"""Files of a policy directory: safetensors and JSON, whole when they appear, and one clear message when damaged."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_bytes
from torch import Tensor

from aloha_runtime import durable
from aloha_runtime.act.header import refuse_many_tensors
from aloha_runtime.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"{path} is missing; copy the whole policy directory")
    refuse_many_tensors(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    aside = path.with_name(path.name + ".tmp")
    # Not `save_file`, which makes a file that other users (a service's, for one) may not read.
    aside.write_bytes(save_bytes(dict(tensors), metadata={"format": "pt"}))
    durable.publish(aside, path)


def write_text(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    durable.publish(aside, path)


def write_bytes(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_bytes(content)
    durable.publish(aside, path)
