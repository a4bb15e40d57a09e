"""Recipe: how a candidate is trained, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]


class Rung(BaseModel):
    """One fidelity: `epochs` passes over a share of the training images, with its own schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """Everything about training that is not the architecture, the data or the seed.

    Rates are for Muon on the filters of convolutions and for SGD with Nesterov momentum on the
    rest; both follow one cycle: a linear rise over `warmup` of the steps, then a linear fall to 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: Annotated[int, Field(ge=2)] = 128
    filter_rate: Positive = 0.12
    rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    augment_from_epochs: Annotated[int, Field(ge=1)] = 4
    rungs: Annotated[tuple[Rung, ...], Field(min_length=2)] = (
        Rung(share=0.2, epochs=1),
        Rung(share=1.0, epochs=2),
    )
