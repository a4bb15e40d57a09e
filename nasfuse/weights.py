"""Weights of published networks: state dicts with torchvision's or timm's names.

A module's place says what it is (`mbconv.widen.conv`, `stem.norm`) and where (stage, block, layer).
A layout's rules, patterns of places with templates of names, say what the other library calls it.
Exactly one rule has to fit each of our modules, and the names have to be those of the state dict:
none twice, missing or left over. A 1 x 1 convolution may be a linear layer there.

| layout | recognised by |
|---|---|
| ResNet, ResNeXt, in both libraries; timm's -D and SE variants | `layer1.0.conv1.weight` |
| DenseNet, in both; old files with `norm.1` too | `features.conv0.weight` |
| torchvision's EfficientNet | `features.1.0.block.0.0.weight` |
| torchvision's MobileNetV2 | `features.1.conv.0.0.weight` |
| torchvision's MnasNet | `layers.8.0.layers.0.weight` |
| timm's EfficientNet, MobileNetV2, MnasNet | `conv_stem.weight` |
| torchvision's RegNet | `trunk_output.block1.block1-0.f.a.0.weight` |
| timm's RegNet | `s1.b1.conv1.conv.weight` |

Not in a state dict but part of the function: the epsilon of batch norm, padding, activations,
fusions without weights, the stride's place in a bottleneck. These are the document's; equal outputs
need a document that says the same (`norm_eps: 0.001` and `padding: same` for networks that
TensorFlow trained). Counters of batches have no effect on outputs, and old files lack them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from nasfuse.architecture import Architecture
from nasfuse.errors import DocumentError
from nasfuse.genes import MBConv, RegNet
from nasfuse.network import build
from nasfuse.stages import Stage

Rules = tuple[tuple[str, str], ...]

# By a name that only this layout has: patterns of places, templates of names. {stage}, {block} (of
# the stage), {unit} (of the network), {layer} and {conv} (of the block or stem) count from 0,
# activations left out, {conv} without squeeze-and-excitation; {item} is 3 conv, {stack} 7 + stage,
# and a 1 behind each of them adds one. At the head, stage and unit are the next ones.
_LAYOUTS: dict[str, Rules] = {
    "layer1.0.conv1.weight": (
        (r"stem\.conv", "conv1"),
        (r"(?:stem|deep\.last)\.norm", "bn1"),
        (r"deep\.(?:before|last)\.conv", "conv1.{item}"),
        (r"deep\.before\.norm", "conv1.{item1}"),
        (r"(?:residual|bottleneck)\.conv", "layer{stage1}.{block}.conv{conv1}"),
        (r"(?:residual|bottleneck)\.norm", "layer{stage1}.{block}.bn{conv1}"),
        (r"gate\.squeeze", "layer{stage1}.{block}.se.fc1"),
        (r"gate\.excite", "layer{stage1}.{block}.se.fc2"),
        (r"shortcut\.conv", "layer{stage1}.{block}.downsample.0"),
        (r"shortcut\.norm|pooled\.conv", "layer{stage1}.{block}.downsample.1"),
        (r"pooled\.norm", "layer{stage1}.{block}.downsample.2"),
        (r"head\.linear", "fc"),
    ),
    "features.conv0.weight": (
        (r"stem\.(conv|norm)", r"features.\g<1>0"),
        (r"dense\.(conv|norm)", r"features.denseblock{stage1}.denselayer{block1}.\1{conv1}"),
        (r"transition\.(conv|norm)", r"features.transition{stage1}.\1"),
        (r"head\.norm", "features.norm5"),
        (r"head\.linear", "classifier"),
    ),
    "features.1.0.block.0.0.weight": (
        (r"stem\.conv", "features.0.0"),
        (r"stem\.norm", "features.0.1"),
        (r"(?:mbconv|single|fused)\.\w+\.conv", "features.{stage1}.{block}.block.{layer}.0"),
        (r"(?:mbconv|single|fused)\.\w+\.norm", "features.{stage1}.{block}.block.{layer}.1"),
        (r"se\.squeeze", "features.{stage1}.{block}.block.{layer}.fc1"),
        (r"se\.excite", "features.{stage1}.{block}.block.{layer}.fc2"),
        (r"head\.conv", "features.{stage1}.0"),
        (r"head\.norm", "features.{stage1}.1"),
        (r"head\.linear", "classifier.1"),
    ),
    "features.1.conv.0.0.weight": (
        (r"stem\.conv", "features.0.0"),
        (r"stem\.norm", "features.0.1"),
        (r"(?:mbconv|single)\.(?:widen|depthwise)\.conv", "features.{unit1}.conv.{layer}.0"),
        (r"(?:mbconv|single)\.(?:widen|depthwise)\.norm", "features.{unit1}.conv.{layer}.1"),
        (r"(?:mbconv|single)\.project\.conv", "features.{unit1}.conv.{layer}"),
        (r"(?:mbconv|single)\.project\.norm", "features.{unit1}.conv.{layer1}"),
        (r"head\.conv", "features.{unit1}.0"),
        (r"head\.norm", "features.{unit1}.1"),
        (r"head\.linear", "classifier.1"),
    ),
    "layers.8.0.layers.0.weight": (
        (r"stem\.conv", "layers.0"),
        (r"stem\.norm", "layers.1"),
        (r"single\.depthwise\.conv", "layers.3"),
        (r"single\.depthwise\.norm", "layers.4"),
        (r"single\.project\.conv", "layers.6"),
        (r"single\.project\.norm", "layers.7"),
        (r"mbconv\.\w+\.conv", "layers.{stack}.{block}.layers.{item}"),
        (r"mbconv\.\w+\.norm", "layers.{stack}.{block}.layers.{item1}"),
        (r"head\.conv", "layers.{stack}"),
        (r"head\.norm", "layers.{stack1}"),
        (r"head\.linear", "classifier.1"),
    ),
    "conv_stem.weight": (
        (r"stem\.conv", "conv_stem"),
        (r"stem\.norm", "bn1"),
        (r"(?:mbconv\.widen|single\.project)\.conv", "blocks.{stage}.{block}.conv_pw"),
        (r"(?:mbconv|single)\.depthwise\.conv", "blocks.{stage}.{block}.conv_dw"),
        (r"(?:mbconv|fused)\.project\.conv", "blocks.{stage}.{block}.conv_pwl"),
        (r"fused\.widen\.conv", "blocks.{stage}.{block}.conv_exp"),
        (r"fused\.only\.conv", "blocks.{stage}.{block}.conv"),
        (r"(?:mbconv|single|fused)\.\w+\.norm", "blocks.{stage}.{block}.bn{conv1}"),
        (r"se\.squeeze", "blocks.{stage}.{block}.se.conv_reduce"),
        (r"se\.excite", "blocks.{stage}.{block}.se.conv_expand"),
        (r"head\.conv", "conv_head"),
        (r"head\.norm", "bn2"),
        (r"head\.linear", "classifier"),
    ),
    "trunk_output.block1.block1-0.f.a.0.weight": (
        (r"stem\.conv", "stem.0"),
        (r"stem\.norm", "stem.1"),
        (r"regnet\.([abc])\.conv", r"trunk_output.block{stage1}.block{stage1}-{block}.f.\1.0"),
        (r"regnet\.([abc])\.norm", r"trunk_output.block{stage1}.block{stage1}-{block}.f.\1.1"),
        (r"se\.squeeze", "trunk_output.block{stage1}.block{stage1}-{block}.f.se.fc1"),
        (r"se\.excite", "trunk_output.block{stage1}.block{stage1}-{block}.f.se.fc2"),
        (r"shortcut\.conv", "trunk_output.block{stage1}.block{stage1}-{block}.proj.0"),
        (r"shortcut\.norm", "trunk_output.block{stage1}.block{stage1}-{block}.proj.1"),
        (r"head\.linear", "fc"),
    ),
    "s1.b1.conv1.conv.weight": (
        (r"stem\.conv", "stem.conv"),
        (r"stem\.norm", "stem.bn"),
        (r"regnet\.[abc]\.conv", "s{stage1}.b{block1}.conv{conv1}.conv"),
        (r"regnet\.[abc]\.norm", "s{stage1}.b{block1}.conv{conv1}.bn"),
        (r"se\.squeeze", "s{stage1}.b{block1}.se.fc1"),
        (r"se\.excite", "s{stage1}.b{block1}.se.fc2"),
        (r"shortcut\.conv", "s{stage1}.b{block1}.downsample.conv"),
        (r"shortcut\.norm", "s{stage1}.b{block1}.downsample.bn"),
        (r"head\.linear", "head.fc"),
    ),
}

# the convolutions of a block that numbers its layers, by its kind and whether it widens
_CONVOLUTIONS = {
    ("regnet", True): ("regnet.a", "regnet.b", "regnet.c"),
    ("mbconv", True): ("mbconv.widen", "mbconv.depthwise", "mbconv.project"),
    ("mbconv", False): ("single.depthwise", "single.project"),
    ("fused_mbconv", True): ("fused.widen", "fused.project"),
    ("fused_mbconv", False): ("fused.only",),
}


class Place(NamedTuple):
    """What a module of ours is, and the numbers that names are made of."""

    what: str
    numbers: dict[str, int]


def load_reference_weights(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The network in evaluation mode, with the weights of a state dict of torchvision or timm.

    Raises:
        DocumentError: the names are of no known layout, the network has a part that the layout has
            no name for, or a tensor is missing, left over, there twice or of another shape.
    """
    network = build(architecture)
    ours = network.state_dict()
    _refuse("is there twice", _repeated(_modern(name) for name in state))
    theirs = {_modern(name): tensor for name, tensor in state.items()}
    names = _names(architecture, ours, _rules(theirs))
    _compare(ours, theirs, names)
    found = {name: theirs[name_there] for name, name_there in names.items() if name_there in theirs}
    network.load_state_dict(ours | {n: found[n].reshape(ours[n].shape) for n in found})
    return network.eval()


