"""The table of fusions: what a document calls them, what they are, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from nasfuse.costs import Cost
from nasfuse.ops import attending, joining


class Fusion(NamedTuple):
    """An operator, its cost on a map, and whether it is told the map's width."""

    module: type[nn.Module]
    cost: Callable[..., Cost]
    sized: bool


FUSIONS = {
    "add": Fusion(joining.Add, joining.free, sized=False),
    "multiply": Fusion(joining.Multiply, joining.free, sized=False),
    "max": Fusion(joining.Max, joining.free, sized=False),
    "modulus": Fusion(joining.Modulus, joining.free, sized=False),
    "weighted": Fusion(joining.WeightedSum, joining.weights_cost, sized=False),
    "fast_normalised": Fusion(
        joining.FastNormalised, joining.weights_cost, sized=False
    ),
    "softmax": Fusion(joining.SoftmaxSum, joining.weights_cost, sized=False),
    "concat": Fusion(joining.Concat, joining.free, sized=False),
    "concat_conv": Fusion(joining.ConcatConv, joining.concat_conv_cost, sized=True),
    "concat_linear": Fusion(
        joining.ConcatLinear, joining.concat_linear_cost, sized=True
    ),
    "norm_concat": Fusion(joining.NormConcat, joining.norm_concat_cost, sized=True),
    "gated": Fusion(joining.Gated, joining.gated_cost, sized=True),
    "shortcut_gated": Fusion(joining.ShortcutGated, joining.gated_cost, sized=True),
    "se": Fusion(attending.SEGated, attending.se_gated_cost, sized=True),
    "sk": Fusion(
        attending.SelectiveKernel, attending.selective_kernel_cost, sized=True
    ),
    "ms_cam": Fusion(attending.MSCAMGated, attending.aff_cost, sized=True),
    "aff": Fusion(attending.AFF, attending.aff_cost, sized=True),
    "iaff": Fusion(attending.IterativeAFF, attending.iterative_aff_cost, sized=True),
}
