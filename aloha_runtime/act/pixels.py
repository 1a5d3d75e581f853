"""Pictures on their way into a network: crop, resize, and the same with normalisation for the folded one.

Resizing is bilinear with antialiasing, as torchvision's `resize` of float tensors does it, which LeRobot uses.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn

from aloha_runtime.act.normalize import Normalizer
from aloha_runtime.act.processing import Crop, Processing


def prepared(image: Tensor, name: str, processing: Processing) -> Tensor:
    """Pixels 0..1 (..., 3, H, W) of a camera, cropped and resized as LeRobot's `image_crop_resize_processor` does."""
    image = cropped(image, processing.crops.get(name))
    if processing.resize is None:
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = F.interpolate(batch, processing.resize, mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0.0, 1.0).reshape(*image.shape[:-2], *processing.resize)


def cropped(image: Tensor, crop: Crop | None) -> Tensor:
    """The part of an image (..., H, W) that a crop keeps."""
    if crop is None:
        return image
    top, left, height, width = crop
    return image[..., top : top + height, left : left + width]


def seen_size(name: str, shape: tuple[int, ...], processing: Processing) -> tuple[int, ...]:
    """Shape (3, height, width) in which a network sees a camera of this shape."""
    if processing.resize is not None:
        return (3, *processing.resize)
    crop = processing.crops.get(name)
    return shape if crop is None else (3, crop[2], crop[3])


class Pixels(nn.Module):
    """uint8 (H, W, 3) of each camera -> normalised batches (n, 3, h, w); one batch where all have the same size.

    Not in the first convolution: that one pads with zeros. Resizing is two products with constant matrices, which every
    engine has.
    """

    def __init__(self, normalizer: Normalizer, images: dict[str, tuple[int, ...]], processing: Processing) -> None:
        super().__init__()
        self.factor: Tensor
        self.shift: Tensor
        zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
        offset = torch.stack([normalizer.offset.get(name, zero).cpu() for name in images])  # (N, 3, 1, 1)
        divisor = torch.stack([normalizer.divisor.get(name, one).cpu() for name in images])  # (N, 3, 1, 1)
        after = torch.tensor([normalizer.shift.get(name, 0.0) for name in images]).view(-1, 1, 1, 1)  # (N, 1, 1, 1)
        self.crops = [processing.crops.get(name) for name in images]
        self.resizes = processing.resize is not None
        # Resizing is done in 0..1, as it ends with a clamp to that.
        self.register_buffer("factor", 1 / divisor if self.resizes else 1 / (255 * divisor))
        self.register_buffer("shift", -offset / divisor - after)
        for camera, (name, shape) in enumerate(images.items()):
            if processing.resize is not None:
                height, width = seen_size(name, shape, Processing(norm_map={}, crops=processing.crops))[1:]
                self.register_buffer(f"rows{camera}", _matrix(height, processing.resize[0]))
                self.register_buffer(f"columns{camera}", _matrix(width, processing.resize[1]).T.contiguous())

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        if not self.resizes and not any(self.crops) and len({tuple(image.shape) for image in images}) == 1:
            return [self._scaled(torch.stack(images).permute(0, 3, 1, 2), self.factor, self.shift)]
        batches = [self._one(camera, image) for camera, image in enumerate(images)]
        return [torch.cat(batches)] if len({tuple(batch.shape) for batch in batches}) == 1 else batches

    def _one(self, camera: int, image: Tensor) -> Tensor:
        """(H, W, 3) -> (1, 3, h, w)."""
        picture = cropped(image.permute(2, 0, 1)[None], self.crops[camera])
        if self.resizes:
            picture = picture.to(self.factor.dtype) / 255
            rows, columns = getattr(self, f"rows{camera}"), getattr(self, f"columns{camera}")
            picture = (rows @ picture @ columns).clamp(0.0, 1.0)
        return self._scaled(picture, self.factor[camera], self.shift[camera])

    def _scaled(self, picture: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
        return picture.to(factor.dtype) * factor + shift


def _matrix(size: int, wanted: int) -> Tensor:
    """The matrix (wanted, size) that resizes a column of pixels."""
    identity = torch.eye(size)[None, None]
    return F.interpolate(identity, (wanted, size), mode="bilinear", align_corners=False, antialias=True)[0, 0]
