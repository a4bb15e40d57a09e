"""The model card, README.md: what the network is, what it knows, and how that was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nasfuse.costs import show_macs
from nasfuse.exporting.origin import Origin
from nasfuse.exporting.verification import Check
from nasfuse.network import cost, thop_macs
from nasfuse.summary import fusion_text
from nasfuse.tables import plain, printable

USES = {
    "python": "`model.py` with `model.safetensors`: Python 3.10 or newer, with torch",
    "onnx": "`model.onnx`: any ONNX runtime; `images` (batch, channels, side, side) to `logits`",
    "pt2": '`model.pt2`: `torch.export.load("model.pt2").module()`, with the torch that wrote it',
    "hf": "`config.json`: `from_pretrained` of a class that mixes in PyTorchModelHubMixin",
    "openvino": "`model.xml` with `model.bin`: OpenVINO; `images` to `logits`. As checked with "
    "`INFERENCE_PRECISION_HINT=f32`: without it some processors compute in bfloat16",
    "executorch": "`model.pte`: ExecuTorch with XNNPACK, with the version that wrote it",
    "mlflow": '`mlflow/`: `mlflow.pyfunc.load_model("mlflow")`',
}


def card(origin: Origin, check: Check) -> str:
    """The text of README.md. Text from outside is escaped; there are no paths and no times."""
    return "\n".join(_lines(origin, check)) + "\n"


def _lines(origin: Origin, check: Check) -> Iterator[str]:
    architecture = origin.architecture
    yield f"# Image classifier {architecture.key}"
    yield "\n```sh\npython model.py photo.jpg    # needs torch and Pillow\n```\n"
    yield '```python\nimport model\n\nnetwork = model.load()\nmodel.predict("photo.jpg", network)'
    yield "network(model.normalise(images))  # uint8 (batch, channels, height, width)\n```\n"
    yield "## What it knows\n"
    yield origin.story + "\n"
    yield from (f"- {line}" for line in origin.quality)
    yield "\n## What it is\n"
    yield from _table(_facts(origin))
    yield "\n## Files\n"
    yield from (f"- {USES[name]}" for name in check.formats)
    yield "- `architecture.json`: the document that nasfuse builds it from"
    yield "- `verify.json`: what was checked\n"
    yield "## Checked before it was written\n"
    yield from (f"- {line}" for line in _checks(check))
    if check.latency:
        yield "\n## Latency\n"
        yield (
            "Milliseconds for one image (batch 1, float32) on one thread of the exporting machine, "
            "in a process of its own: the median of 100 runs after 10 others. Other work on the "
            "machine is part of it.\n"
        )
        header = ("file", "median", "90th percentile")
        rows = ((n, f"{t['median']:.2f}", f"{t['p90']:.2f}") for n, t in check.latency.items())
        yield from _rows(header, rows)
    yield "\n## Licence\n"
    yield (
        "`model.py` carries source of nasfuse (Apache-2.0). The weights are yours, under the terms "
        "of the images that they were trained on."
    )


def _facts(origin: Origin) -> Mapping[str, str]:
    architecture, price = origin.architecture, cost(origin.architecture)
    side, recipe = architecture.resolution, origin.recipe
    return {
        "input": f"{architecture.channels} x {side} x {side}",
        "MACs": f"{show_macs(price.macs)} of convolutions, linear layers and products of matrices",
        "FLOPs": f"{show_macs(2 * price.macs)}, where a multiply-add counts as two",
        "MACs by thop": f"{show_macs(thop_macs(architecture))}, with batch norm and pooling",
        "parameters": f"{price.params:,}",
        "fusions": plain(fusion_text(architecture).replace(" | ", "; ")),
        "classes": ", ".join(plain(printable(name)) for name in origin.classes),
        "images": f"{plain(printable(origin.data))}, fingerprint {origin.fingerprint}",
        "recipe": f"{origin.epochs} epoch{'s' * (origin.epochs > 1)}, batch {recipe.batch}, "
        f"Muon {recipe.filter_rate:g} for filters and SGD {recipe.rate:g} for the rest, "
        f"momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}, "
        f"warm-up {recipe.warmup:g}, label smoothing {recipe.label_smoothing:g}; "
        f"first seed {origin.seed}",
        "versions": ", ".join(f"{name} {plain(v)}" for name, v in origin.versions.items()),
    }


def _table(facts: Mapping[str, str]) -> Iterator[str]:
    return _rows(("", ""), facts.items())


def _rows(header: tuple[str, ...], rows: object) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:  # type: ignore[attr-defined]
        yield f"| {' | '.join(row)} |"


def _checks(check: Check) -> Iterator[str]:
    yield "in a fresh Python process that cannot import nasfuse, in another folder"
    for name, differences in check.differences.items():
        batches = ", ".join(str(n) for n in differences)
        yield (
            f"`{name}`: largest difference from the trained network {max(differences.values()):.2g}"
            f" at batches of {batches} (tolerance {check.tolerances[name]:g})"
        )
    yield f"counted again by torch: {check.macs:,} MACs, {check.params:,} parameters"
    if check.validation is None:
        yield "accuracy not checked: the validation images were not at hand"
        return
    shares = ", ".join(f"`{name}` {share:.2%}" for name, share in check.validation.shares.items())
    yield f"accuracy on {check.validation.images:,} validation images: {shares}"
