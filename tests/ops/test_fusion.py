"""What single fusions promise beyond the contract."""

from __future__ import annotations

import inspect
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
from torch import nn

import nasfuse.ops
from nasfuse import genes
from nasfuse.ops.attending import AFF, CrossAttention, IterativeAFF, SpatialWeights
from nasfuse.ops.attention import ATTENTIONS
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import HEADS
from nasfuse.ops.joining import (
    Add,
    Concat,
    ConcatConv,
    DualPath,
    FastNormalised,
    Gated,
    Modulus,
    Multiply,
    ShortcutGated,
    SoftmaxSum,
    WeightedSum,
)
from nasfuse.ops.necks import NECKS


@pytest.mark.parametrize(
    ("union", "kinds"),
    [
        (genes.Fusion, set(FUSIONS)),
        (genes.Attention, set(ATTENTIONS)),
        (genes.Block, set(BLOCKS)),
        (genes.Neck, {*NECKS, "late"}),
        (genes.Head, set(HEADS)),
    ],
)
def test_documents_and_operators_know_the_same_kinds(union: Any, kinds: set[str]) -> None:
    while get_origin(union) is Annotated:
        union = get_args(union)[0]
    known = (get_args(gene.model_fields["kind"].annotation) for gene in get_args(union))
    assert {kind for several in known for kind in several} == kinds


def test_names_of_operators_are_unique() -> None:
    """Any of them may meet any other in one exported file."""
    names: Counter[str] = Counter()
    for path in Path(nasfuse.ops.__file__).parent.glob("*.py"):
        module = import_module(f"nasfuse.ops.{path.stem}")
        names.update(
            name
            for name, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, nn.Module)
            and value.__module__ == module.__name__
        )
    assert not [name for name, count in names.items() if count > 1]


def test_gate_begins_close_to_the_identity() -> None:
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    g = torch.sigmoid(torch.tensor(-3.0))
    assert torch.allclose(Gated(8)(x, y), g * y + (1 - g) * x)
    assert g < 0.05


def test_product_with_nothing_is_the_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(Multiply()(x, torch.zeros_like(x)), x)


def test_concat_then_convolution_is_a_sum_of_convolutions() -> None:
    """W [x; y] = Wx x + Wy y: the classic equivalence of concatenation and addition."""
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    fused = ConcatConv(8)
    left, right = torch.split(fused.conv.weight, 8, 1)
    apart = torch.conv2d(x, left) + torch.conv2d(y, right)
    assert torch.allclose(fused.conv(Concat()(x, y)), apart, atol=1e-6)


def test_weights_begin_as_a_sum_or_a_mean() -> None:
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    assert torch.equal(WeightedSum()(x, y), Add()(x, y))
    assert torch.allclose(SoftmaxSum()(x, y), (x + y) / 2)
    assert torch.allclose(FastNormalised()(x, y), (x + y) / 2, atol=1e-3)


def test_shortcut_gate_lets_the_transform_pass_whole() -> None:
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    g = torch.sigmoid(torch.tensor(-3.0))
    assert torch.allclose(ShortcutGated(8)(x, y), y + (1 - g) * x)


def test_modulus_has_a_gradient_at_zero() -> None:
    x = torch.zeros(1, 2, 2, 2, requires_grad=True)
    Modulus()(x, torch.zeros_like(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_weights_of_pixels_begin_nowhere_beyond_the_maps() -> None:
    """A convex combination at each pixel: between the smallest and the largest map."""
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    z = SpatialWeights(8)(x, y)
    assert torch.all(z <= torch.maximum(x, y) + 1e-6)
    assert torch.all(z >= torch.minimum(x, y) - 1e-6)


def test_cross_attention_begins_as_the_transform() -> None:
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    assert torch.equal(CrossAttention(8, reduction=2)(x, y), y)


def test_dual_path_adds_some_channels_and_appends_the_others() -> None:
    x, y = torch.randn(2, 11, 4, 4), torch.randn(2, 10, 4, 4)
    z = DualPath(8)(x, y)
    assert torch.equal(z[:, :8], Add()(x[:, :8], y[:, :8]))
    assert torch.equal(z[:, 8:], Concat()(x[:, 8:], y[:, 8:]))


def test_variants_of_the_authors_code() -> None:
    x, y = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    paper, doubled = AFF(8, reduction=2), AFF(8, reduction=2, scale=2)
    doubled.load_state_dict(paper.state_dict())
    assert torch.allclose(doubled(x, y), 2 * paper(x, y))
    paper_twice, port = IterativeAFF(8, reduction=2), IterativeAFF(8, reduction=2, shared=True)
    port.load_state_dict(paper_twice.state_dict())
    assert not torch.allclose(port(x, y), paper_twice(x, y))
    paper_twice.context.load_state_dict(paper_twice.first.context.state_dict())
    paper_twice.eval(), port.eval()
    port.load_state_dict(paper_twice.state_dict())
    assert torch.allclose(port(x, y), paper_twice(x, y))


@pytest.mark.parametrize("kind", [kind for kind, row in FUSIONS.items() if row.joins == "any"])
def test_any_number_of_maps_is_joined_in_turn(kind: str) -> None:
    fusion = FUSIONS[kind].module()
    x, y, z = (torch.rand(2, 8, 4, 4) for _ in range(3))
    assert torch.allclose(fusion(x, y, z), fusion(fusion(x, y), z), atol=1e-5)
