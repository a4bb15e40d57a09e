"""The network for runtimes of their own: OpenVINO for Intel's processors, ExecuTorch for devices.

Each comes from a graph of ours, so that batches, names and what is left out are the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from nasfuse.architecture import Architecture
from nasfuse.exporting.graphs import traced, write_onnx


def write_openvino(network: nn.Module, architecture: Architecture, path: Path) -> None:
    """`path`, an .xml, with its weights in float32 as .bin beside it: `images` to `logits`.

    From our ONNX: OpenVINO's reading of torch's graph takes longer, loses the names and numbers
    its nodes anew each time.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="nasfuse-openvino-") as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(network, architecture, source, notes={})
        model = openvino.Core().read_model(source)
        for number, node in enumerate(model.get_ordered_ops()):
            # as it is, names go on counting from whatever was read before
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
        openvino.save_model(model, path, compress_to_fp16=False)


def write_executorch(network: nn.Module, architecture: Architecture, path: Path) -> None:
    """A .pte that computes with XNNPACK what that knows, and the rest with portable kernels."""
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(
            traced(network, architecture), partitioner=[XnnpackPartitioner()]
        )
        path.write_bytes(lowered.to_executorch().buffer)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ExecuTorch and what it imports tell of their own deprecations."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
