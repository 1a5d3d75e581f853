"""Random changes to the inputs of training samples, so that a policy does not lean on what changes from day to day."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aloha_runtime.act.config import IMAGE_PREFIX, STATE


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the inputs of each sample; 0 switches one off."""

    brightness: float = 0.0
    """Largest change of brightness, as a share of full scale."""
    contrast: float = 0.0
    """Largest relative change of contrast, drawn for each colour channel, which shifts hues a little too."""
    shift_px: int = 0
    """Largest shift of the picture, pixels. It blurs absolute positions: leave 0 for a fixed camera."""
    state_noise: float = 0.0
    """Standard deviation of noise on the joint state, rad: the policy then does not trust it alone."""

    @property
    def changes_images(self) -> bool:
        return bool(self.brightness or self.contrast or self.shift_px)


@dataclass(frozen=True)
class ImageDraw:
    """What was drawn for the B images of one camera."""

    gain: NDArray[np.float32]  # (B, 3, 1, 1)
    offset: NDArray[np.float32]  # (B, 1, 1, 1)
    shift: NDArray[np.int64]  # (B, 2), rows and columns

    @classmethod
    def of(cls, augment: Augmentation, size: int, random: np.random.Generator) -> Self:
        gain = 1 + augment.contrast * random.uniform(-1, 1, (size, 3, 1, 1))
        offset = augment.brightness * random.uniform(-1, 1, (size, 1, 1, 1))
        shift = np.zeros((size, 2), dtype=np.int64)
        if augment.shift_px:
            shift = random.integers(-augment.shift_px, augment.shift_px + 1, (size, 2))
        return cls(gain.astype(np.float32), offset.astype(np.float32), shift)


def augmented(
    batch: dict[str, Tensor],
    augment: Augmentation,
    random: np.random.Generator,
    rows: slice = slice(None),
    total: int | None = None,
) -> dict[str, Tensor]:
    """`batch` with its images (uint8 (B, H, W, 3) -> float 0..1 (B, 3, H, W)) and its joint state changed.

    When the batch is `rows` of a larger one of `total` samples, the draws are those that the larger one would get.
    """
    result = dict(batch)
    for name, images in batch.items():
        if name.startswith(IMAGE_PREFIX) and augment.changes_images:
            draw = ImageDraw.of(augment, total or len(images), random)
            result[name] = _changed(images, draw, rows)
    if augment.state_noise and STATE in batch:
        shape = (total or len(batch[STATE]), *batch[STATE].shape[1:])
        noise = random.normal(0, augment.state_noise, shape).astype(np.float32)[rows]
        result[STATE] = batch[STATE] + torch.from_numpy(noise).to(batch[STATE].device)
    return result


def _changed(pixels: Tensor, draw: ImageDraw, rows: slice) -> Tensor:
    """uint8 (B, H, W, 3) or float 0..1 (B, 3, H, W) -> float 0..1 (B, 3, H, W)."""
    images = pixels.movedim(-1, 1).float().div_(255) if pixels.dtype == torch.uint8 else pixels.float().clone()
    gain, offset = (torch.from_numpy(value[rows]).to(images.device) for value in (draw.gain, draw.offset))
    centre = 0.5 * (1 - gain)  # contrast turns about mid-grey
    images.mul_(gain).add_(centre + offset).clamp_(0, 1)
    return _shifted(images, torch.from_numpy(draw.shift[rows]).to(images.device)) if draw.shift.any() else images


def _shifted(images: Tensor, shift: Tensor) -> Tensor:
    """Each image moved by `shift` (B, 2) (rows, columns), its edge pixels repeated into the gap."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - shift[:, :1]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) - shift[:, 1:]).clamp(0, width - 1)  # (B, W)
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(3, device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
