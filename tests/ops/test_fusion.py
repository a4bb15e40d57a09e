"""What single fusions promise beyond the contract."""

from __future__ import annotations

from typing import get_args

import torch

from nasfuse.architecture import AttentionalFusion, PlainFusion
from nasfuse.ops.fusion import FUSIONS, Concat, ConcatConv, Gated, Multiply


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
