"""Documents changed at random: each is refused with its place, or priced to the last MAC."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from nasfuse.architecture import parse_architecture
from nasfuse.errors import DocumentError
from nasfuse.network import cost, thop_macs, torch_cost
from nasfuse.references import load_architecture, reference_names

STAGE: dict[str, list[Any]] = {
    "fusion": [
        "add", "concat", "complex", "dual_path", "gated", "max", "asff", "norm_concat",
        {"kind": "aff", "reduction": 4, "scale": 2}, {"kind": "sk", "reduction": 8},
        {"kind": "iaff", "reduction": 4, "shared": True}, {"kind": "se", "reduction": 999},
        {"kind": "cross_attention", "reduction": 8}, "sum", None,
    ],
    "block": [
        {"kind": "residual", "kernel": 5}, {"kind": "preact", "kernel": 3},
        {"kind": "bottleneck", "kernel": 3, "inner": 0.5, "groups": 4},
        {"kind": "preact_bottleneck", "kernel": 3, "inner": 0.25},
        {"kind": "dual_path", "kernel": 3, "inner": 1.0, "group_width": 4},
        {"kind": "sk_bottleneck", "kernel": 3, "inner": 0.5, "reduction": 4},
        {"kind": "regnet", "kernel": 3, "inner": 0.75, "se": 4},
        {"kind": "mbconv", "kernel": 5, "expand": 2, "se": 4, "padding": "same"},
        {"kind": "fused_mbconv", "kernel": 3, "expand": 1}, {"kind": "dense", "kernel": 3},
        {"kind": "dense", "kernel": 4},
    ],
    "stride": [1, 2, 3],
    "width": [8, 12, 20, 32, 48, -1, None],
    "growth": [4, 8, 12, "many"],
    "depth": [1, 2, 0],
    "shortcut": ["pooled", "padded", "equal", None],
    "attention": ["eca", "non_local", {"kind": "cbam", "reduction": 4}, "cbam"],
    "after": [{"kind": "bam", "reduction": 4}, {"kind": "se", "reduction": 4}],
    "transition": [{"compression": 0.1}, {"compression": 1.0}, {"compression": 2}],
    "cross": [
        {"expand": 16, "output": 24}, {"expand": 32, "output": 16, "linear": True},
        {"expand": 48, "output": 32, "grows": True}, {"expand": 7, "output": 8},
    ],
}  # fmt: skip
NETWORK: dict[str, list[Any]] = {
    "resolution": [16, 33, 47, 64],
    "activation": ["gelu", "elu", "hard_swish", "swish"],
    "norm_eps": [0.001, 0, None],
    "head": [{"kind": "mean"}, {"kind": "norm", "activation": "elu"}, {"kind": "conv", "width": 9}],
    "stem": [
        {"width": 8, "kernel": 3, "stride": 2, "bare": True},
        {"width": 16, "kernel": 7, "stride": 2, "pool": "max", "padding": "same"},
        {"width": 8, "kernel": 3, "stride": 1, "before": [8]},
    ],
    "neck": [
        {"kind": "fpn", "levels": 2, "width": 8, "fusion": "gated"},
        {"kind": "pan", "levels": 3, "width": 8, "fusion": {"kind": "aff", "reduction": 2}},
        {"kind": "bifpn", "levels": 3, "width": 8, "repeats": 2, "fusion": "multiply"},
        {"kind": "asff", "levels": 3, "width": 8}, {"kind": "late", "levels": 2},
        {"kind": "hyper", "levels": 3, "width": 8, "fusion": "shortcut_gated"},
        {"kind": "spp", "width": 8},
    ],
}  # fmt: skip


def mutant(generator: random.Random) -> dict[str, Any]:
    """A published network, small, with one to four values replaced."""
    document = load_architecture(generator.choice(reference_names())).document()
    document |= {"classes": 10, "resolution": min(64, document["resolution"])}
    for stage in document["stages"]:
        stage |= {"depth": min(2, stage["depth"]), "fusion": stage["fusion"][0]}
    for _ in range(generator.randint(1, 4)):
        whole = generator.random() < 0.3
        target, values = document, NETWORK
        if not whole:
            target, values = generator.choice(document["stages"]), STAGE
        name = generator.choice(list(values))
        target[name] = generator.choice(values[name])
    return document


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_document_is_refused_or_priced_exactly(seed: int) -> None:
    generator, seen = random.Random(seed), Counter[str]()
    for _ in range(60):
        document = mutant(generator)
        try:
            network = parse_architecture(document, where="a mutant")
        except DocumentError:
            seen["refused"] += 1
            continue
        price = cost(network)
        small = price.macs < 100_000_000 and price.params < 5_000_000
        device = "cpu" if small else "meta"  # whichever is faster
        assert torch_cost(network, device=device) == (price.macs, price.params), document
        assert thop_macs(network, device=device) == price.thop, document
        seen["priced"] += 1
    assert min(seen.values()) >= 10, seen
