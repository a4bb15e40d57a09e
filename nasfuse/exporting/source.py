"""A network as a readable Python file that needs nothing but torch.

The classes are the source text of the operators that were searched and trained, so the two
cannot drift; what is written anew is the list of layers. Text from outside (class names) enters
as Python literals only.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from nasfuse.architecture import Architecture
from nasfuse.costs import Cost, Shape, show_macs
from nasfuse.exporting.loading import LOADING
from nasfuse.network import Group, layout
from nasfuse.plan import Layer, Part

WIDTH = 88  # of a line, as the formatters' default


def module_source(architecture: Architecture, *, about: str, constants: Mapping[str, Any]) -> str:
    """The text of model.py: blocks, the network layer by layer, and `load`.

    `about` becomes the docstring's body; `constants` are literals such as CLASSES and MEAN.
    """
    tree = layout(architecture)
    literals = "\n".join(_constants(constants))
    found: dict[type[nn.Module], None] = {}
    for cls in _classes(tree):
        _add(cls, found)
    blocks = "\n\n\n".join(_class_source(cls) for cls in found)
    return "\n".join(
        (
            f'"""{_docstring(about)}"""\n',
            _imports(blocks),
            f"{literals}\n\n",
            f"{blocks}\n\n",
            f"{_network(architecture, tree)}\n\n",
            LOADING,
        )
    )


def _docstring(text: str) -> str:
    """Text that can neither end the docstring nor escape in it."""
    safe = text.replace("\\", "/").replace('"', "'").strip()
    return f"{safe}\n" if "\n" in safe else safe


NOTES = {
    "CLASSES": "in the order of the network's answers",
    "RESOLUTION": "pixels on a side of what the network sees",
    "SIDE": "pixels on a side that an image file is first scaled to, as for training",
    "MEAN": "mean and deviation of each channel, of values from 0 to 1",
}


def _constants(constants: Mapping[str, Any]) -> Iterator[str]:
    for name, value in constants.items():
        if name in NOTES:
            yield f"# {NOTES[name]}"
        yield _constant(name, value)


def _constant(name: str, value: Any) -> str:
    """`NAME = value`, one item a line where it does not fit on one."""
    line = f"{name} = {_literal(value)}"
    if len(line) <= WIDTH or not isinstance(value, tuple):
        return line
    return "\n".join((f"{name} = (", *(f"    {_literal(item)}," for item in value), ")"))


def _literal(value: Any) -> str:
    """A Python literal in ASCII with the formatter's quotes."""
    if isinstance(value, tuple):
        items = ", ".join(_literal(item) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, str):
        text = ascii(value)
        if text[0] == "'" and '"' not in text:
            text = '"' + text[1:-1].replace("\\'", "'") + '"'
        return text
    return repr(value)


def _classes(group: Group) -> Iterator[type[nn.Module]]:
    """The classes of all parts inside a group."""
    for member in group.members.values():
        if isinstance(member, Group):
            yield member.module
            yield from _classes(member)
        else:
            yield from _modules(member.part)


def _imports(text: str) -> str:
    """What the text uses."""
    uses = {
        "import math": "math." in text,
        "from collections.abc import Sequence": "Sequence[" in text,
    }
    standard = ["import json", "import sys", *(line for line, used in uses.items() if used)]
    lines = (*sorted(standard, key=lambda line: (line[:6] != "import", line)), *_PATH)
    return "\n".join(("from __future__ import annotations\n", *lines, _TORCH))


_PATH = ("from pathlib import Path\n",)
_TORCH = "import torch\nfrom torch import Tensor, nn\n"


