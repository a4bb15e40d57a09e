"""Where a block's input and its transform meet, and what ends or splits a stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasfuse.costs import Cost, Shape, pool_cost
from nasfuse.ops.layers import Halve, NormConv, norm_conv_cost


class Skip(nn.Module):
    """activation(fusion(shortcut(x), transform(x))): input meets transform.

    With Add it is a residual block (He et al. 2016, arXiv:1512.03385), with Concat a
    layer of a DenseNet (Huang et al. 2017, arXiv:1608.06993).
    """

    def __init__(
        self,
        *,
        transform: nn.Module,
        shortcut: nn.Module | None = None,
        fusion: nn.Module,
        activation: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.fusion = fusion
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.fusion(self.shortcut(x), self.transform(x)))


class PreactSkip(nn.Module):
    """fusion(shortcut(x), transform(p)) with p = activation(norm(x)).

    A projecting shortcut takes p as well. He et al. 2016, Identity Mappings in Deep
    Residual Networks, arXiv:1603.05027
    """

    def __init__(
        self,
        inputs: int,
        *,
        projects: bool = False,
        transform: nn.Module,
        shortcut: nn.Module | None = None,
        fusion: nn.Module,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.projects = projects
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = activation()
        self.transform = transform
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.fusion = fusion

    def forward(self, x: Tensor) -> Tensor:
        p = self.activation(self.norm(x))
        kept = self.shortcut(p if self.projects else x)
        return self.fusion(kept, self.transform(p))


class Pad(nn.Module):
    """Every stride-th pixel, then zeros for the channels that are missing.

    The shortcut without parameters (option A). He et al. 2016, arXiv:1512.03385
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.missing = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        pixels = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(pixels, (0, 0, 0, 0, 0, self.missing))


class Transition(nn.Module):
    """halve(conv(act(norm(x)))): fewer channels, then fewer pixels, between stages.

    Huang et al. 2017, Densely Connected Convolutional Networks, arXiv:1608.06993
    """

    def __init__(
        self, inputs: int, outputs: int, *, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.conv = NormConv(inputs, outputs, kernel=1, activation=activation)
        self.pool = Halve()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


def transition_cost(shape: Shape, outputs: int) -> Cost:
    thin = shape._replace(channels=outputs)
    return norm_conv_cost(shape, outputs, kernel=1) + pool_cost(thin, 2)


class Cross(nn.Module):
    """join([a; partial(blocks(b))]), a and b the halves of expand(down(x))'s channels.

    Wang et al. 2020, CSPNet, arXiv:1911.11929
    """

    def __init__(
        self,
        *,
        down: nn.Module,
        expand: nn.Module,
        blocks: nn.Module,
        partial: nn.Module,
        join: nn.Module,
    ) -> None:
        super().__init__()
        self.down = down
        self.expand = expand
        self.blocks = blocks
        self.partial = partial
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.expand(self.down(x)).chunk(2, 1)
        inner = self.partial(self.blocks(b))
        return self.join(torch.cat((a, inner), 1))
