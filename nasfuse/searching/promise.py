"""Promise: what a short run lets expect of a network, beside others of the same cost.

Short runs flatter networks that look at small images: at one cost they have wider layers and learn
sooner, but see less. So the log odds of being right rise, as a run becomes twice as long, by about
0.05 for each doubling of the resolution. `scripts/audit_rungs.py` fits that to 24 networks of one
cost: 0.049 from the first rung and 0.052 from the pause on Fashion-MNIST, 0.060 and 0.038 on
CIFAR-10, from which the constant was chosen; 0.078 and 0.054 for 24 others.
"""

from __future__ import annotations

import math

from nasfuse.recipe import Recipe
from nasfuse.results import Result

BEHIND = 0.05  # log odds for each doubling of the resolution and each halving of a run
SIDE = 32  # pixels at which a promise is the accuracy itself
LEAST = 1e-6  # odds of 0 or infinity have no logarithm


def promise(result: Result, recipe: Recipe) -> float:
    """Between 0 and 1 as accuracies are; only for complete results."""
    side, accuracy = result.architecture.resolution, result.point.accuracy
    return expected(accuracy, side=side, halvings=halvings(recipe, result.rung))


def halvings(recipe: Recipe, rung: int) -> float:
    """How often the passes of a full training are halved to those of a rung."""
    return max(0.0, math.log2(recipe.rungs[recipe.top].passes / recipe.rungs[rung].passes))


def expected(accuracy: float, *, side: int, halvings: float) -> float:
    """An accuracy as a longer run would have it beside those at other resolutions (pixels)."""
    if halvings == 0:
        return accuracy
    share = min(max(accuracy, LEAST), 1 - LEAST)
    odds = math.log(share / (1 - share)) + BEHIND * halvings * math.log2(side / SIDE)
    return 1 / (1 + math.exp(-odds))
