"""Published networks as points of the space, to the last parameter and multiply-add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import yaml

from nasfuse.architecture import parse_architecture
from nasfuse.errors import DocumentError
from nasfuse.network import cost, thop_macs, torch_cost
from nasfuse.references import load_architecture, reference_names
from nasfuse.scaling import efficientnet


class Published(NamedTuple):
    """Parameters and MACs of convolutions and linear layers, counted on the authors' networks."""

    params: int
    macs: int


PUBLISHED = {
    "resnet18": Published(11_689_512, 1_814_073_344),
    "resnet20": Published(269_722, 40_551_040),
    "resnet50": Published(25_557_032, 4_089_184_256),
    "resnet50d": Published(25_576_264, 4_328_824_832),
    "resnext50_32x4d": Published(25_028_904, 4_230_479_872),
    "preact_resnet50": Published(25_549_352, 4_089_184_256),
    "se_resnet50": Published(28_088_024, 4_091_699_200),
    "sk_resnext50_32x4d": Published(27_479_784, 4_462_710_784),
    "cbam_resnet50": Published(28_089_624, 4_095_573_110),
    "bam_resnet50": Published(25_915_099, 4_171_331_328),
    "aff_resnet32": Published(7_897_156, 1_132_375_040),
    "aff_resnet50": Published(30_373_192, 4_562_395_136),
    "iaff_resnet50": Published(35_170_120, 4_795_965_440),
    "densenet121": Published(7_978_856, 2_834_161_664),
    "densenet_bc_100_12": Published(769_162, 287_929_692),
    "dpn68": Published(12_611_602, 2_326_163_456),
    "csp_resnet50": Published(21_616_168, 3_458_752_512),
    "mobilenet_v2": Published(3_504_872, 300_774_272),
    "mnasnet_b1": Published(4_383_312, 314_415_872),
    "efficientnet_b0": Published(5_288_548, 385_814_752),
    "efficientnet_b2": Published(9_109_994, 993_561_872),
    "regnety_400mf": Published(4_344_144, 401_842_848),
}
# thop on torchvision's networks, and what average pools that are modules there add to it:
# (pixels + 1) * channels for each, at the end of the network and in squeeze-and-excitation
THOP = {
    "resnet18": (1_824_033_792, 50 * 512),
    "resnet50": (4_133_742_592, 50 * 2048),
    "resnext50_32x4d": (4_288_184_320, 50 * 2048),
    "densenet121": (2_897_007_104, 0),
    "mobilenet_v2": (327_486_720, 0),
    "mnasnet_b1": (336_242_432, 0),
    "efficientnet_b0": (415_145_024, 2_379_488),
    "regnety_400mf": (418_183_352, 795_352),
}


def test_every_reference_is_checked() -> None:
    assert reference_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_those_published(name: str) -> None:
    network = load_architecture(name)
    price = cost(network)
    assert (price.params, price.macs) == PUBLISHED[name]
    assert torch_cost(network) == (price.macs, price.params)


@pytest.mark.parametrize("name", PUBLISHED)
def test_thop_counts_what_we_say_it_counts(name: str) -> None:
    network = load_architecture(name)
    ours = cost(network).thop
    assert thop_macs(network) == ours
    if name in THOP:
        theirs, pools = THOP[name]
        assert theirs - pools == ours


GROUPED = {"kind": "bottleneck", "kernel": 3, "groups": 32}
# networks of the same families, written by changing a document and no code
FAMILY: dict[str, tuple[str, dict[str, Any], int, int]] = {
    # torchvision's resnet101 and densenet201, timm's dpn92
    "resnet101": ("resnet50", {"stages.2.depth": 23}, 44_549_160, 7_801_405_440),
    "densenet201": (
        "densenet121",
        {"stages.2.depth": 48, "stages.3.depth": 32},
        20_013_928,
        4_291_365_888,
    ),
    "dpn92": (
        "dpn68",
        {
            "stem.width": 64,
            "stem.kernel": 7,
            **{f"stages.{n}.width": 256 * 2**n for n in range(4)},
            **{f"stages.{n}.growth": k for n, k in enumerate((16, 32, 24, 128))},
            **{f"stages.{n}.depth": d for n, d in enumerate((3, 4, 20, 3))},
            **{f"stages.{n}.block.inner": 0.375 for n in range(4)},
        },
        37_668_392,
        6_501_684_224,
    ),
    # SE-ResNeXt-50 32x4d, exact reduction of 16
    "se_resnext50_32x4d": (
        "se_resnet50",
        {f"stages.{n}.block": {**GROUPED, "inner": 0.5} for n in range(4)},
        27_559_896,
        4_232_994_816,
    ),
    # timm's cspresnext50 at its own 256 pixels
    "csp_resnext50": (
        "csp_resnet50",
        {
            "resolution": 256,
            **{f"stages.{n}.block": {**GROUPED, "inner": 1.0} for n in range(4)},
            **{f"stages.{n}.width": 128 * 2**n for n in range(4)},
            **{
                f"stages.{n}.cross": {"expand": width, "output": width, "linear": True}
                for n, width in enumerate((256, 512, 1024, 2048))
            },
        },
        20_569_896,
        4_014_948_352,
    ),
}


def changed(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A reference's plain document with values replaced, by path."""
    document = load_architecture(name).document()
    for stage in document["stages"]:
        stage["fusion"] = stage["fusion"][0]
    for path, value in values.items():
        *way, last = path.split(".")
        node: Any = document
        for step in way:
            node = node[int(step)] if step.isdigit() else node[step]
        node[last] = value
    return document


@pytest.mark.parametrize("name", FAMILY)
def test_relatives_need_a_document_only(name: str) -> None:
    base, values, params, macs = FAMILY[name]
    network = parse_architecture(yaml.safe_load(yaml.safe_dump(changed(base, values))), where=name)
    assert (cost(network).params, cost(network).macs) == (params, macs)
    assert torch_cost(network) == (macs, params)


def test_iterative_fusion_of_groups_is_a_document_too() -> None:
    """iAFF-ResNeXt-50: no published count to compare with, but torch's."""
    values = {f"stages.{n}.block": {**GROUPED, "inner": 0.5} for n in range(4)}
    network = parse_architecture(changed("iaff_resnet50", values), where="iAFF-ResNeXt")
    assert torch_cost(network) == (cost(network).macs, cost(network).params)


def test_released_coefficients_scale_b0() -> None:
    b0 = load_architecture("efficientnet_b0")
    assert efficientnet(b0, "b0") == b0
    assert efficientnet(b0, "b2") == load_architecture("efficientnet_b2")
    b7 = efficientnet(b0, "b7")
    assert [stage.depth for stage in b7.stages] == [4, 7, 7, 10, 10, 13, 4]
    assert [stage.width for stage in b7.stages] == [32, 48, 80, 160, 224, 384, 640]
    assert (b7.resolution, b7.stem.width) == (600, 64)
    # torchvision's parameters of b1, b3, b4, b5, b6 and b7
    params = {"b1": 7_794_184, "b3": 12_233_232, "b4": 19_341_616, "b5": 30_389_784}
    params |= {"b6": 43_040_704, "b7": 66_347_960}
    assert {name: cost(efficientnet(b0, name)).params for name in params} == params


def test_an_unknown_name_offers_a_near_one() -> None:
    with pytest.raises(DocumentError, match="no architecture") as caught:
        load_architecture("resnet5O")
    assert "resnet50" in str(caught.value)