def _modules(value: object) -> Iterator[type[nn.Module]]:
    """The class of a part, and of all that it is given."""
    if isinstance(value, Part):
        yield value.module
        for inner in (*value.sizes, *(option for _, option in value.options)):
            yield from _modules(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _modules(inner)
    elif isinstance(value, type):
        yield value


def _add(cls: type[nn.Module], found: dict[type[nn.Module], None]) -> None:
    if cls.__module__.startswith("torch.") or cls in found:
        return
    module = inspect.getmodule(cls)
    for name in re.findall(r"\b[A-Z]\w+", inspect.getsource(cls.__init__)):
        used = getattr(module, name, None)
        if inspect.isclass(used) and issubclass(used, nn.Module) and used is not cls:
            _add(used, found)
    found[cls] = None


def _class_source(cls: type[nn.Module]) -> str:
    """The class as it stands here, without the notes for our type checker."""
    return re.sub(r"  # type: ignore\[[\w-]+\]", "", inspect.getsource(cls)).rstrip()


def _network(architecture: Architecture, tree: Group) -> str:
    """The class Network: its layers with their sizes and prices, and its forward pass."""
    side = architecture.resolution
    lines = [
        "class Network(nn.Module):",
        f'    """Images (batch, {architecture.channels}, {side}, {side}) to '
        f'(batch, {architecture.classes})."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
    ]
    for name, member in tree.members.items():
        lines += _member(f"self.{name} = ", member, 8)
    if architecture.norm_eps:
        lines += _EPS.format(architecture.norm_eps).splitlines()
    levels = getattr(architecture.neck, "levels", 1)
    forward = _NECK_FORWARD.format(levels) if architecture.neck else _FORWARD
    return "\n".join((*lines, "", forward))


def _member(lead: str, member: Layer | Group, indent: int) -> Iterator[str]:
    """The lines that build a layer or a group of them; `lead` is what they are assigned to."""
    pad, comma = " " * indent, "" if lead.endswith(" = ") else ","
    if isinstance(member, Layer):
        yield _comment(member, indent)
        room = len(lead) + len(comma)
        yield f"{pad}{lead}{expression(member.part, indent, lead=room)}{comma}"
        return
    yield f"{pad}{lead}{_name(member.module)}("
    for name, inner in member.members.items():
        yield from _member("" if name.isdigit() else f"{name}=", inner, indent + 4)
    yield f"{pad}){comma}"


_EPS = """        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = {!r}"""

_FORWARD = """    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))"""

_NECK_FORWARD = """    def forward(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.head(self.neck(maps[-{}:]))"""


def _comment(layer: Layer, indent: int) -> str:
    shape, price = layer.shape, layer.cost
    size = " x ".join(str(n) for n in shape) if shape.pixels > 1 else f"{shape.channels} classes"
    return f"{' ' * indent}# {size}, {show_macs(price.macs)} MACs, {price.params:,} parameters"


def expression(part: Part, indent: int, *, lead: int = 0) -> str:
    """The call that builds a part, formatted as `ruff format` would.

    `lead` columns of its first line are taken by what stands before and behind it.
    """
    values = [("", size) for size in part.sizes] + [(f"{key}=", v) for key, v in _said(part)]
    arguments = [f"{key}{_value(v, indent + 4, len(key) + 1)}" for key, v in values]
    opening, inner, outer = f"{_name(part.module)}(", " " * (indent + 4), " " * indent
    if not any(_holds_parts(value) for _, value in values):
        joined = ", ".join(arguments)
        if indent + lead + len(opening) + len(joined) + 1 <= WIDTH:
            return f"{opening}{joined})"
        if indent + 4 + len(joined) <= WIDTH:
            return f"{opening}\n{inner}{joined}\n{outer})"
    return f"{opening}\n" + "".join(f"{inner}{a},\n" for a in arguments) + f"{outer})"


def _said(part: Part) -> Iterator[tuple[str, Any]]:
    """The options that differ from what the class takes anyway."""
    usual = inspect.signature(part.module).parameters
    for name, value in part.options:
        if value != usual[name].default:
            yield name, value


def _holds_parts(value: object) -> bool:
    items = value if isinstance(value, tuple) and not isinstance(value, Part) else (value,)
    return any(isinstance(item, Part) for item in items)


def _value(value: object, indent: int, lead: int) -> str:
    """An argument: a call, a list of calls, a class, or a literal."""
    if isinstance(value, Part):
        return expression(value, indent, lead=lead)
    if isinstance(value, tuple) and _holds_parts(value):
        pad = " " * (indent + 4)
        if len(value) > 2 and len(set(value)) == 1:
            alike = f"[{expression(value[0], 0)} for _ in range({len(value)})]"
            if indent + lead + len(alike) < WIDTH and "\n" not in alike:
                return alike
        items = (f"{pad}{expression(item, indent + 4, lead=1)},\n" for item in value)
        return f"[\n{''.join(items)}{' ' * indent}]"
    return _name(value) if isinstance(value, type) else _literal(value)


def _name(cls: type) -> str:
    return f"nn.{cls.__name__}" if cls.__module__.startswith("torch.") else cls.__name__


def describe(shape: Shape, cost: Cost) -> str:
    """One sentence on size and price, in both conventions of counting."""
    return (
        f"{show_macs(cost.macs)} MACs ({show_macs(2 * cost.macs)} FLOPs where a multiply-add "
        f"counts as two), {cost.params:,} parameters, images of {shape}."
    )
