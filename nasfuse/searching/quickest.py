"""Quickest: how fast the smallest networks of a space are, to refuse limits out of reach."""

from __future__ import annotations

import math

import torch

from nasfuse.errors import BudgetError
from nasfuse.latency import measure_latency
from nasfuse.network import build
from nasfuse.scaling import fit_to_budget
from nasfuse.space import SearchSpace

TRIED = 6  # of the members, at their smallest


def check_latency(space: SearchSpace, most: float, device: torch.device) -> None:
    """Refuse a limit in milliseconds that none of some small networks meets here.

    Raises:
        BudgetError: with the latencies that were measured, by one thread.
    """
    torch.set_num_threads(1)
    found = sorted(_smallest(space, seed, device) for seed in range(TRIED))
    if found[0] <= most:
        return
    raise BudgetError(
        f"no network of the space '{space.name}' takes as little as {most:g} ms for one image",
        where="--max-latency",
        why=f"{TRIED} at their smallest took {found[0]:.3g} to {found[-1]:.3g} ms on this machine",
        fix=f"--max-latency {math.ceil(20 * found[0]) / 10:g}ms",
        needed=0,  # MACs are not what is lacking
    )


def _smallest(space: SearchSpace, seed: int, device: torch.device) -> float:
    candidate = space.sample(seed)
    try:
        network = fit_to_budget(candidate.architecture, candidate.scaling, 0)
    except BudgetError as error:
        network = fit_to_budget(candidate.architecture, candidate.scaling, error.needed)
    return measure_latency(build(network).to(device), network, device)
