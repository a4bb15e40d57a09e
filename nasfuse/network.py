"""From an Architecture to a module, and to what it costs, by formula and as torch and thop count.

The layers are those of `plan`; here they become one tree of modules.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasfuse.architecture import Architecture
from nasfuse.costs import Cost
from nasfuse.ops.counting import THOP_HANDLERS
from nasfuse.ops.skips import Cross
from nasfuse.plan import Layer, plan, price


class Network(nn.Module):
    """head(stages(stem(x))): images (batch, channels, side, side) to (batch, classes)."""

    def __init__(self, *, stem: nn.Module, stages: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(self.stem(x)))
        return out


class NeckNetwork(nn.Module):
    """head(neck(maps)), maps being what the last `levels` stages put out, finest first.

    Shapes are those of Network.
    """

    def __init__(
        self,
        levels: int,
        *,
        stem: nn.Module,
        stages: nn.Sequential,
        neck: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.stem = stem
        self.stages = stages
        self.neck = neck
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        out: Tensor = self.head(self.neck(maps[-self.levels :]))
        return out


class Group(NamedTuple):
    """A module of modules: a Sequential of numbered members, or another class of named ones."""

    module: type[nn.Module]
    members: dict[str, Layer | Group]
    sizes: tuple[int, ...] = ()

    def build(self) -> nn.Module:
        built = {
            name: member.build() if isinstance(member, Group) else member.part.build()
            for name, member in self.members.items()
        }
        if self.module is nn.Sequential:
            return nn.Sequential(*built.values())
        return self.module(*self.sizes, **built)


def layout(architecture: Architecture) -> Group:
    """The layers of the plan as a tree, by the dots of their names."""
    layers = [(layer.name.split("."), layer) for layer in plan(architecture)]
    if architecture.neck is None:
        return _grouped(Network, layers)
    levels = getattr(architecture.neck, "levels", 1)
    return _grouped(NeckNetwork, layers)._replace(sizes=(levels,))


def _grouped(module: type[nn.Module], layers: Iterable[tuple[list[str], Layer]]) -> Group:
    inside: dict[str, list[tuple[list[str], Layer]]] = {}
    for (first, *rest), layer in layers:
        inside.setdefault(first, []).append((rest, layer))
    members: dict[str, Layer | Group] = {}
    for name, found in inside.items():
        path, layer = found[0]
        if path:
            members[name] = _grouped(nn.Sequential if path[0].isdigit() else Cross, found)
        else:
            members[name] = layer
    return Group(module, members)


def cost(architecture: Architecture) -> Cost:
    """MACs, parameters and thop's MACs of one image, in closed form: nothing is built."""
    return price(architecture)


def build(architecture: Architecture) -> nn.Module:
    """The network with fresh weights, drawn from torch's global generator.

    It takes images (batch, channels, side, side) and puts out (batch, classes).
    """
    network = layout(architecture).build()
    if architecture.norm_eps:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = architecture.norm_eps
    return network


def _on(device: str, architecture: Architecture) -> tuple[nn.Module, Tensor]:
    side = architecture.resolution
    with torch.device(device):
        return build(architecture).eval(), torch.empty(1, architecture.channels, side, side)


def torch_cost(architecture: Architecture, *, device: str = "meta") -> tuple[int, int]:
    """MACs and parameters as torch counts them; on the meta device no arithmetic is done.

    Of small networks a processor does the arithmetic in less time than that device needs.
    """
    network, image = _on(device, architecture)
    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


def thop_macs(architecture: Architecture, *, device: str = "meta") -> int:
    """MACs as thop counts them; on the meta device no arithmetic is done.

    The first use of that device takes a second and 80 MB. thop is told of products of matrices,
    which it cannot see. It leaves buffers in the module that it measures, so it gets a throw-away
    one; its count of parameters is wrong for some modules and is not used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # thop compares versions by distutils
        import thop

    network, image = _on(device, architecture)
    macs, _ = thop.profile(network, (image,), custom_ops=THOP_HANDLERS, verbose=False)
    return int(macs)
