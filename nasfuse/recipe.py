"""Recipe: how a candidate is trained, as data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nasfuse.architecture import read_document
from nasfuse.errors import DocumentError

FEWEST, LONGER = 1000, 4

Positive = Annotated[float, Field(gt=0)]


class Rung(BaseModel):
    """One fidelity: `epochs` passes over a share of the training images, with its own schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[int, Field(ge=1)]

    @property
    def passes(self) -> float:
        """How often the whole training set is seen, which is what a rung costs."""
        return self.share * self.epochs


class Recipe(BaseModel):
    """Everything about training that is not the architecture, the data or the seed.

    Rates are for Muon on the filters of convolutions and for SGD with Nesterov momentum on the
    rest; both follow one cycle: a linear rise over `warmup` of the steps, then a linear fall to 0.
    Images are shifted at random in runs of at least `augment_from_epochs` epochs; shorter ones
    see too few images for that to help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: Annotated[int, Field(ge=2)] = 32
    filter_rate: Positive = 0.06
    rate: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    augment_from_epochs: Annotated[int, Field(ge=1)] = 4
    rungs: Annotated[tuple[Rung, ...], Field(min_length=2)] = (
        Rung(share=0.1, epochs=1),
        Rung(share=1.0, epochs=1),
    )

    def for_images(self, count: int) -> Recipe:
        """The same recipe for a training set of this size.

        Every rung sees FEWEST images where there are so many, for a training on fewer ranks
        networks by chance; and each is at least LONGER times as long as the one before it, for
        otherwise it would find nothing new.
        """
        least = round(min(1.0, FEWEST / count), 4)
        rungs: list[Rung] = []
        for rung in self.rungs:
            share = max(rung.share, least)
            passes = LONGER * rungs[-1].passes if rungs else 0
            epochs = max(rung.epochs, math.ceil(passes / share))
            rungs.append(Rung(share=share, epochs=epochs))
        return self.model_copy(update={"rungs": tuple(rungs)})

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with this many epochs on its last rung."""
        last = self.rungs[-1].model_copy(update={"epochs": epochs})
        return self.model_copy(update={"rungs": (*self.rungs[:-1], last)})


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML or JSON file; what it leaves out keeps its default.

    Raises:
        DocumentError: with the path and the reason of the first thing that is wrong.
    """
    try:
        return Recipe.model_validate(read_document(path) or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DocumentError(
            f"this is not a recipe: {'.'.join(map(str, first['loc'])) or 'the document'}",
            where=str(path),
            why=first["msg"],
            fix=f"the settings are {', '.join(Recipe.model_fields)}",
        ) from None
