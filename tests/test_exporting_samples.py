"""Networks of every space and with every operator, exported: difference 0, clean source.

`NASFUSE_SAMPLES=500 NASFUSE_GRAPHS=60 pytest tests/test_exporting_samples.py` tries more of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from PIL import Image

from nasfuse.architecture import Architecture, parse_architecture
from nasfuse.exporting.graphs import write_onnx, write_pt2
from nasfuse.exporting.source import module_source
from nasfuse.ops.attention import ATTENTIONS
from nasfuse.ops.blocks import BLOCKS
from nasfuse.ops.fusion import FUSIONS
from nasfuse.ops.heads import HEADS
from nasfuse.ops.layers import ACTIVATIONS
from nasfuse.ops.necks import NECKS
from nasfuse.scaling import fit_to_budget
from nasfuse.space import load_space, space_names

SAMPLES = int(os.environ.get("NASFUSE_SAMPLES", "42"))
GRAPHS = int(os.environ.get("NASFUSE_GRAPHS", "8"))
Document = dict[str, Any]
Randomised = Callable[[Architecture], torch.nn.Module]

SETTINGS: dict[str, Document] = {
    **{kind: {"reduction": 4} for kind in ("se", "sk", "ms_cam", "cross_attention", "aff", "iaff")},
    **{kind: {"reduction": 4} for kind in ("cbam", "bam")},
    **{kind: {"inner": 0.5} for kind in ("bottleneck", "preact_bottleneck", "regnet")},
    "sk_bottleneck": {"inner": 0.5, "reduction": 4},
    **{kind: {"expand": 2} for kind in ("mbconv", "fused_mbconv")},
    "conv": {"width": 12},
}
LEVELS: dict[str, Document] = {
    **{kind: {"levels": 2, "width": 8, "fusion": "add"} for kind in ("fpn", "pan", "hyper")},
    "bifpn": {"levels": 2, "width": 8, "fusion": "fast_normalised", "repeats": 2},
    "asff": {"levels": 2, "width": 8},
    "late": {"levels": 2},
    "spp": {"width": 8},
}
STAGES: list[Document] = [
    {"shortcut": "pooled", "stride": 2},
    {"shortcut": "padded", "stride": 2, "width": 12},
    {"shortcut": "equal", "stride": 2},
    {"transition": {"compression": 0.5}},
    {"after": {"kind": "bam", "reduction": 4}},
    {"cross": {"expand": 16, "output": 12}},
    {"cross": {"expand": 16, "output": 12, "linear": True, "grows": True}, "stride": 2},
    {"block": {"kind": "mbconv", "kernel": 5, "expand": 2, "se": 4, "padding": "same"}},
    {"block": {"kind": "regnet", "kernel": 3, "inner": 1.0, "group_width": 4, "se": 4}},
    {"fusion": {"kind": "aff", "reduction": 4, "scale": 2}},
    {"fusion": {"kind": "iaff", "reduction": 4, "shared": True}},
]
STEMS: list[Document] = [
    {"stride": 2, "pool": "max"},
    {"stride": 2, "before": [4, 6], "padding": "same"},
    {"stride": 1, "bare": True},
]


def of_kind(kind: str) -> Any:
    return {"kind": kind, **SETTINGS.get(kind, {})}


def operators(base: Document) -> Iterator[Document]:
    """Documents with each operator of each table, and each way to say a stage or a stem."""

    def staged(**changes: Any) -> Document:
        stage = {**base["stages"][0], "depth": 2, "fusion": "add", **changes}
        kind = stage["fusion"] if isinstance(stage["fusion"], str) else stage["fusion"]["kind"]
        if kind in ("concat", "dual_path"):
            stage["growth"] = 4
        if kind == "concat":
            del stage["width"]
        return {**base, "stages": [stage, base["stages"][1]]}

    yield from (staged(fusion=of_kind(kind)) for kind in FUSIONS)
    for kind in BLOCKS:
        own = {"kind": kind, "inner": 0.5} if kind == "dual_path" else of_kind(kind)
        yield staged(block={**own, "kernel": 3})
    yield from (staged(attention=of_kind(kind)) for kind in ATTENTIONS)
    yield from (staged(**changes) for changes in STAGES)
    yield from ({**base, "stem": {**base["stem"], **changes}} for changes in STEMS)
    yield from ({**base, "activation": kind, "norm_eps": 0.001} for kind in ACTIVATIONS)
    yield {**base, "norm_eps": 0.00123456789}
    yield from ({**base, "head": of_kind(kind)} for kind in HEADS)
    necks = [{"kind": kind, **settings} for kind, settings in LEVELS.items()]
    yield from ({**base, "neck": neck, "head": {"kind": "mean"}} for neck in necks)


def sampled(count: int) -> Iterator[Architecture]:
    """Random members of all spaces in turn, scaled to a small budget."""
    spaces = [load_space(name) for name in space_names()]
    for number in range(count):
        space = spaces[number % len(spaces)]
        budget = 20_000_000 if space.name == "mobile" else 4_000_000
        candidate = space.sample(number)
        yield fit_to_budget(candidate.architecture, candidate.scaling, budget)


def run_source(architecture: Architecture, path: Path) -> dict[str, Any]:
    """The names of the module whose text is written there."""
    side = architecture.resolution
    constants = {"CLASSES": ("a", "b"), "RESOLUTION": side, "SIDE": 9, "MEAN": (0.5,), "STD": (1,)}
    text = module_source(architecture, about="A network.", constants=constants)
    path.write_text(text)
    namespace: dict[str, Any] = {"__name__": "model"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as wrong escapes, which later versions refuse
        exec(compile(text, "model.py", "exec"), namespace)
    return namespace


def epsilons(network: torch.nn.Module) -> list[float]:
    return [m.eps for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def check_source(architecture: Architecture, path: Path, searched: torch.nn.Module) -> None:
    """The module's text builds a network with the same keys and exactly the same outputs."""
    side = architecture.resolution
    exported = run_source(architecture, path)["Network"]()
    exported.load_state_dict(searched.state_dict(), strict=True)
    assert list(exported.state_dict()) == list(searched.state_dict())
    assert epsilons(exported) == epsilons(searched)
    x = torch.randn(2, architecture.channels, side, side)
    with torch.no_grad():
        assert torch.equal(searched(x), exported.eval()(x)), architecture.to_json()


