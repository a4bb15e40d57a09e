"""Weights of published networks: state dicts with torchvision's or timm's names.

Our names say where a tensor stands (`stages.1.0.transform.conv2.norm.weight`). A place is found
for each of them, and a function a layout says what the other library calls the module there:

| layout | networks | recognised by |
|---|---|---|
| resnet | ResNet, ResNeXt, timm's -D and SE variants | `layer1.0.conv1.weight` |
| densenet | DenseNet, old names with `norm.1` too | `features.conv0.weight` |
| efficientnet | torchvision's EfficientNet | `features.1.0.block.0.0.weight` |
| mobilenet_v2 | torchvision's MobileNetV2 | `features.1.conv.0.0.weight` |
| timm_mobile | timm's EfficientNet, MobileNetV2, MnasNet | `conv_stem.weight` |
| regnet | torchvision's RegNet | `stem.0.weight` and `trunk_output` |
| timm_regnet | timm's RegNet | `s1.b1.conv1.conv.weight` |

Not in a state dict but part of the function: the epsilon of batch norm, padding, activations, the
stride's place in a bottleneck. These are the document's; equal outputs need a document that says
the same (`norm_eps: 0.001` and `padding: same` for networks that TensorFlow trained).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from nasfuse.architecture import Architecture
from nasfuse.errors import DocumentError
from nasfuse.genes import MBConv, RegNet
from nasfuse.network import build
from nasfuse.stages import Stage


class Place(NamedTuple):
    """Where a module stands: in the stem, a block's role, a transition or the head.

    `role` is `conv1` and so on, `shortcut`, `se`, or what MBConv's and RegNet's layers do; `part`
    is conv, norm, squeeze, excite or linear.
    """

    kind: str
    stage: int
    block: int
    role: str
    part: str


def load_reference_weights(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The network in evaluation mode, with the weights of a state dict of torchvision or timm.

    Raises:
        DocumentError: the names are of no known layout, or a tensor is missing, left over or of
            another shape.
    """
    network = build(architecture)
    theirs = {_modern(name): tensor for name, tensor in state.items()}
    name_of = _layout(theirs)
    ours = network.state_dict()
    wanted = {name: _name(architecture, name, name_of) for name in ours if not _counter(name)}
    extra = theirs.keys() - set(wanted.values())
    _refuse("is left over", sorted(name for name in extra if not _counter(name)))
    _refuse("is missing", [name for name in wanted.values() if name not in theirs])
    shapes = {n: (tuple(ours[n].shape), tuple(theirs[t].shape)) for n, t in wanted.items()}
    _refuse(
        "has another shape",
        [
            f"{wanted[n]} {b} for {a}"
            for n, (a, b) in shapes.items()
            if _squeezed(a) != _squeezed(b)
        ],
    )
    loaded = {name: theirs[found].reshape(ours[name].shape) for name, found in wanted.items()}
    network.load_state_dict(ours | loaded)
    return network.eval()


