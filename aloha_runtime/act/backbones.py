"""Image trunks: torchvision's ResNets with frozen batch norm, and a small convolutional one for a CPU (ours alone)."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.config_file import IMAGENET_WEIGHTS


def resnet_trunk(config: ACTConfig, *, pretrained: bool) -> nn.Sequential:
    """torchvision's ResNet without pooling and classifier: (B, 3, H, W) -> (B, 512 or 2048, H / 32, W / 32).

    Batch norm is frozen (its statistics and scale are constants), since batches of a few images would spoil it.
    The children keep torchvision's names, which are also those in LeRobot's state dict.
    """
    import torchvision  # takes as long to import as torch itself, and the small trunk does without
    from torchvision.ops.misc import FrozenBatchNorm2d

    resnet = getattr(torchvision.models, config.vision_backbone)(
        weights=_torchvision_weights(config) if pretrained else None,
        replace_stride_with_dilation=[False, False, config.replace_final_stride_with_dilation],
        norm_layer=FrozenBatchNorm2d,
    )
    return nn.Sequential(OrderedDict(list(resnet.named_children())[:-2]))


def _torchvision_weights(config: ACTConfig) -> str | None:
    name = config.pretrained_backbone
    return IMAGENET_WEIGHTS[config.vision_backbone] if name is True else name or None


def resnet_channels(config: ACTConfig) -> int:
    return 2048 if config.vision_backbone == "resnet50" else 512


START_TEMPERATURE = 10.0
"""Scale of a keypoint's heat map before training: flat maps would all say "the middle" and hardly learn (measured)."""


class SmallTrunk(nn.Module):
    """A convolutional trunk for one CPU core that says *where* things are as well as *what* is there.

    Two heads share the early layers. A heat map per keypoint at a quarter of the resolution gives image coordinates by
    spatial soft-argmax (Finn et al. 2016, https://arxiv.org/abs/1509.06113), precise to a fraction of a pixel; since
    convolution treats all places alike, few views teach it to find an object anywhere. Coarse features at 1/32 of the
    resolution become tokens, as a ResNet's do. Train it with a high learning rate (`SMALL_POLICY` has one that works).
    """

    def __init__(self, width: int, keypoints: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            *_convolution(3, width, kernel=8, stride=4, padding=2),
            *_convolution(width, width),
            *_convolution(width, width),
        )
        self.heat = nn.Conv2d(width, keypoints, kernel_size=1)
        self.log_temperature = nn.Parameter(torch.full((keypoints,), math.log(START_TEMPERATURE)))
        self.coarse = nn.Sequential(
            *_convolution(width, 2 * width, stride=2),
            *_convolution(2 * width, 4 * width, stride=2),
            *_convolution(4 * width, 4 * width, stride=2),
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> features (B, 4 * width, H / 32, W / 32) and keypoints (B, K, 2), (x, y) in -1..1."""
        fine = self.fine(image.contiguous(memory_format=torch.channels_last))  # (B, width, H / 4, W / 4)
        heat = self.heat(fine) * self.log_temperature.exp().view(1, -1, 1, 1)  # (B, K, H / 4, W / 4)
        return self.coarse(fine), soft_argmax(heat)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    # Group norm rather than batch norm: the same in training and at run time, whatever the batch.
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    return [convolution, nn.GroupNorm(8, outputs), nn.ReLU(inplace=True)]


def soft_argmax(heat: Tensor) -> Tensor:
    """Mean position under the softmax of each heat map: (B, K, h, w) -> (B, K, 2), (x, y) in -1..1."""
    weight = heat.flatten(2).softmax(dim=-1).view_as(heat)  # (B, K, h, w)
    x = torch.linspace(-1, 1, heat.shape[3], device=heat.device, dtype=heat.dtype)  # (w,)
    y = torch.linspace(-1, 1, heat.shape[2], device=heat.device, dtype=heat.dtype)  # (h,)
    return torch.stack([weight.sum(2) @ x, weight.sum(3) @ y], dim=-1)  # (B, K, 2)
