"""The table of blocks: the transform of a skip, from `inputs` to `outputs` channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import nn

from nasfuse.costs import Cost
from nasfuse.ops.bottleneck import (
    BottleneckBlock,
    DualPathBlock,
    PreactBottleneck,
    RegNetBlock,
    SelectiveBottleneck,
    bottleneck_cost,
    dual_path_block_cost,
    preact_bottleneck_cost,
    regnet_cost,
    selective_bottleneck_cost,
)
from nasfuse.ops.dense import Dense, dense_cost
from nasfuse.ops.mbconv import FusedMBConv, MBConv, fused_mbconv_cost, mbconv_cost
from nasfuse.ops.residual import Preact, Residual, preact_cost, residual_cost


class Block(NamedTuple):
    """A transform, its cost on a map, and where norm and activation stand.

    `after`: an activation follows the fusion; `linear`: none does; `shared`: one norm
    and activation come before transform and projection; `own`: before each of them.
    """

    module: type[nn.Module]
    cost: Callable[..., Cost]
    order: Literal["after", "linear", "shared", "own"]


BLOCKS = {
    "residual": Block(Residual, residual_cost, "after"),
    "preact": Block(Preact, preact_cost, "shared"),
    "bottleneck": Block(BottleneckBlock, bottleneck_cost, "after"),
    "preact_bottleneck": Block(PreactBottleneck, preact_bottleneck_cost, "shared"),
    "dual_path": Block(DualPathBlock, dual_path_block_cost, "own"),
    "sk_bottleneck": Block(SelectiveBottleneck, selective_bottleneck_cost, "after"),
    "regnet": Block(RegNetBlock, regnet_cost, "after"),
    "mbconv": Block(MBConv, mbconv_cost, "linear"),
    "fused_mbconv": Block(FusedMBConv, fused_mbconv_cost, "linear"),
    "dense": Block(Dense, dense_cost, "linear"),
}
