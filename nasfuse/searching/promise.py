"""Promise: what a short run lets expect of a network, beside others of the same cost.

Two things rank networks better than their accuracy does. The calibrated loss on the same images
has less chance in it: how wrong each answer is counts, and how sure a network is altogether does
not. And short runs flatter networks that look at small images: at one cost they have wider layers
and learn sooner, but see less. As a run becomes twice as long, those of twice the resolution gain
about 0.04 in the log odds of the right class. scripts/audit_rungs.py measures both.
"""

from __future__ import annotations

import math

from nasfuse.recipe import Recipe
from nasfuse.results import Result

BEHIND = 0.04  # log odds for each doubling of the resolution and each halving of a run
SIDE = 32  # pixels at which a promise is the likelihood itself
WORST = 500.0  # of losses, for larger ones have no odds


def promise(result: Result, recipe: Recipe) -> float:
    """Between 0 and 1, the accuracy where the run was a full one; only for complete results."""
    halved = halvings(recipe, result.rung)
    if not halved:
        return result.point.accuracy
    assert result.calibrated_loss is not None
    return expected(result.calibrated_loss, side=result.architecture.resolution, halved=halved)


def halvings(recipe: Recipe, rung: int) -> float:
    """How often the passes of a full training are halved to those of a rung."""
    return max(0.0, math.log2(recipe.rungs[recipe.top].passes / recipe.rungs[rung].passes))


def expected(loss: float, *, side: int, halved: float) -> float:
    """The likelihood of the right class, as a geometric mean, that a longer run would have.

    exp(-loss) at `SIDE` pixels, and higher odds at higher resolutions.
    """
    lift = BEHIND * halved * math.log2(side / SIDE)
    return 1 / (1 + math.expm1(min(loss, WORST)) * math.exp(-lift))
