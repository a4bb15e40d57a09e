"""The network as a graph: ONNX for any runtime, torch's own pt2; without local paths or images."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nasfuse.architecture import Architecture
from nasfuse.errors import ExportError

OPSET = 20
MAX_BATCH = 4096
# what says where on this machine a node came from
ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def _example(architecture: Architecture) -> Tensor:
    """Two images: with one, the batch would become a constant of the graph.

    Black ones, because pt2 stores its example.
    """
    side = architecture.resolution
    return torch.zeros(2, architecture.channels, side, side)


def traced(network: nn.Module, architecture: Architecture) -> ExportedProgram:
    """The graph for any batch; ONNX's exporter by itself would quietly make one of two out of it.

    Raises:
        ExportError: an operator fixes the batch, or cannot be traced.
    """
    batch = {"x": {0: Dim("batch", min=1, max=MAX_BATCH)}}
    try:
        return torch.export.export(network.eval(), (_example(architecture),), dynamic_shapes=batch)
    except Exception as error:  # torch has no kind of its own for what it cannot trace
        raise ExportError(
            "the network cannot be written as a graph",
            where=f"architecture {architecture.key}",
            why=" ".join(str(error).split())[:300],
            fix="--format python",
        ) from error


def write_pt2(network: nn.Module, architecture: Architecture, path: Path) -> None:
    """The graph of torch.export with its weights, for any batch up to MAX_BATCH."""
    program = traced(network, architecture)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for name in ORIGINS:
                node.meta.pop(name, None)
    content = io.BytesIO()  # torch's own error of a full disk does not say that it is full
    torch.export.save(program, content)
    path.write_bytes(content.getvalue())


def write_onnx(
    network: nn.Module, architecture: Architecture, path: Path, *, notes: Mapping[str, str]
) -> None:
    """One file with its weights: `images` (batch, channels, side, side) to `logits`.

    `notes` become the file's metadata, which a runtime can read.
    """
    import onnx

    with _quiet():
        program = torch.onnx.export(
            traced(network, architecture),
            (),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for described in (model, graph, *(item for part in parts for item in part)):
        described.doc_string = ""
        del described.metadata_props[:]
    onnx.helper.set_model_props(model, dict(notes))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells people of its own progress and of what it will deprecate."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
