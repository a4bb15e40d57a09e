"""State dicts with torchvision's and timm's names, on networks written here with those names.

Neither library imports with torch's CPU build, so their networks are written anew, in their own
forward passes and with their names; equal outputs then say that every tensor came to its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasfuse.architecture import Architecture
from nasfuse.errors import DocumentError
from nasfuse.references import load_architecture
from nasfuse.weights import load_reference_weights


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def unit(*arguments: int, act: type[nn.Module] | None = None) -> nn.Sequential:
    """Convolution, norm and perhaps an activation, as torchvision groups them."""
    layers = [conv(*arguments), nn.BatchNorm2d(arguments[1])]
    return nn.Sequential(*layers, *([act()] if act else []))


class Squeeze(nn.Module):
    """Squeeze-and-excitation with names and activation of a library."""

    def __init__(self, width: int, hidden: int, names: tuple[str, str], act: type[nn.Module]):
        super().__init__()
        self.names, self.act = names, act()
        self.add_module(names[0], nn.Conv2d(width, hidden, 1))
        self.add_module(names[1], nn.Conv2d(hidden, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        down, up = (getattr(self, name) for name in self.names)
        return x * torch.sigmoid(up(self.act(down(x.mean((2, 3), keepdim=True)))))


class ResBlock(nn.Module):
    """Basic with two widths, bottleneck with three; `pool` is timm's ResNet-D shortcut."""

    def __init__(
        self, inputs: int, widths: tuple[int, ...], stride: int, groups: int, pool: bool, se: bool
    ):
        super().__init__()
        basic = len(widths) == 2
        kernels, strides = ((3, 3), (stride, 1)) if basic else ((1, 3, 1), (1, stride, 1))
        before = inputs
        for n, (width, kernel, step) in enumerate(zip(widths, kernels, strides, strict=True), 1):
            part = groups if kernel == 3 and not basic else 1
            self.add_module(f"conv{n}", conv(before, width, kernel, step, part))
            self.add_module(f"bn{n}", nn.BatchNorm2d(width))
            before = width
        self.steps, self.downsample = len(widths), None
        self.se = Squeeze(before, before // 16, ("fc1", "fc2"), nn.ReLU) if se else None
        if stride != 1 or inputs != before:
            if pool:
                first = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
                self.downsample = nn.Sequential(first, *unit(inputs, before))
            else:
                self.downsample = unit(inputs, before, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n in range(1, self.steps + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = torch.relu(y) if n < self.steps else y
        y = self.se(y) if self.se else y
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        basic: bool = False,
        groups: int = 1,
        inner: int = 4,
        deep: bool = False,
        se: bool = False,
    ):
        super().__init__()
        if deep:
            stem = (*unit(3, 32, 3, 2, act=nn.ReLU), *unit(32, 32, 3, act=nn.ReLU), conv(32, 64, 3))
            self.conv1: nn.Module = nn.Sequential(*stem)
        else:
            self.conv1 = conv(3, 64, 7, 2)
        self.bn1, self.pool, inputs = nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1), 64
        for n, depth in enumerate(depths):
            out = (64 if basic else 256) * 2**n
            widths = (out, out) if basic else (out // inner, out // inner, out)
            blocks = []
            for b in range(depth):
                stride = 2 if n and b == 0 else 1
                blocks.append(ResBlock(inputs, widths, stride, groups, deep, se))
                inputs = out
            self.add_module(f"layer{n + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class DenseLayer(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 128)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), conv(128, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat((x, self.conv2(torch.relu(self.norm2(y)))), 1)


class DenseNet(nn.Module):
    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", conv(3, 64, 7, 2))
        self.features.add_module("norm0", nn.BatchNorm2d(64))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        width = 64
        for n, depth in enumerate(depths, 1):
            block = nn.Sequential()
            for layer in range(1, depth + 1):
                block.add_module(f"denselayer{layer}", DenseLayer(width))
                width += 32
            self.features.add_module(f"denseblock{n}", block)
            if n < len(depths):
                change = nn.Sequential()
                change.add_module("norm", nn.BatchNorm2d(width))
                change.add_module("relu", nn.ReLU())
                change.add_module("conv", conv(width, width // 2))
                change.add_module("pool", nn.AvgPool2d(2))
                self.features.add_module(f"transition{n}", change)
                width //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.relu(self.features(x)).mean((2, 3)))
        return out


# kernel, stride, expansion, width, depth
B0 = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
      (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))  # fmt: skip
V2 = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (3, 2, 6, 32, 3), (3, 2, 6, 64, 4), (3, 1, 6, 96, 3),
      (3, 2, 6, 160, 3), (3, 1, 6, 320, 1))  # fmt: skip


class Inverted(nn.Module):
    """torchvision's blocks: `block.0.0` in EfficientNet, `conv.0.0` in MobileNetV2."""

    def __init__(self, inputs: int, row: tuple[int, ...], stride: int, se: bool):
        super().__init__()
        kernel, _, expand, width, _ = row
        wide, act = expand * inputs, nn.SiLU if se else nn.ReLU6
        layers: list[nn.Module] = [unit(inputs, wide, act=act)] if expand > 1 else []
        layers.append(unit(wide, wide, kernel, stride, wide, act=act))
        if se:
            layers.append(Squeeze(wide, inputs // 4, ("fc1", "fc2"), nn.SiLU))
            self.block = nn.Sequential(*layers, unit(wide, width))
        else:
            self.conv = nn.Sequential(*layers, *unit(wide, width))
        self.skips = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.block if hasattr(self, "block") else self.conv)(x)
        return x + y if self.skips else y


class Mobile(nn.Module):
    def __init__(self, rows: tuple[tuple[int, ...], ...], *, se: bool):
        super().__init__()
        act, inputs = nn.SiLU if se else nn.ReLU6, 32
        stages, flat = [], []
        for row in rows:
            blocks = []
            for b in range(row[4]):
                blocks.append(Inverted(inputs, row, row[1] if b == 0 else 1, se))
                inputs = row[3]
            stages.append(nn.Sequential(*blocks))
            flat += blocks
        ends = unit(3, 32, 3, 2, act=act), unit(inputs, 1280, act=act)
        self.features = nn.Sequential(ends[0], *(stages if se else flat), ends[1])
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class TimmInverted(nn.Module):
    def __init__(self, inputs: int, row: tuple[int, ...], stride: int):
        super().__init__()
        kernel, _, expand, width, _ = row
        wide = expand * inputs
        names = ("conv_pw", "conv_dw", "conv_pwl") if expand > 1 else ("conv_dw", "conv_pw")
        made = {"conv_dw": conv(wide, wide, kernel, stride, wide), names[-1]: conv(wide, width)}
        made |= {"conv_pw": conv(inputs, wide)} if expand > 1 else {}
        for n, name in enumerate(names, 1):
            self.add_module(name, made[name])
            self.add_module(f"bn{n}", nn.BatchNorm2d(made[name].out_channels))
        self.se = Squeeze(wide, inputs // 4, ("conv_reduce", "conv_expand"), nn.SiLU)
        self.names, self.skips = names, stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n, name in enumerate(self.names, 1):
            y = getattr(self, f"bn{n}")(getattr(self, name)(y))
            y = nn.functional.silu(y) if n < len(self.names) else y
            y = self.se(y) if name == "conv_dw" else y
        return x + y if self.skips else y


class TimmMobile(nn.Module):
    def __init__(self, rows: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.conv_stem, self.bn1, inputs = conv(3, 32, 3, 2), nn.BatchNorm2d(32), 32
        self.blocks = nn.Sequential()
        for row in rows:
            blocks = []
            for b in range(row[4]):
                blocks.append(TimmInverted(inputs, row, row[1] if b == 0 else 1))
                inputs = row[3]
            self.blocks.append(nn.Sequential(*blocks))
        self.conv_head, self.bn2 = conv(inputs, 1280), nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(nn.functional.silu(self.bn1(self.conv_stem(x))))
        x = nn.functional.silu(self.bn2(self.conv_head(x)))
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


Y400 = ((48, 1), (104, 3), (208, 6), (440, 6))


class RegBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        if stride != 1 or inputs != width:
            self.proj = unit(inputs, width, 1, stride)
        self.f = nn.Sequential()
        self.f.add_module("a", unit(inputs, width, act=nn.ReLU))
        self.f.add_module("b", unit(width, width, 3, stride, width // 8, act=nn.ReLU))
        self.f.add_module("se", Squeeze(width, inputs // 4, ("fc1", "fc2"), nn.ReLU))
        self.f.add_module("c", unit(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu((self.proj(x) if hasattr(self, "proj") else x) + self.f(x))


class RegNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.trunk_output, inputs = unit(3, 32, 3, 2, act=nn.ReLU), nn.Sequential(), 32
        for n, (width, depth) in enumerate(Y400, 1):
            blocks = nn.Sequential()
            for b in range(depth):
                blocks.add_module(f"block{n}-{b}", RegBlock(inputs, width, 2 if b == 0 else 1))
                inputs = width
            self.trunk_output.add_module(f"block{n}", blocks)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.trunk_output(self.stem(x)).mean((2, 3)))
        return out


TIMM_REGNET: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^stem\.0": "stem.conv",
    r"^stem\.1": "stem.bn",
    r"^fc": "head.fc",
    r"^trunk_output\.block\d\.block(\d)-(\d)": lambda m: f"s{m[1]}.b{int(m[2]) + 1}",
    r"\.proj\.0": ".downsample.conv",
    r"\.proj\.1": ".downsample.bn",
    r"\.f\.se": ".se",
    r"\.f\.([abc])\.0": lambda m: f".conv{'abc'.index(m[1]) + 1}.conv",
    r"\.f\.([abc])\.1": lambda m: f".conv{'abc'.index(m[1]) + 1}.bn",
}


def timm_regnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's RegNet under timm's names."""
    renamed = {}
    for name, tensor in state.items():
        for theirs, timm in TIMM_REGNET.items():
            name = re.sub(theirs, timm, name)
        renamed[name] = tensor
    return renamed


def dotted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As DenseNets were once saved."""
    old = {f"{kind}{n}.": f"{kind}.{n}." for kind in ("norm", "conv") for n in "12"}
    renamed = {}
    for name, tensor in state.items():
        if "denselayer" in name:
            for new, before in old.items():
                name = name.replace(new, before)
        renamed[name] = tensor
    return renamed


def same(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]
CASES: dict[str, tuple[str, Callable[[], nn.Module], Rename]] = {
    "resnet18": ("resnet18", lambda: ResNet((2, 2, 2, 2), basic=True), same),
    "resnet50": ("resnet50", lambda: ResNet((3, 4, 6, 3)), same),
    "resnext50": ("resnext50_32x4d", lambda: ResNet((3, 4, 6, 3), groups=32, inner=2), same),
    "timm resnet50d": ("resnet50d", lambda: ResNet((3, 4, 6, 3), deep=True), same),
    "timm seresnet50": ("se_resnet50", lambda: ResNet((3, 4, 6, 3), se=True), same),
    "densenet121": ("densenet121", lambda: DenseNet((6, 12, 24, 16)), same),
    "old densenet121": ("densenet121", lambda: DenseNet((6, 12, 24, 16)), dotted),
    "efficientnet_b0": ("efficientnet_b0", lambda: Mobile(B0, se=True), same),
    "timm efficientnet_b0": ("efficientnet_b0", lambda: TimmMobile(B0), same),
    "mobilenet_v2": ("mobilenet_v2", lambda: Mobile(V2, se=False), same),
    "regnet_y_400mf": ("regnety_400mf", RegNet, same),
    "timm regnety_004": ("regnety_400mf", RegNet, timm_regnet),
}


def randomised(network: nn.Module) -> nn.Module:
    """Statistics and scales too, or a norm at another's place would pass."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.7, 1.3)  # type: ignore[arg-type]
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)  # type: ignore[arg-type]
    return network.eval()


def small(name: str) -> Architecture:
    return load_architecture(name).model_copy(update={"classes": 10, "resolution": 64})


@pytest.mark.parametrize(("name", "make", "rename"), CASES.values(), ids=CASES.keys())
def test_outputs_are_those_of_the_library(
    name: str, make: Callable[[], nn.Module], rename: Rename
) -> None:
    theirs = randomised(make())
    ours = load_reference_weights(small(name), rename(theirs.state_dict()))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    assert (expected - found).abs().max() <= 1e-4 * expected.abs().max()


def without(state: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != name}


def test_what_does_not_fit_is_named() -> None:
    architecture, state = small("resnet18"), ResNet((2, 2, 2, 2), basic=True).state_dict()
    with pytest.raises(DocumentError, match="missing") as missing:
        load_reference_weights(architecture, without(state, "layer2.0.bn1.bias"))
    assert missing.value.where == "layer2.0.bn1.bias"
    with pytest.raises(DocumentError, match="left over") as extra:
        load_reference_weights(architecture, {**state, "layer5.weight": torch.zeros(1)})
    assert extra.value.where == "layer5.weight"
    with pytest.raises(DocumentError, match="shape"):
        load_reference_weights(architecture, {**state, "fc.bias": torch.zeros(7)})
    with pytest.raises(DocumentError, match="not known"):
        load_reference_weights(architecture, {"encoder.weight": torch.zeros(1)})


def test_counters_of_batches_may_be_absent() -> None:
    state = ResNet((2, 2, 2, 2), basic=True).state_dict()
    fewer = {name: value for name, value in state.items() if "num_batches" not in name}
    load_reference_weights(small("resnet18"), fewer)
