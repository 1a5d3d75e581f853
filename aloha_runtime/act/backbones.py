"""Image trunks: torchvision's ResNets with frozen batch norm, EfficientNet-Lite0, and a small one of our own for a CPU.

The last two are ours alone: LeRobot knows torchvision's ResNets only.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from aloha_runtime.act.config import EFFICIENTNET, SMALL_CNN, ACTConfig
from aloha_runtime.act.efficientnet import CHANNELS as EFFICIENTNET_CHANNELS
from aloha_runtime.act.efficientnet import EfficientNetLite0
from aloha_runtime.act.pretrained import load_start_weights


def make_trunk(config: ACTConfig, *, pretrained: bool) -> nn.Module:
    """The configured trunk, (B, 3, H, W) -> (B, `trunk_channels`, H / 32, W / 32) (the small one adds keypoints).

    `pretrained` asks for the weights that the configuration names; False is for a trunk that gets its weights next.
    """
    if config.vision_backbone == SMALL_CNN:
        return SmallTrunk(config.small_cnn_width, config.small_cnn_keypoints)
    trunk = EfficientNetLite0() if config.vision_backbone == EFFICIENTNET else _resnet(config)
    if pretrained:
        load_start_weights(trunk, config)
    return trunk


def trunk_channels(config: ACTConfig) -> int:
    if config.vision_backbone == SMALL_CNN:
        return 4 * config.small_cnn_width
    return {EFFICIENTNET: EFFICIENTNET_CHANNELS, "resnet50": 2048}.get(config.vision_backbone, 512)


def _resnet(config: ACTConfig) -> nn.Module:
    """torchvision's ResNet without pooling and classifier.

    Batch norm is frozen (its statistics and scale are constants), since batches of a few images would spoil it.
    The children keep torchvision's names, which are also those in LeRobot's state dict.
    """
    import torchvision  # takes as long to import as torch itself, and the small trunk does without
    from torchvision.ops.misc import FrozenBatchNorm2d

    resnet = getattr(torchvision.models, config.vision_backbone)(
        weights=None,
        replace_stride_with_dilation=[False, False, config.replace_final_stride_with_dilation],
        norm_layer=FrozenBatchNorm2d,
    )
    return nn.Sequential(OrderedDict(list(resnet.named_children())[:-2]))


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
