"""Verification: a fresh process elsewhere reloads every file and must answer as the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasfuse.architecture import Architecture
from nasfuse.data.batches import Images, Normalisation
from nasfuse.data.dataset import Split
from nasfuse.errors import ExportError
from nasfuse.exporting import fresh
from nasfuse.exporting.origin import Origin
from nasfuse.kept_weights import load_weights
from nasfuse.memory import ample_memory
from nasfuse.network import build, cost
from nasfuse.pickles import NO_PICKLES
from nasfuse.training import answers

BATCHES = (1, 2, 7)
# of the largest difference, for outputs up to 1; above that, relative to the largest output
TOLERANCES = {
    "python": 0.0,
    "hf": 0.0,
    "pt2": 0.0,
    "mlflow": 1e-6,
    "onnx": 1e-5,
    "openvino": 1e-5,
    "executorch": 1e-5,
}
MAX_ACCURACY_GAP = 0.001
# what the other process may take: seconds to start and load, and for what it computes, at a rate
# that any computer has; and address space beside that of torch itself, for the runtimes' libraries
# and their threads (1 GB with all of them on one core), and what all networks compute with
SECONDS, MACS_A_SECOND = 600, 200_000_000
MEMORY = 16 << 30
ENVIRONMENT = {**NO_PICKLES, "CUDA_VISIBLE_DEVICES": ""}  # files are checked on the CPU
MAX_IMAGES, MAX_BYTES = 2000, 2**28  # of the validation images that are tried


@dataclass(frozen=True)
class Agreement:
    """Accuracies of the trained network and of exported files on so many validation images."""

    images: int
    shares: dict[str, float]


@dataclass(frozen=True)
class Check:
    """What the fresh process found, by format: largest differences by batch size, and the cost.

    `latency` has the median and the 90th percentile in milliseconds, where that was asked for.
    """

    differences: dict[str, dict[int, float]]
    macs: int
    params: int
    validation: Agreement | None
    latency: dict[str, dict[str, float]]

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(self.differences)

    @property
    def tolerances(self) -> dict[str, float]:
        return {name: TOLERANCES[name] for name in self.formats}

    def document(self) -> dict[str, Any]:
        """As plain values, for verify.json."""
        validation = self.validation
        return {
            "checked": "a fresh Python process that cannot import nasfuse, in another folder",
            "largest_difference_by_batch": {
                name: {str(n): value for n, value in found.items()}
                for name, found in self.differences.items()
            },
            "tolerance": self.tolerances,
            "macs": self.macs,
            "params": self.params,
            "validation": {"images": validation.images, "accuracy": validation.shares}
            if validation
            else None,
            **({"latency_milliseconds": self.latency} if self.latency else {}),
        }


def trained_network(origin: Origin) -> nn.Module:
    """The network as it was trained, in evaluation mode.

    Raises:
        StorageError: the file is not one of weights, or not of this network's.
    """
    network = build(origin.architecture)
    load_weights(network, origin.weights)
    return network.eval()


def verify(
    folder: Path,
    origin: Origin,
    formats: Sequence[str],
    *,
    validation: Split | None,
    latency: bool = False,
) -> Check:
    """Load the folder in a fresh interpreter elsewhere and compare it with the trained network.

    Raises:
        ExportError: it cannot be loaded, needs nasfuse, differs in any output beyond the tolerance
            of its format, costs something else, or is less accurate.
    """
    network = trained_network(origin)
    architecture, generator = origin.architecture, torch.Generator().manual_seed(0)
    side = architecture.resolution
    random = {
        str(n): torch.randn(n, architecture.channels, side, side, generator=generator)
        for n in BATCHES
    }
    tried = _tried(validation)
    raw = None if tried is None else torch.from_numpy(tried.images)
    request = {"formats": list(formats), "latency": latency}
    limits = _limits(architecture, formats, images=len(tried or ()))
    answer = _ask(folder, request | limits, {"random": random, "raw": raw})
    with torch.inference_mode(), _one_thread():
        expected = {n: network(random[str(n)]) for n in BATCHES}
    check = Check(
        {name: _differences(expected, answer["outputs"][name]) for name in formats},
        answer["macs"],
        answer["params"],
        None if tried is None else _agreement(network, origin, tried, answer["predictions"]),
        answer["latency"],
    )
    _require(check, origin, whole=tried is not None and len(tried) == len(validation or ()))
    return check


def _limits(architecture: Architecture, formats: Sequence[str], *, images: int) -> dict[str, int]:
    """Seconds and bytes that are more than all of these files need for so many images."""
    count = images + sum(BATCHES) + fresh.WARM_UP + fresh.RUNS
    work = len(formats) * count * cost(architecture).macs
    maps = len(formats) * ample_memory(architecture, fresh.BATCH)
    return {"seconds": SECONDS + work // MACS_A_SECOND, "memory": MEMORY + maps}


def _tried(validation: Split | None) -> Split | None:
    """Some of the images, evenly spaced, so that checking takes seconds."""
    if validation is None or not len(validation):
        return None
    count = max(1, min(MAX_IMAGES, MAX_BYTES // validation.images[0].nbytes))
    step = -(-len(validation) // count)
    return Split(validation.images[::step].copy(), validation.labels[::step])


def _differences(expected: Mapping[int, Tensor], found: Mapping[str, Tensor]) -> dict[int, float]:
    """The largest one of each batch, relative to the largest output where that is above 1."""
    return {
        n: float((x - found[str(n)]).abs().max() / max(1.0, float(x.abs().max())))
        for n, x in expected.items()
    }


def _agreement(
    network: nn.Module, origin: Origin, tried: Split, predictions: Mapping[str, Tensor]
) -> Agreement:
    labels = torch.from_numpy(tried.labels)
    images = Images.of(
        tried,
        Normalisation(origin.mean, origin.std),
        resolution=origin.architecture.resolution,
        device=torch.device("cpu"),
    )
    own = torch.cat([x.argmax(1) for x, _ in answers(network, images, precise=True)])
    found = {"trained": own, **predictions}
    return Agreement(
        len(labels), {name: float((p == labels).double().mean()) for name, p in found.items()}
    )


def _require(check: Check, origin: Origin, *, whole: bool) -> None:
    for name, differences in check.differences.items():
        largest = max(differences.values())
        if not largest <= TOLERANCES[name]:  # not a number is not close either
            raise _wrong(name, f"its largest difference is {largest:.3g}")
    price = cost(origin.architecture)
    if (check.macs, check.params) != (price.macs, price.params):
        raise _wrong(
            "python",
            f"its MACs and parameters are {check.macs:,} and {check.params:,}, expected "
            f"{price.macs:,} and {price.params:,}",
        )
    if check.validation is None:
        return
    shares = dict(check.validation.shares)
    if whole and origin.accuracy is not None:
        shares["recorded"] = origin.accuracy
    for name, share in shares.items():
        if abs(share - shares["trained"]) > MAX_ACCURACY_GAP:
            raise _wrong(name, f"validation accuracy {share:.4f}, expected {shares['trained']:.4f}")


def _wrong(name: str, why: str) -> ExportError:
    return ExportError(
        "the exported network is not the trained one",
        where=name,
        why=why,
        fix="this is a bug in nasfuse: please report it with architecture.json",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in the other process: more threads may add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _unloadable(folder: Path, why: str) -> ExportError:
    return ExportError(
        "the exported network cannot be loaded",
        where=folder.name,
        why=why,
        fix="this is a bug in nasfuse: please report it with architecture.json",
    )


def _ask(folder: Path, request: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
    """What the files answer on these images, from another process and folder."""
    with tempfile.TemporaryDirectory(prefix="nasfuse-verify-") as elsewhere:
        (Path(elsewhere) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        torch.save(dict(images), Path(elsewhere) / "images.pt")
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", str(fresh.__file__), str(folder.resolve()), elsewhere],
                cwd=elsewhere,
                env={**os.environ, **ENVIRONMENT},
                capture_output=True,
                text=True,
                check=False,
                timeout=request["seconds"],
            )
        except subprocess.TimeoutExpired:
            why = f"it has not answered within {request['seconds']} seconds"
            raise _unloadable(folder, why) from None
        if done.returncode < 0:
            raise _unloadable(folder, f"the system ended it: {signal.strsignal(-done.returncode)}")
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it ended without a word"]
            raise _unloadable(folder, lines[-1][:300])
        answer: dict[str, Any] = torch.load(Path(elsewhere) / "answer.pt", weights_only=True)
    return answer