def _modern(name: str) -> str:
    """DenseNets were once saved with a dot: `denselayer1.norm.1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise DocumentError(
            "these weights do not belong to this network",
            where=names[0],
            why=f"it {what} ({len(names)} in all)",
            fix="nasfuse cost NAME --by-layer   lists the network's layers",
        )


def _rules(theirs: Mapping[str, Tensor]) -> Rules:
    for marker, rules in _LAYOUTS.items():
        if marker in theirs:
            return rules
    raise DocumentError(
        "the names of these weights are not known",
        where=next(iter(theirs), "an empty state dict"),
        why=f"they are neither torchvision's nor timm's for ResNet, DenseNet, EfficientNet, "
        f"MobileNetV2, MnasNet or RegNet ({len(theirs)} in all)",
        fix="pass the state dict itself: not a checkpoint around it, nor names with a prefix",
    )


def _names(architecture: Architecture, ours: Iterable[str], rules: Rules) -> dict[str, str]:
    """What the other library calls each of our tensors."""
    split = {name: name.rpartition(".") for name in ours}
    modules = {module for module, _, _ in split.values()}
    theirs = {module: _renamed(_place(architecture, module), rules) for module in modules}
    unknown = [name for name, (module, _, _) in split.items() if theirs[module] is None]
    _refuse("is the network's, and this layout has no name for it", unknown)
    names = {name: f"{theirs[module]}.{leaf}" for name, (module, _, leaf) in split.items()}
    _refuse("would be used twice", _repeated(names.values()))
    return names


def _renamed(place: Place, rules: Rules) -> str | None:
    """By the one rule that fits, None where none does."""
    numbers = place.numbers | {f"{name}1": number + 1 for name, number in place.numbers.items()}
    fits = [(re.fullmatch(pattern, place.what), template) for pattern, template in rules]
    found = [fit.expand(template).format_map(numbers) for fit, template in fits if fit]
    return found[0] if len(found) == 1 else None


def _compare(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    _refuse("is left over", sorted(theirs.keys() - set(names.values())))
    missing = [found for found in names.values() if found not in theirs]
    _refuse("is missing", [name for name in missing if not name.endswith("num_batches_tracked")])
    pairs = {found: (ours[name], theirs[found]) for name, found in names.items() if found in theirs}
    odd = [found for found, (a, b) in pairs.items() if _squeezed(a) != _squeezed(b)]
    if odd:
        here, there = (list(tensor.shape) for tensor in pairs[odd[0]])
        _refuse(f"has the shape {there} where the network has {here}", odd)


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    """A 1 x 1 convolution's weights are those of a linear layer."""
    return tuple(tensor.shape[:2] if tensor.shape[2:] == (1, 1) else tensor.shape)


