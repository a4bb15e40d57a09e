"""The network as an MLflow model: a folder that MLflow can load, serve and register."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nasfuse.exporting.graphs import write_pt2
from nasfuse.exporting.origin import Origin

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


def write_mlflow(folder: Path, origin: Origin, network: nn.Module) -> None:
    """`folder`/mlflow, with torch's pt2 inside: nothing in it is pickled code.

    Requirements and signature are said, not guessed: guessing takes half a minute, and a batch of
    one as an example would become the only batch that the model takes.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    architecture = origin.architecture
    side = architecture.resolution
    kind, shape = np.dtype(np.float32), (-1, architecture.channels, side, side)
    signature = ModelSignature(
        Schema([TensorSpec(kind, shape)]),
        Schema([TensorSpec(kind, (-1, architecture.classes))]),
    )
    target = folder / "mlflow"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            network,
            str(target),
            signature=signature,
            input_example=np.zeros((2, *shape[1:]), np.float32),
            # without the local part of a version, such as +cpu, which no index has
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", "numpy"],
            serialization_format="pt2",
            metadata={"architecture": architecture.key},
        )
    for graph in target.rglob("*.pt2"):  # ours holds no path of this machine and no image
        write_pt2(network, architecture, graph)
