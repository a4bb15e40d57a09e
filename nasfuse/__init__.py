"""nasfuse: neural architecture search over feature fusion, under a compute budget.

The names below are loaded when they are first used, so importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasfuse.api import ExportOptions as ExportOptions
    from nasfuse.api import Swaps as Swaps
    from nasfuse.api import explain as explain
    from nasfuse.api import export as export
    from nasfuse.api import resume as resume
    from nasfuse.api import search as search
    from nasfuse.api import swap as swap
    from nasfuse.api import train as train
    from nasfuse.architecture import Architecture as Architecture
    from nasfuse.architecture import read_architecture as read_architecture
    from nasfuse.errors import NasfuseError as NasfuseError
    from nasfuse.network import build as build
    from nasfuse.network import cost as cost
    from nasfuse.planning import SearchOptions as SearchOptions
    from nasfuse.references import load_architecture as load_architecture
    from nasfuse.results import result_front as front  # noqa: F401
    from nasfuse.scaling import fit_to_budget as fit_to_budget
    from nasfuse.space import SearchSpace as SearchSpace
    from nasfuse.space import load_space as load_space
    from nasfuse.training_plan import TrainOptions as TrainOptions
    from nasfuse.weights import load_reference_weights as load_reference_weights

_HOMES = {
    "Architecture": "architecture.Architecture",
    "ExportOptions": "api.ExportOptions",
    "NasfuseError": "errors.NasfuseError",
    "SearchOptions": "planning.SearchOptions",
    "SearchSpace": "space.SearchSpace",
    "Swaps": "api.Swaps",
    "TrainOptions": "training_plan.TrainOptions",
    "build": "network.build",
    "cost": "network.cost",
    "explain": "api.explain",
    "export": "api.export",
    "fit_to_budget": "scaling.fit_to_budget",
    "front": "results.result_front",
    "load_architecture": "references.load_architecture",
    "load_reference_weights": "weights.load_reference_weights",
    "load_space": "space.load_space",
    "read_architecture": "architecture.read_architecture",
    "resume": "api.resume",
    "search": "api.search",
    "swap": "api.swap",
    "train": "api.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nasfuse' has no attribute '{name}'")
    module, attribute = _HOMES[name].split(".")
    return getattr(import_module(f"nasfuse.{module}"), attribute)