def _place(architecture: Architecture, module: str) -> Place:
    """A module that is in none of the layouts is its own place, which no rule fits."""
    depths = [stage.depth for stage in architecture.stages]
    if found := re.fullmatch(r"stem\.(?:(\d+)\.)?(?:conv\.)?(conv|norm)", module):
        return _in_stem(architecture, int(found[1] or 0), found[2])
    if found := re.fullmatch(r"head\.(?:conv\.)?(conv|norm|linear)", module):
        return Place(f"head.{found[1]}", _numbers(depths, len(depths)))
    if found := re.fullmatch(r"stages\.(\d+)\.(\d+)\.(.+)", module):
        return _in_stage(architecture, _numbers(depths, int(found[1]), int(found[2])), found[3])
    return Place(module, {})


def _numbers(depths: list[int], stage: int, block: int = 0) -> dict[str, int]:
    before = sum(depths[:stage])
    return {"stage": stage, "block": block, "unit": before + block, "stack": stage + 7}


def _in_stem(architecture: Architecture, index: int, part: str) -> Place:
    before = architecture.stem.before
    if before is None:
        return Place(f"stem.{part}", {})
    role = "last" if index == len(before) else "before"
    return Place(f"deep.{role}.{part}", {"item": 3 * index})


def _in_stage(architecture: Architecture, numbers: dict[str, int], inner: str) -> Place:
    stage = architecture.stages[numbers["stage"]]
    if found := re.fullmatch(r"transform\.(?:0\.)?conv([123])\.(conv|norm)", inner):
        return Place(f"{stage.block.kind}.{found[2]}", numbers | {"conv": int(found[1]) - 1})
    if found := re.fullmatch(r"(?:transform\.)?layers\.(\d+)\.(\w+)", inner):
        return _in_layers(stage, numbers, int(found[1]), found[2])
    if found := re.fullmatch(r"(?:fusion|transform\.1)\.attention\.(squeeze|excite)", inner):
        return Place(f"gate.{found[1]}", numbers)
    if found := re.fullmatch(r"shortcut\.(?:1\.)?(conv|norm)", inner):
        # where any shortcut is pooled, all of them have the pool's place
        pooled = any(stage.shortcut == "pooled" for stage in architecture.stages)
        return Place(f"{'pooled' if pooled else 'shortcut'}.{found[1]}", numbers)
    if found := re.fullmatch(r"conv\.(conv|norm)", inner):
        return Place(f"transition.{found[1]}", numbers)
    return Place(inner, numbers)


def _in_layers(stage: Stage, numbers: dict[str, int], index: int, part: str) -> Place:
    """In a block that numbers its layers, each convolution but the last followed by activation."""
    block = stage.block
    assert isinstance(block, MBConv | RegNet)
    *first, last = _CONVOLUTIONS[block.kind, getattr(block, "expand", 2) > 1]
    steps = [step for name in first for step in (name, "")]
    steps += ["se", last] if block.se else [last]
    before = [step for step in steps[:index] if step]
    conv = len(before) - before.count("se")
    what = f"{steps[index]}.{part}" if index < len(steps) else part
    return Place(what, numbers | {"layer": len(before), "conv": conv, "item": 3 * conv})
