"""Weights as other tools wrap them, brought to the names and the precision of this runtime's network."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from aloha_runtime.errors import CheckpointError

log = logging.getLogger(__name__)

WRAPPERS = {"_orig_mod": "torch.compile", "module": "data parallel training"}
"""Parts of a tensor's name that a wrapper puts there, and which wrapper; no module of ACT is called so."""
HALF, FLOATS = (torch.float16, torch.bfloat16), (torch.float32, torch.float64)


def plain_weights(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the wrappers' parts in their names, float32 whatever they were stored in.

    Half precision is widened, which loses nothing that was stored; integers and 8-bit floats are refused, as only the
    tool that made them knows their scale.
    """
    plain: dict[str, Tensor] = {}
    wrappers: set[str] = set()
    narrow: set[torch.dtype] = set()
    for name, tensor in weights.items():
        parts = name.split(".")
        wrappers |= WRAPPERS.keys() & set(parts)
        ours = ".".join(part for part in parts if part not in WRAPPERS)
        if ours in plain:
            raise CheckpointError(f"{path}: {name} and another tensor are both {ours} without their prefix; save one")
        if tensor.dtype not in HALF + FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: {name} holds {kind}, not floats of 16 or 32 bits; save it in float32")
        if tensor.dtype in HALF:
            narrow.add(tensor.dtype)
        plain[ours] = tensor.float()
    for wrapper in sorted(wrappers):
        log.warning("%s: names have %s. of %s in them, which is taken off", path, wrapper, WRAPPERS[wrapper])
    for dtype in sorted(map(str, narrow)):
        log.warning("%s: weights of %s are widened to float32", path, dtype.removeprefix("torch."))
    return plain
