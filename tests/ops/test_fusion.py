"""What single fusions promise beyond the contract."""

from __future__ import annotations

from typing import get_args

import torch

from nasfuse.architecture import AttentionalFusion, PlainFusion
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.joining import (
    Add,
    Concat,
    ConcatConv,
    FastNormalised,
    Gated,
    Modulus,
    Multiply,
    ShortcutGated,
    SoftmaxSum,
    WeightedSum,
)


def test_documents_and_operators_know_the_same_fusions() -> None:
    genes = (PlainFusion, AttentionalFusion)
    kinds = {k for gene in genes for k in get_args(gene.model_fields["kind"].annotation)}
    assert kinds == set(FUSIONS)


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
