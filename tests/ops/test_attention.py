"""What single attentions promise beyond the contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasfuse.ops.attention import BAM, CBAM, ECA, SE, NonLocal


def test_non_local_attention_begins_as_the_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(NonLocal(8)(x), x)


@pytest.mark.parametrize("module", [SE(8, reduction=2), ECA(8)])
def test_channel_attention_gives_each_channel_a_number(module: nn.Module) -> None:
    x = torch.randn(2, 8, 4, 4)
    gates = module(x) / x
    assert torch.allclose(gates, gates[..., :1, :1].expand_as(x), atol=1e-5)
    assert torch.all((gates > 0) & (gates < 1))


@pytest.mark.parametrize(
    ("width", "kernel"), [(1, 3), (8, 3), (64, 3), (128, 5), (256, 5), (2048, 7)]
)
def test_eca_looks_at_a_few_neighbouring_channels(width: int, kernel: int) -> None:
    eca = ECA(width)
    assert eca.conv.weight.numel() == kernel
    nn.init.ones_(eca.conv.weight)
    x = torch.ones(1, width, 2, 2)
    y = x.clone()
    y[:, 0] = 2
    changed = (eca(x) != eca(y)).any(3).any(2).sum()
    assert changed == min(width, kernel // 2 + 1)


def test_cbam_is_a_number_a_channel_times_one_a_pixel() -> None:
    x = torch.randn(2, 8, 4, 4)
    gates = CBAM(8, reduction=2).eval()(x) / x
    channel, pixel = gates[..., :1, :1] / gates[:, :1, :1, :1], gates[:, :1]
    assert torch.allclose(gates, channel * pixel, rtol=1e-3)
    assert torch.all((gates > 0) & (gates < 1))


def test_cbam_sees_the_largest_channel_first_then_their_mean() -> None:
    x, cbam = torch.randn(2, 8, 4, 4), CBAM(8, reduction=2).eval()
    nn.init.zeros_(cbam.excite.weight)
    nn.init.zeros_(cbam.excite.bias)  # type: ignore[arg-type]
    nn.init.zeros_(cbam.spatial.conv.weight)
    cbam.spatial.conv.weight.data[0, 0, 3, 3] = 1
    gate = torch.sigmoid((x / 2).amax(1, keepdim=True))
    assert torch.allclose(cbam(x), x / 2 * gate, atol=1e-4)


def test_bam_adds_up_to_the_map_itself() -> None:
    x, bam = torch.randn(2, 8, 12, 12), BAM(8, reduction=2).eval()
    added = torch.logit((bam(x) / x - 1).double(), eps=1e-6)
    channel = added - added[:, :1]  # the pixel's number is gone
    assert torch.allclose(channel, channel[..., :1, :1].expand_as(x), atol=1e-2)


def test_bam_sees_far_with_two_dilated_convolutions() -> None:
    """8 pixels to each side, and in steps of 4 only."""
    bam = BAM(8, reduction=2).eval()
    for parameter in bam.spatial.parameters():
        nn.init.ones_(parameter)  # no ReLU is off
    x = torch.zeros(1, 8, 17, 17, requires_grad=True)
    bam.spatial(x)[0, 0, 8, 8].backward()
    assert x.grad is not None
    _, _, rows, columns = x.grad.nonzero(as_tuple=True)
    assert set(rows.tolist()) == set(columns.tolist()) == {0, 4, 8, 12, 16}
