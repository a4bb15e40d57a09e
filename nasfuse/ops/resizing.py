"""From the size of one level to the size of another, where a neck's paths meet.

Levels are listed finest first. Most halve the sides of the one before, rounded up; no
operator here depends on it.
"""

from __future__ import annotations

from torch import Tensor, nn

from nasfuse.costs import NOTHING, Cost, Shape, conv_cost, norm_cost
from nasfuse.ops.layers import ConvNorm, conv_norm_cost


class Fit(nn.Module):
    """x at the height and width `size`: the nearest pixel of x for each of them."""

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        if x.shape[2:] == size:
            return x
        return nn.functional.interpolate(x, size)


class Shrink(nn.Module):
    """max over windows of stride + 1 pixels, padded as SAME, to the sides `size`.

    The stride is how many times larger x is, rounded up: 3 x 3 pixels with stride 2 for
    half of x. Where strides do not lead to the size, adaptive pooling follows. Tan et
    al. 2020, EfficientDet, arXiv:1911.09070 (resample_feature_map)
    """

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        if x.shape[2:] == size:
            return x
        sides = list(zip(x.shape[2:], size, strict=True))
        strides = [-(-old // new) for old, new in sides]
        pad: list[int] = []
        for (old, _), stride in zip(sides[::-1], strides[::-1], strict=True):
            missing = -old % stride + 1
            pad += [missing // 2, missing - missing // 2]
        padded = nn.functional.pad(x, pad, value=float("-inf"))
        windows = [stride + 1 for stride in strides]
        out = nn.functional.max_pool2d(padded, windows, strides)
        if out.shape[2:] == size:
            return out
        return nn.functional.adaptive_max_pool2d(out, size)


class Project(nn.Module):
    """norm(W x + b), 1 x 1 to another number of channels; x where it is the same."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if inputs != outputs:
            layers += [nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def project_cost(shape: Shape, outputs: int) -> Cost:
    if shape.channels == outputs:
        return NOTHING
    conv = conv_cost(shape, outputs, 1, bias=True)
    return conv + norm_cost(shape._replace(channels=outputs))


class Align(nn.Module):
    """x at the level that lies `steps` levels coarser, or finer if negative.

    Coarser: max over 3 x 3 with stride 2 for all steps but the last, which is
    act(norm(conv(x))), 3 x 3 with stride 2. Finer: act(norm(W x)) if the channels
    differ, then the nearest pixel. Liu et al. 2019, ASFF, arXiv:1911.09516, section 3.2
    """

    def __init__(self, inputs: int, outputs: int, *, steps: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.MaxPool2d(3, 2, padding=1) for _ in range(steps - 1)
        ]
        if steps > 0:
            layers += [
                ConvNorm(inputs, outputs, kernel=3, stride=2),
                nn.LeakyReLU(0.1),
            ]
        elif inputs != outputs:
            layers += [ConvNorm(inputs, outputs, kernel=1), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers)
        self.fit = Fit()

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        return self.fit(self.layers(x), size)


def align_cost(shape: Shape, outputs: int, *, steps: int) -> Cost:
    if steps > 0:
        for _ in range(steps - 1):
            shape = shape.strided(shape.channels, 2)
        return conv_norm_cost(shape, outputs, kernel=3, stride=2)
    if shape.channels == outputs:
        return NOTHING
    return conv_norm_cost(shape, outputs, kernel=1)