def _modern(name: str) -> str:
    """DenseNets were once saved with a dot: `denselayer1.norm.1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", name)


def _counter(name: str) -> bool:
    """Counters of batches have no effect on outputs, and old files lack them."""
    return name.endswith("num_batches_tracked")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1 x 1 convolution's weights are those of a linear layer."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise DocumentError(
            "these weights do not belong to this network",
            where=names[0],
            why=f"it {what}, as {len(names)} in all",
            fix="nasfuse cost NAME --by-layer   lists the network's layers",
        )


def _name(
    architecture: Architecture, name: str, name_of: Callable[[Architecture, Place], str]
) -> str:
    """What the other library calls one of our tensors."""
    module, leaf = name.rsplit(".", 1)
    return f"{name_of(architecture, _place(architecture, module))}.{leaf}"


def _place(architecture: Architecture, module: str) -> Place:
    first, *rest = module.split(".")
    if first != "stages":
        index = int(rest.pop(0)) if rest[0].isdigit() else 0
        return Place(first, 0, index, rest[0], rest[-1])
    number, block, *inner = rest
    if inner[0] == "transform":
        inner = inner[1:]
    stage, part = architecture.stages[int(number)], inner[-1]
    if inner[0] == "layers":
        role = _roles(stage)[int(inner[1])]
    else:
        role = "se" if inner[0] == "fusion" else inner[0]
    kind = "transition" if int(block) >= stage.depth else "block"
    return Place(kind, int(number), int(block), role, part)


def _roles(stage: Stage) -> dict[int, str]:
    """What the layers of an inverted bottleneck or a RegNet block do, by their index in it."""
    block = stage.block
    assert isinstance(block, MBConv | RegNet)
    wide = isinstance(block, RegNet) or block.expand > 1
    steps = [*(["widen", "act"] if wide else []), "middle", "act"]
    steps += [*(["se"] if block.se else []), "project"]
    return dict(enumerate(steps))


def _position(stage: Stage, role: str) -> int:
    """The index of a role when activations are not counted."""
    return [name for name in _roles(stage).values() if name != "act"].index(role)


def _resnet(architecture: Architecture, place: Place) -> str:
    number = {"conv": 0, "norm": 1}.get(place.part, 0)
    if place.kind == "head":
        return "fc"
    if place.kind == "stem":
        before = architecture.stem.before
        if before is None:
            return ("conv1", "bn1")[number]
        last = place.block == len(before) and place.part == "norm"
        return "bn1" if last else f"conv1.{3 * place.block + number}"
    prefix = f"layer{place.stage + 1}.{place.block}"
    if place.role == "se":
        return f"{prefix}.se.{'fc1' if place.part == 'squeeze' else 'fc2'}"
    if place.role == "shortcut":  # after a pool, or its place, where any shortcut is pooled
        pooled = any(stage.shortcut == "pooled" for stage in architecture.stages)
        return f"{prefix}.downsample.{number + pooled}"
    return f"{prefix}.{('conv', 'bn')[number]}{place.role[-1]}"


def _densenet(architecture: Architecture, place: Place) -> str:
    del architecture
    if place.kind == "head":
        return "classifier" if place.part == "linear" else "features.norm5"
    if place.kind == "stem":
        return f"features.{place.part}0"
    if place.kind == "transition":
        return f"features.transition{place.stage + 1}.{place.part}"
    layer = f"features.denseblock{place.stage + 1}.denselayer{place.block + 1}"
    return f"{layer}.{place.part}{place.role[-1]}"


def _efficientnet(architecture: Architecture, place: Place) -> str:
    if place.part == "linear":
        return "classifier.1"
    inner = {"conv": "0", "norm": "1", "squeeze": "fc1", "excite": "fc2"}[place.part]
    if place.kind == "stem":
        return f"features.0.{inner}"
    if place.kind == "head":
        return f"features.{len(architecture.stages) + 1}.{inner}"
    position = _position(architecture.stages[place.stage], place.role)
    return f"features.{place.stage + 1}.{place.block}.block.{position}.{inner}"


def _mobilenet_v2(architecture: Architecture, place: Place) -> str:
    depths = [stage.depth for stage in architecture.stages]
    number = 0 if place.part == "conv" else 1
    if place.part == "linear":
        return "classifier.1"
    if place.kind != "block":
        return f"features.{0 if place.kind == 'stem' else sum(depths) + 1}.{number}"
    index = 1 + sum(depths[: place.stage]) + place.block
    position = _position(architecture.stages[place.stage], place.role)
    inner = position + number if place.role == "project" else f"{position}.{number}"
    return f"features.{index}.conv.{inner}"


def _timm_mobile(architecture: Architecture, place: Place) -> str:
    if place.part == "linear":
        return "classifier"
    if place.kind != "block":
        ends = {"stem": ("conv_stem", "bn1"), "head": ("conv_head", "bn2")}[place.kind]
        return ends[1 if place.part == "norm" else 0]
    prefix = f"blocks.{place.stage}.{place.block}"
    if place.role == "se":
        return f"{prefix}.se.{'conv_reduce' if place.part == 'squeeze' else 'conv_expand'}"
    roles = _roles(architecture.stages[place.stage]).values()
    order = [role for role in roles if role not in ("act", "se")]
    if place.part == "norm":
        return f"{prefix}.bn{order.index(place.role) + 1}"
    pointwise = "conv_pwl" if "widen" in order else "conv_pw"
    names = {"widen": "conv_pw", "middle": "conv_dw", "project": pointwise}
    return f"{prefix}.{names[place.role]}"


def _regnet(architecture: Architecture, place: Place) -> str:
    del architecture
    number = 0 if place.part == "conv" else 1
    if place.kind != "block":
        return "fc" if place.kind == "head" else f"stem.{number}"
    prefix = f"trunk_output.block{place.stage + 1}.block{place.stage + 1}-{place.block}"
    if place.role == "shortcut":
        return f"{prefix}.proj.{number}"
    if place.role == "se":
        return f"{prefix}.f.se.{'fc1' if place.part == 'squeeze' else 'fc2'}"
    return f"{prefix}.f.{ {'widen': 'a', 'middle': 'b', 'project': 'c'}[place.role] }.{number}"


def _timm_regnet(architecture: Architecture, place: Place) -> str:
    del architecture
    inner = "conv" if place.part == "conv" else "bn"
    if place.kind != "block":
        return "head.fc" if place.kind == "head" else f"stem.{inner}"
    prefix = f"s{place.stage + 1}.b{place.block + 1}"
    if place.role == "se":
        return f"{prefix}.se.{'fc1' if place.part == 'squeeze' else 'fc2'}"
    names = {"widen": "conv1", "middle": "conv2", "project": "conv3", "shortcut": "downsample"}
    return f"{prefix}.{names[place.role]}.{inner}"


_LAYOUTS: dict[str, Callable[[Architecture, Place], str]] = {
    "layer1.0.conv1.weight": _resnet,
    "features.conv0.weight": _densenet,
    "features.1.0.block.0.0.weight": _efficientnet,
    "features.1.conv.0.0.weight": _mobilenet_v2,
    "conv_stem.weight": _timm_mobile,
    "trunk_output.block1.block1-0.f.a.0.weight": _regnet,
    "s1.b1.conv1.conv.weight": _timm_regnet,
}


def _layout(state: Mapping[str, Tensor]) -> Callable[[Architecture, Place], str]:
    for marker, name_of in _LAYOUTS.items():
        if marker in state:
            return name_of
    raise DocumentError(
        "the names of these weights are not known",
        where=next(iter(state), "an empty state dict"),
        why="they are neither torchvision's nor timm's for ResNet, DenseNet, EfficientNet, "
        "MobileNetV2 or RegNet",
    )
