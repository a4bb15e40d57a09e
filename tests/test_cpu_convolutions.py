"""Detours around convolutions give what the straight way gives, and get there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from nasfuse.cpu_convolutions import go_around


def gradients(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    conv.zero_grad()
    out = conv(x)
    out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape))
    assert x.grad is not None
    assert conv.weight.grad is not None
    return out.detach(), x.grad, conv.weight.grad.clone()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [3, 6, 7])
@pytest.mark.parametrize("side", [7, 8])
def test_narrow_strided_convolutions_compute_the_same(side: int, channels: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 16, 1, stride=2, bias=bias)
    x = torch.randn(4, channels, side, side)
    with torch.backends.mkldnn.flags(enabled=False):
        straight = gradients(conv, x)
    plain = conv.forward
    go_around(conv, bf16=False)
    assert conv.forward != plain
    for one, other in zip(straight, gradients(conv, x), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(8, 16, 1, stride=2), nn.Conv2d(6, 16, 1), nn.Conv2d(6, 16, 3, 2, padding=1)],
    ids=["wide", "one by one", "three by three"],
)
def test_other_convolutions_stay_as_they_are(conv: nn.Conv2d) -> None:
    plain = conv.forward
    go_around(conv, bf16=True)
    assert conv.forward == plain


TRAINED = """
import torch
from torch import nn
from nasfuse.cpu_convolutions import go_around

torch.set_num_threads(1)
conv = nn.Conv2d(6, 16, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
go_around(conv, bf16=False)
for _ in range(50):
    x = torch.randn(32, 6, 16, 16).contiguous(memory_format=torch.channels_last)
    conv(x.requires_grad_()).sum().backward()
    others = [torch.randn(count) for count in range(1, 3000, 37)]  # which lie beside it
    del others
"""


def test_training_a_narrow_strided_convolution_damages_no_memory() -> None:
    """Without the detour this dies within a few steps on processors with AVX2 and no AVX-512."""
    run = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
