"""EfficientNet-Lite0, a trunk with ImageNet weights that a CPU can afford (ours alone: LeRobot has no name for it).

The network of Tan & Le 2019 (https://arxiv.org/abs/1905.11946, table 1) in the Lite form published with TensorFlow:
ReLU6 instead of swish, no squeeze-and-excite. The published weights saw images as (pixel - 127) / 128; ours come
normalised by the dataset's statistics, about twice as large, and are recognised all the same (docs/decisions.md).
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name torch's own documentation uses
from torch import Tensor, nn

STEM_CHANNELS = 32
STAGES = (  # kernel, stride of the first block, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
CHANNELS = STAGES[-1][3]
"""Of the last stage. The head that follows, 1 x 1 to 1280 channels, is left out: it was made for a classifier and has
0.4 M parameters beside this trunk's 2.9 M; the projection to the transformer is a 1 x 1 convolution itself."""
NORM_EPS = 1e-3
"""TensorFlow's, which the published weights were trained with; torch's is 1e-5."""


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's SAME padding, frozen batch norm, and ReLU6 unless `linear`: (B, C, H, W) ->
    (B, outputs, ceil(H / stride), ceil(W / stride))."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        from torchvision.ops.misc import FrozenBatchNorm2d  # slow to import, and the small trunk does without

        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = FrozenBatchNorm2d(outputs, eps=NORM_EPS)
        self.linear = linear
        # Fan-in, because a batch norm that is frozen from the start does not scale what a random start gets wrong.
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear" if linear else "relu")

    def forward(self, features: Tensor) -> Tensor:
        if self.conv.stride[0] > 1:
            features = same_padding(features, self.conv.kernel_size[0], self.conv.stride[0])
        features = self.norm(self.conv(features))
        return features if self.linear else F.relu6(features)


def same_padding(image: Tensor, kernel: int, stride: int) -> Tensor:
    """(B, C, H, W) with zeros around it, so that a strided convolution gives ceil(H / stride) rows.

    What is uneven goes to the right and the bottom, as in TensorFlow; symmetric padding would sample other pixels.
    """
    height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in image.shape[-2:])
    return F.pad(image, (width // 2, width - width // 2, height // 2, height - height // 2))


class Block(nn.Module):
    """Inverted residual (Sandler et al. 2018, https://arxiv.org/abs/1801.04381): widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self.expand = ConvNorm(inputs, wide)
        self.depthwise = ConvNorm(wide, wide, kernel, stride=stride, groups=wide)
        self.project = ConvNorm(wide, outputs, linear=True)
        self.expands = expansion > 1
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        wide = self.expand(features) if self.expands else features  # (B, inputs * expansion, H, W)
        narrow: Tensor = self.project(self.depthwise(wide))  # (B, outputs, H / stride, W / stride)
        return features + narrow if self.is_residual else narrow


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) -> (B, 320, H / 32, W / 32), rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, kernel=3, stride=2)
        blocks, inputs = [], STEM_CHANNELS
        for kernel, first_stride, expansion, outputs, count in STAGES:
            for index in range(count):
                blocks.append(Block(inputs, outputs, kernel, first_stride if index == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(image.contiguous(memory_format=torch.channels_last)))
        return features


_STEM = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
_LAYERS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
HEAD = ("_conv_head.", "_bn1.", "_fc.")
"""Beginnings of the published names of the head and the classifier, which this trunk leaves out."""


def our_name(published: str) -> str:
    """Our name of a tensor of the published file (`_blocks.3._bn1.weight`); itself for one that we do not know."""
    parts = published.split(".")
    if parts[0] == "_blocks" and len(parts) == 4 and parts[2] in _LAYERS:
        return f"blocks.{parts[1]}.{_LAYERS[parts[2]]}.{parts[3]}"
    if parts[0] in _STEM and len(parts) == 2:
        return f"{_STEM[parts[0]]}.{parts[1]}"
    return published
