"""Promise: what a short run lets expect of a network, beside others of the same cost.

Two things make short runs rank better than accuracy on the validation images does. The calibrated
loss there says the same with less chance: how wrong each answer is counts, and how sure a network
is altogether does not. And short runs flatter networks that look at small images: at one cost they
have wider layers and learn sooner, but see less. So the loss falls, as a run becomes twice as long,
by about 2.3 % more for each doubling of the resolution. Both were found in the audits of
scripts/audit_rungs.py, which prints the constant that each would have said.
"""

from __future__ import annotations

import math

from nasfuse.recipe import Recipe
from nasfuse.results import Result

BEHIND = 0.023  # of the loss's logarithm, for each doubling of the resolution and halving of a run
SIDE = 32  # pixels at which a promise is the likelihood itself


def promise(result: Result, recipe: Recipe) -> float:
    """Between 0 and 1, the accuracy where the run was a full one; only for complete results.

    Else the geometric mean of the probabilities that are expected of the right classes.
    """
    halved = halvings(recipe, result.rung)
    if not halved:
        return result.point.accuracy
    loss = result.loss if result.calibrated_loss is None else result.calibrated_loss
    assert loss is not None
    return math.exp(-expected(loss, side=result.architecture.resolution, halved=halved))


def halvings(recipe: Recipe, rung: int) -> float:
    """How often the passes of a full training are halved to those of a rung."""
    return max(0.0, math.log2(recipe.rungs[recipe.top].passes / recipe.rungs[rung].passes))


def expected(loss: float, *, side: int, halved: float) -> float:
    """A loss as a longer run would have it beside those at other resolutions (pixels)."""
    return loss * math.exp(-BEHIND * halved * math.log2(side / SIDE))
