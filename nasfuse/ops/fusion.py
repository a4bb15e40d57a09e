"""The table of fusions: what a document calls them, what they are, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import nn

from nasfuse.costs import Cost
from nasfuse.ops import attending, joining


class Fusion(NamedTuple):
    """An operator, its cost on a map, whether it is told the width, and what it joins.

    `two` maps only; `any` number of them, as it is; or as many as it is `told` (module
    and cost take `inputs`).
    """

    module: type[nn.Module]
    cost: Callable[..., Cost]
    sized: bool
    joins: Literal["two", "any", "told"]


FUSIONS = {
    "add": Fusion(joining.Add, joining.free, False, "any"),
    "multiply": Fusion(joining.Multiply, joining.free, False, "two"),
    "max": Fusion(joining.Max, joining.free, False, "any"),
    "modulus": Fusion(joining.Modulus, joining.free, False, "any"),
    "complex": Fusion(joining.RealImaginary, joining.free, False, "two"),
    "weighted": Fusion(joining.WeightedSum, joining.weights_cost, False, "told"),
    "fast_normalised": Fusion(
        joining.FastNormalised, joining.weights_cost, False, "told"
    ),
    "softmax": Fusion(joining.SoftmaxSum, joining.weights_cost, False, "told"),
    "concat": Fusion(joining.Concat, joining.free, False, "any"),
    "concat_conv": Fusion(joining.ConcatConv, joining.concat_conv_cost, True, "told"),
    "concat_linear": Fusion(
        joining.ConcatLinear, joining.concat_linear_cost, True, "told"
    ),
    "norm_concat": Fusion(joining.NormConcat, joining.norm_concat_cost, True, "told"),
    "dual_path": Fusion(joining.DualPath, joining.free, True, "two"),
    "gated": Fusion(joining.Gated, joining.gated_cost, True, "two"),
    "shortcut_gated": Fusion(joining.ShortcutGated, joining.gated_cost, True, "two"),
    "se": Fusion(attending.SEGated, attending.se_gated_cost, True, "two"),
    "sk": Fusion(
        attending.SelectiveKernel, attending.selective_kernel_cost, True, "told"
    ),
    "ms_cam": Fusion(attending.MSCAMGated, attending.aff_cost, True, "two"),
    "aff": Fusion(attending.AFF, attending.aff_cost, True, "two"),
    "iaff": Fusion(attending.IterativeAFF, attending.iterative_aff_cost, True, "two"),
    "cross_attention": Fusion(
        attending.CrossAttention, attending.cross_attention_cost, True, "two"
    ),
    "asff": Fusion(
        attending.SpatialWeights, attending.spatial_weights_cost, True, "told"
    ),
}
