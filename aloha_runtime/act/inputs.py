"""An observation's values as the tensors that a policy works on, checked."""

from typing import Any

import torch
from torch import Tensor

from aloha_runtime.act.config import IMAGE_PREFIX, Shape


def as_float(name: str, value: Any, shape: Shape, device: torch.device) -> Tensor:
    """`value` as float32 (..., *shape); pixels become 0..1, channels first (channels last in memory).

    A time axis of one step after the batch's, as `delta_timestamps` of [0] gives, is dropped.
    """
    tensor = torch.as_tensor(value).to(device)
    is_image = name.startswith(IMAGE_PREFIX)
    wanted = (*shape[1:], shape[0]) if is_image and tensor.dtype == torch.uint8 else shape
    if tensor.dim() == len(wanted) + 2 and tensor.shape[1] == 1:
        tensor = tensor.squeeze(1)
    if tuple(tensor.shape[-len(wanted) :]) != wanted or tensor.dim() > len(wanted) + 1:
        kind = "uint8 pixels" if tensor.dtype == torch.uint8 else str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, must be {wanted} for {kind} or a batch of it")
    if is_image and tensor.dtype == torch.uint8:
        return tensor.movedim(-1, -3).float() / 255
    tensor = tensor.float()
    if is_image and tensor.numel() and (tensor.max() > 1.001 or tensor.min() < -0.001):
        raise ValueError(f"{name} holds floats outside 0..1; give uint8 pixels (height, width, 3) or divide by 255")
    return tensor