def check_ruff(folder: Path) -> None:
    """Clean, formatted, and no syntax that one of these versions of Python lacks."""
    versions = (["check", "--target-version", f"py3{minor}"] for minor in range(10, 15))
    for command in (["check"], ["format", "--check"], *versions):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", str(folder)]
        run = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout


class Elsewhere(torch.nn.Module):
    """Parameters on another device, where images have to be; its answer lies on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.device == self.weight.device
        return torch.zeros(len(x), 2)


def test_images_are_prepared_on_the_device_of_the_network(
    tmp_path: Path, architecture: Architecture
) -> None:
    model = run_source(architecture, tmp_path / "model.py")
    Image.new("L", (12, 10)).save(tmp_path / "photo.png")
    shares = model["predict"](tmp_path / "photo.png", Elsewhere())
    assert shares == [("a", 0.5), ("b", 0.5)]


def test_every_operator_is_exported_as_it_was_searched(
    tmp_path: Path, document: Document, randomised: Randomised
) -> None:
    assert set(NECKS) | {"late"} == set(LEVELS)
    for number, changed in enumerate(operators(document)):
        architecture = parse_architecture(changed, where=str(number))
        check_source(architecture, tmp_path / f"model{number}.py", randomised(architecture))
    check_ruff(tmp_path)


def test_sampled_networks_are_exported_as_they_were_searched(
    tmp_path: Path, randomised: Randomised
) -> None:
    for number, architecture in enumerate(sampled(SAMPLES)):
        check_source(architecture, tmp_path / f"model{number}.py", randomised(architecture))
    check_ruff(tmp_path)


def some(document: Document) -> list[Architecture]:
    """Sampled networks and operators, of both about half."""
    every = [parse_architecture(one, where="") for one in operators(document)]
    half = GRAPHS // 2
    return [*sampled(GRAPHS - half), *every[:: -(-len(every) // half)]]


@pytest.mark.slow
def test_networks_answer_alike_as_graphs(
    tmp_path: Path, document: Document, randomised: Randomised
) -> None:
    """For any batch, although one of two was traced."""
    for architecture in some(document):
        network, side = randomised(architecture), architecture.resolution
        write_pt2(network, architecture, tmp_path / "model.pt2")
        program = torch.export.load(tmp_path / "model.pt2").module()
        write_onnx(network, architecture, tmp_path / "model.onnx", notes={})
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        for batch in (1, 2, 7):
            x = torch.randn(batch, architecture.channels, side, side)
            with torch.no_grad():
                expected = network(x)
            found = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
            largest = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
            assert largest <= 1e-5, architecture.to_json()
            assert torch.equal(program(x), expected), architecture.to_json()
