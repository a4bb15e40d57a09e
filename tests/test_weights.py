"""State dicts with torchvision's and timm's names, on networks written here with those names.

Neither library imports with torch's CPU build, so their networks are written anew, in their own
forward passes and with their names; equal outputs then say that every tensor came to its place.
Statistics of batch norm are those of an input: with any others the signal fades with the depth,
and the output of an EfficientNet does not depend on the weights of its first half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.errors import DocumentError
from nasfuse.references import load_architecture, reference_names
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


# kernel, stride, expansion, width, depth, and whether fused
B0 = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3),
      (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))  # fmt: skip
V2 = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (3, 2, 6, 32, 3), (3, 2, 6, 64, 4), (3, 1, 6, 96, 3),
      (3, 2, 6, 160, 3), (3, 1, 6, 320, 1))  # fmt: skip
B2 = ((3, 1, 1, 16, 2), (3, 2, 6, 24, 3), (5, 2, 6, 48, 3), (3, 2, 6, 88, 4), (5, 1, 6, 120, 4),
      (5, 2, 6, 208, 5), (3, 1, 6, 352, 2))  # fmt: skip
M1 = ((3, 1, 1, 16, 1), (3, 2, 3, 24, 3), (5, 2, 3, 40, 3), (5, 2, 6, 80, 3), (3, 1, 6, 96, 2),
      (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))  # fmt: skip
FUSED = ((3, 1, 1, 16, 1, True), (3, 2, 4, 24, 2, True), (3, 2, 4, 32, 2))  # a small V2


class Inverted(nn.Module):
    """torchvision's blocks: `block.0.0` in EfficientNet, `conv.0.0` in MobileNetV2."""

    def __init__(self, inputs: int, row: tuple[int, ...], stride: int, se: bool):
        super().__init__()
        kernel, _, expand, width, _, *fused = row
        wide, act = expand * inputs, nn.SiLU if se else nn.ReLU6
        self.skips = stride == 1 and inputs == width
        if fused:
            first = unit(inputs, wide if expand > 1 else width, kernel, stride, act=act)
            self.block = nn.Sequential(first, *([unit(wide, width)] if expand > 1 else []))
            return
        layers: list[nn.Module] = [unit(inputs, wide, act=act)] if expand > 1 else []
        layers.append(unit(wide, wide, kernel, stride, wide, act=act))
        if se:
            layers.append(Squeeze(wide, inputs // 4, ("fc1", "fc2"), nn.SiLU))
            self.block = nn.Sequential(*layers, unit(wide, width))
        else:
            self.conv = nn.Sequential(*layers, *unit(wide, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.block if hasattr(self, "block") else self.conv)(x)
        return x + y if self.skips else y


class Mobile(nn.Module):
    def __init__(self, rows: tuple[tuple[int, ...], ...], *, se: bool, last: int = 1280):
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
        ends = unit(3, 32, 3, 2, act=act), unit(inputs, last, act=act)
        self.features = nn.Sequential(ends[0], *(stages if se else flat), ends[1])
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return out


class MnasBlock(nn.Module):
    def __init__(self, inputs: int, row: tuple[int, ...], stride: int):
        super().__init__()
        kernel, _, expand, width, _ = row
        wide = expand * inputs
        depthwise = unit(wide, wide, kernel, stride, wide, act=nn.ReLU)
        self.layers = nn.Sequential(
            *unit(inputs, wide, act=nn.ReLU), *depthwise, *unit(wide, width)
        )
        self.skips = stride == 1 and inputs == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.skips else y


class MnasNet(nn.Module):
    """torchvision's, whose first stage is part of the stem."""

    def __init__(self) -> None:
        super().__init__()
        stem = unit(3, 32, 3, 2, act=nn.ReLU)
        separable = (*unit(32, 32, 3, 1, 32, act=nn.ReLU), *unit(32, 16))
        stacks, inputs = [], 16
        for row in M1[1:]:
            stack = []
            for b in range(row[4]):
                stack.append(MnasBlock(inputs, row, row[1] if b == 0 else 1))
                inputs = row[3]
            stacks.append(nn.Sequential(*stack))
        self.layers = nn.Sequential(*stem, *separable, *stacks, *unit(320, 1280, act=nn.ReLU))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.layers(x).mean((2, 3)))
        return out


class TimmInverted(nn.Module):
    """Depthwise separable, inverted, or an edge residual, by expansion and whether fused."""

    def __init__(
        self, inputs: int, row: tuple[int, ...], stride: int, se: bool, act: type[nn.Module]
    ):
        super().__init__()
        kernel, _, expand, width, _, *fused = row
        wide = expand * inputs
        if fused:
            made = {"conv_exp": conv(inputs, wide, kernel, stride), "conv_pwl": conv(wide, width)}
            made = made if expand > 1 else {"conv": conv(inputs, width, kernel, stride)}
        else:
            made = {"conv_pw": conv(inputs, wide)} if expand > 1 else {}
            made["conv_dw"] = conv(wide, wide, kernel, stride, wide)
            made["conv_pwl" if expand > 1 else "conv_pw"] = conv(wide, width)
        for n, (name, module) in enumerate(made.items(), 1):
            self.add_module(name, module)
            self.add_module(f"bn{n}", nn.BatchNorm2d(module.out_channels))
        squeeze = Squeeze(wide, inputs // 4, ("conv_reduce", "conv_expand"), act)
        self.se = squeeze if se and not fused else nn.Identity()
        self.names, self.skips, self.act = list(made), stride == 1 and inputs == width, act()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for n, name in enumerate(self.names, 1):
            y = getattr(self, f"bn{n}")(getattr(self, name)(y))
            linear = n == len(self.names) and name != "conv"
            y = y if linear else self.act(y)
            y = self.se(y) if name == "conv_dw" else y
        return x + y if self.skips else y


class TimmMobile(nn.Module):
    def __init__(
        self,
        rows: tuple[tuple[int, ...], ...],
        *,
        se: bool = False,
        act: type[nn.Module] = nn.SiLU,
    ):
        super().__init__()
        self.conv_stem, self.bn1, inputs = conv(3, 32, 3, 2), nn.BatchNorm2d(32), 32
        self.blocks, self.act = nn.Sequential(), act()
        for row in rows:
            blocks = []
            for b in range(row[4]):
                blocks.append(TimmInverted(inputs, row, row[1] if b == 0 else 1, se, act))
                inputs = row[3]
            self.blocks.append(nn.Sequential(*blocks))
        self.conv_head, self.bn2 = conv(inputs, 1280), nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act(self.bn1(self.conv_stem(x))))
        x = self.act(self.bn2(self.conv_head(x)))
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


class TimmUnit(nn.Module):
    def __init__(self, *arguments: int):
        super().__init__()
        self.conv, self.bn = conv(*arguments), nn.BatchNorm2d(arguments[1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


class TimmRegBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = TimmUnit(inputs, width)
        self.conv2 = TimmUnit(width, width, 3, stride, width // 8)
        self.se = Squeeze(width, inputs // 4, ("fc1", "fc2"), nn.ReLU)
        self.conv3 = TimmUnit(width, width)
        same = stride == 1 and inputs == width
        self.downsample = nn.Identity() if same else TimmUnit(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(self.conv3(y) + self.downsample(x))


class TimmRegNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, inputs = TimmUnit(3, 32, 3, 2), 32
        for n, (width, depth) in enumerate(Y400, 1):
            stage = nn.Sequential()
            for b in range(1, depth + 1):
                stage.add_module(f"b{b}", TimmRegBlock(inputs, width, 2 if b == 1 else 1))
                inputs = width
            self.add_module(f"s{n}", stage)
        self.head = nn.ModuleDict({"fc": nn.Linear(inputs, 10)})

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for n in range(1, 5):
            x = getattr(self, f"s{n}")(x)
        out: Tensor = self.head["fc"](x.mean((2, 3)))
        return out


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


def linear(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Squeeze-and-excitation by linear layers, as in some libraries."""
    return {
        name: x.flatten(1) if ".se.fc" in name and x.ndim == 4 else x for name, x in state.items()
    }


def same(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Case = tuple[str, Callable[[], nn.Module], Rename]
CASES: dict[str, Case] = {
    "resnet18": ("resnet18", lambda: ResNet((2, 2, 2, 2), basic=True), same),
    "resnet50": ("resnet50", lambda: ResNet((3, 4, 6, 3)), same),
    "resnext50": ("resnext50_32x4d", lambda: ResNet((3, 4, 6, 3), groups=32, inner=2), same),
    "timm resnet50d": ("resnet50d", lambda: ResNet((3, 4, 6, 3), deep=True), same),
    "timm seresnet50": ("se_resnet50", lambda: ResNet((3, 4, 6, 3), se=True), same),
    "linear seresnet50": ("se_resnet50", lambda: ResNet((3, 4, 6, 3), se=True), linear),
    "densenet121": ("densenet121", lambda: DenseNet((6, 12, 24, 16)), same),
    "old densenet121": ("densenet121", lambda: DenseNet((6, 12, 24, 16)), dotted),
    "efficientnet_b0": ("efficientnet_b0", lambda: Mobile(B0, se=True), same),
    "efficientnet_b2": ("efficientnet_b2", lambda: Mobile(B2, se=True, last=1408), same),
    "timm efficientnet_b0": ("efficientnet_b0", lambda: TimmMobile(B0, se=True), same),
    "mobilenet_v2": ("mobilenet_v2", lambda: Mobile(V2, se=False), same),
    "timm mobilenetv2_100": ("mobilenet_v2", lambda: TimmMobile(V2, act=nn.ReLU6), same),
    "mnasnet1_0": ("mnasnet_b1", MnasNet, same),
    "timm mnasnet_100": ("mnasnet_b1", lambda: TimmMobile(M1, act=nn.ReLU), same),
    "regnet_y_400mf": ("regnety_400mf", RegNet, same),
    "timm regnety_004": ("regnety_400mf", TimmRegNet, same),
}


def randomised(network: nn.Module) -> nn.Module:
    """Every tensor is random, and every batch norm has seen what comes to it.

    Scales and statistics too, or a norm at another's place would pass.
    """
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def small(name: str) -> Architecture:
    return load_architecture(name).model_copy(update={"classes": 10, "resolution": 64})


def same_outputs(ours: nn.Module, theirs: nn.Module) -> bool:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    return bool((expected - found).abs().max() < 1e-4 * expected.abs().max())


def scramble(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(tensor.flatten().roll(1).view_as(tensor))


@pytest.mark.parametrize(("name", "make", "rename"), CASES.values(), ids=CASES.keys())
def test_outputs_are_those_of_the_library(
    name: str, make: Callable[[], nn.Module], rename: Rename
) -> None:
    theirs = randomised(make())
    ours = load_reference_weights(small(name), rename(theirs.state_dict()))
    assert not ours.training
    assert same_outputs(ours, theirs)
    scramble(next(theirs.parameters()))  # even the first convolution can be told from another
    assert not same_outputs(ours, theirs)


@pytest.mark.parametrize(
    "make", [lambda: Mobile(FUSED, se=True), lambda: TimmMobile(FUSED, se=True)]
)
def test_fused_blocks_are_those_of_the_library(make: Callable[[], nn.Module]) -> None:
    document = small("efficientnet_b0").document() | {"norm_eps": 0.001, "stages": []}
    for kernel, stride, expand, width, depth, *fused in FUSED:
        block = {"kind": "fused_mbconv"} if fused else {"kind": "mbconv", "se": 4}
        document["stages"] += [
            {"depth": depth, "stride": stride, "width": width, "fusion": "add", "shortcut": "equal",
             "block": block | {"kernel": kernel, "expand": expand}}
        ]  # fmt: skip
    theirs = make()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.001
    state = randomised(theirs).state_dict()
    ours = load_reference_weights(parse_architecture(document, where="V2"), state)
    assert same_outputs(ours, theirs)


def test_squeeze_and_excitation_may_be_attention_before_an_addition() -> None:
    architecture = small("se_resnet50")
    gene = {"kind": "se", "reduction": 16}
    document = architecture.document()
    for stage in document["stages"]:
        stage |= {"fusion": "add", "attention": gene}
    theirs = randomised(ResNet((3, 4, 6, 3), se=True))
    other = parse_architecture(document, where="SE")
    assert same_outputs(load_reference_weights(other, theirs.state_dict()), theirs)


RESNET18 = ResNet((2, 2, 2, 2), basic=True).state_dict()


def without(names: list[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in RESNET18.items() if name not in names}


def refusal(architecture: Architecture, state: dict[str, Any]) -> tuple[str, str]:
    """Where and why."""
    with pytest.raises(DocumentError) as refused:
        load_reference_weights(architecture, state)
    return refused.value.where, refused.value.why


def test_what_does_not_fit_is_named_and_counted() -> None:
    architecture, zero = small("resnet18"), torch.zeros(1)
    gone = without(["layer2.0.bn1.bias", "layer3.0.bn1.bias"])
    assert refusal(architecture, gone) == ("layer2.0.bn1.bias", "it is missing (2 in all)")
    more = RESNET18 | {"layer5.weight": zero}
    assert refusal(architecture, more) == ("layer5.weight", "it is left over (1 in all)")
    counter = RESNET18 | {"layer5.num_batches_tracked": zero}
    assert refusal(architecture, counter)[0] == "layer5.num_batches_tracked"
    odd = RESNET18 | {"fc.bias": torch.zeros(7)}
    shapes = "it has the shape [7] where the network has [10] (1 in all)"
    assert refusal(architecture, odd) == ("fc.bias", shapes)


def test_a_shape_is_another_even_with_as_many_numbers() -> None:
    turned = RESNET18["layer1.0.conv1.weight"].reshape(64, 3, 64, 3)
    state = RESNET18 | {"layer1.0.conv1.weight": turned}
    assert refusal(small("resnet18"), state)[0] == "layer1.0.conv1.weight"


def test_a_name_may_not_be_there_both_old_and_new() -> None:
    state = DenseNet((6, 12, 24, 16)).state_dict()
    name, why = refusal(small("densenet121"), state | dotted(state))
    assert name == "features.denseblock1.denselayer1.norm1.weight"
    assert why.startswith("it is there twice")


@pytest.mark.parametrize(
    "state", [{"encoder.weight": torch.zeros(1)}, {}, {"state_dict": RESNET18}]
)
def test_names_of_no_layout_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="not known"):
        load_reference_weights(small("resnet18"), state)


def test_a_part_that_a_layout_has_no_name_for_is_named() -> None:
    name, why = refusal(small("aff_resnet50"), ResNet((3, 4, 6, 3), deep=True).state_dict())
    assert name.startswith("stages.2.0.fusion.local")
    assert "no name" in why


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    """One of each layout."""
    networks = {
        "resnet18": ResNet((2, 2, 2, 2), basic=True),
        "densenet121": DenseNet((6, 12, 24, 16)),
        "efficientnet_b0": Mobile(B0, se=True),
        "mobilenet_v2": Mobile(V2, se=False),
        "mnasnet_b1": MnasNet(),
        "timm efficientnet_b0": TimmMobile(B0, se=True),
        "regnety_400mf": RegNet(),
        "timm regnety_400mf": TimmRegNet(),
    }
    return {name: network.state_dict() for name, network in networks.items()}


@pytest.mark.parametrize("name", reference_names())
def test_other_networks_weights_are_refused(
    name: str, states: dict[str, dict[str, Tensor]]
) -> None:
    document = small(name).document() | {"resolution": 224}
    for stage in document["stages"]:  # shallow, to be quick
        stage |= {"depth": 1, "fusion": stage["fusion"][:1]}
    architecture = parse_architecture(document, where=name)
    for state in states.values():
        refusal(architecture, state)


def test_counters_of_batches_may_be_absent() -> None:
    counters = [name for name in RESNET18 if name.endswith("num_batches_tracked")]
    assert counters
    load_reference_weights(small("resnet18"), without(counters))
