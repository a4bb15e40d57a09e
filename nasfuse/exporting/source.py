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
from nasfuse.network import Layer, Part, plan

WIDTH = 88  # of a line, as the formatters' default


def module_source(architecture: Architecture, *, about: str, constants: Mapping[str, Any]) -> str:
    """The text of model.py: blocks, the network layer by layer, and `load`.

    `about` becomes the docstring's body; `constants` are literals such as CLASSES and MEAN.
    """
    layers = list(plan(architecture))
    literals = "\n".join(_constant(name, value) for name, value in constants.items())
    blocks = "\n\n\n".join(_class_source(cls) for cls in _classes(layers))
    return "\n".join(
        (
            f'"""{_docstring(about)}\n"""\n',
            _IMPORTS,
            f"{literals}\n\n",
            f"{blocks}\n\n",
            f"{_network(architecture, layers)}\n\n",
            _LOADING,
        )
    )


def _docstring(text: str) -> str:
    """Text that can neither end the docstring nor escape in it."""
    return text.replace("\\", "/").replace('"', "'").strip()


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


def _classes(layers: list[Layer]) -> list[type[nn.Module]]:
    """Our own classes that the layers need, each after those that it uses."""
    found: dict[type[nn.Module], None] = {}
    for layer in layers:
        for used in _parts(layer.part):
            _add(used.module, found)
    return list(found)


def _parts(part: Part) -> Iterator[Part]:
    yield part
    for _, value in part.options:
        if isinstance(value, Part):
            yield from _parts(value)


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


def _network(architecture: Architecture, layers: list[Layer]) -> str:
    stem, *blocks, head = layers
    side = architecture.resolution
    lines = [
        "class Network(nn.Module):",
        f'    """Images (batch, {architecture.channels}, {side}, {side}) to '
        f'(batch, {architecture.classes})."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        _comment(stem, 8),
        _assign("self.stem", stem.part, 8),
        "        self.stages = nn.Sequential(",
    ]
    for number, stage in enumerate(architecture.stages):
        lines.append("            nn.Sequential(")
        for layer in blocks[: stage.depth]:
            lines += [_comment(layer, 16), f"{' ' * 16}{expression(layer.part, 16)},"]
        blocks = blocks[stage.depth :]
        del number
        lines.append("            ),")
    lines += ["        )", _comment(head, 8), _assign("self.head", head.part, 8), "", _FORWARD]
    return "\n".join(lines)


_FORWARD = """    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(self.stem(x)))
        return out"""


def _comment(layer: Layer, indent: int) -> str:
    shape, price = layer.shape, layer.cost
    size = " x ".join(str(n) for n in shape) if shape.pixels > 1 else f"{shape.channels} classes"
    return f"{' ' * indent}# {size}, {show_macs(price.macs)} MACs, {price.params:,} parameters"


def _assign(target: str, part: Part, indent: int) -> str:
    lead = f"{' ' * indent}{target} = "
    return lead + expression(part, indent, lead=len(target) + 3)


def expression(part: Part, indent: int, *, lead: int = 0) -> str:
    """The call that builds a part, formatted as `ruff format` would."""
    name = _name(part.module)
    arguments = [str(size) for size in part.sizes]
    nested = any(isinstance(value, Part) for _, value in part.options)
    arguments += [f"{key}={_argument(value, indent + 4)}" for key, value in part.options]
    line = f"{name}({', '.join(arguments)})"
    # one column is for the comma that follows a part of a part
    if not nested and indent + lead + len(line) + (0 if lead else 1) <= WIDTH:
        return line
    inner, outer = " " * (indent + 4), " " * indent
    if not nested:
        joined = ", ".join(arguments)
        if indent + 4 + len(joined) <= WIDTH:
            return f"{name}(\n{inner}{joined}\n{outer})"
    return f"{name}(\n" + "".join(f"{inner}{a},\n" for a in arguments) + f"{outer})"


def _argument(value: object, indent: int) -> str:
    if isinstance(value, Part):
        return expression(value, indent, lead=11)
    return _name(value) if isinstance(value, type) else repr(value)


def _name(cls: type) -> str:
    return f"nn.{cls.__name__}" if cls.__module__.startswith("torch.") else cls.__name__


def describe(shape: Shape, cost: Cost) -> str:
    """One sentence on size and price, in both conventions of counting."""
    return (
        f"{show_macs(cost.macs)} MACs ({show_macs(2 * cost.macs)} FLOPs where a multiply-add\n"
        f"counts as two), {cost.params:,} parameters, images of {shape}."
    )


_IMPORTS = """from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
"""

_LOADING = '''def load(weights: str | Path | None = None) -> Network:
    """The network in evaluation mode; without a path, the weights beside this file."""
    path = Path(weights) if weights else Path(__file__).with_name("model.safetensors")
    network = Network()
    network.load_state_dict(read_safetensors(path))
    return network.eval()


def normalise(images: Tensor) -> Tensor:
    """uint8 images (batch, channels, height, width) as the network wants them."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scaled = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    side = (RESOLUTION, RESOLUTION)
    if scaled.shape[-2:] == side:
        return scaled
    return nn.functional.interpolate(scaled, side, mode="bilinear", antialias=True)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name: eight bytes of length, a JSON header, then the raw numbers."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        # copied, because numbers that do not start at a multiple of their size cannot be viewed
        piece = torch.frombuffer(data[start:end], dtype=types[entry["dtype"]])
        tensors[name] = piece.view(entry["shape"])
    return tensors
'''
