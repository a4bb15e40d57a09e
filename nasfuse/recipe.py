"""Recipe: how a candidate is trained, as data."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nasfuse.documents import read_document
from nasfuse.errors import DocumentError
from nasfuse.names import nearest

FEWEST, SHORT, LONGER = 1000, 0.0375, 10
SHORT_BATCH = 32

Positive = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(ge=1e-9, le=1)]  # less would be no image, and its inverse is needed
Batch = Annotated[int, Field(ge=2, le=10**9)]


class Rung(BaseModel):
    """One fidelity: a run of `epochs` passes over a share of the training images.

    Each run has its own complete schedule. It is judged when `stop` of it is done; a rung that
    differs from the one before it in nothing but a later `stop` goes on with the same run. `rate`
    multiplies the recipe's rates, `batch` replaces its batch: a short run would have too few steps
    of a large one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    share: Part
    epochs: Annotated[int, Field(ge=1, le=10**6)]
    stop: Part = 1.0
    rate: Positive = 1.0
    batch: Batch | None = None

    @property
    def passes(self) -> float:
        """How often the whole training set has been seen when the rung is judged."""
        return self.share * self.epochs * self.stop

    def continues(self, other: Rung) -> bool:
        """Whether this rung goes on with the run of the other."""
        return self.stop > other.stop and self == other.model_copy(update={"stop": self.stop})


class Augmentation(BaseModel):
    """How training images vary, each differently at every pass.

    `flip` mirrors half of them, left to right: leave it off where mirror images mean something
    else, as letters do. `shift` moves them by up to this share of their side: 2 pixels of 32 teach
    small networks more in some ten epochs than 4 do, on CIFAR-10 as on Fashion-MNIST. `cutout`
    greys a square of this share of it (DeVries & Taylor 2017, arXiv:1708.04552).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: bool = True
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0625
    cutout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Recipe(BaseModel):
    """Everything about training that is not the architecture, the data or the seed.

    Rates are for Muon on the filters of convolutions and for SGD with Nesterov momentum on the
    rest; both follow one cycle: a linear rise over `warmup` of the steps, then a linear fall to 0.
    Images are augmented in runs of at least `augment_from_epochs` epochs; shorter ones see too few
    images for that to help. A run that is judged before its end is judged by an average
    of its weights, of which about the last 1 / (1 + `averaging`) counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch: Batch = 64
    filter_rate: Positive = 0.06
    rate: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    augmentation: Augmentation = Augmentation()
    augment_from_epochs: Annotated[int, Field(ge=1)] = 10
    averaging: Annotated[float, Field(ge=0)] = 4.0
    rungs: Annotated[tuple[Rung, ...], Field(min_length=2, max_length=100)] = (
        Rung(share=0.075, epochs=1, batch=SHORT_BATCH),
        Rung(share=1.0, epochs=1, stop=0.25),
        Rung(share=1.0, epochs=1),
    )

    @model_validator(mode="after")
    def _paused_runs_go_on(self) -> Recipe:
        for number, rung in enumerate(self.rungs):
            if rung.stop < 1 and not any(r.continues(rung) for r in self.rungs[number + 1 :][:1]):
                raise ValueError(f"rung {number} stops at {rung.stop} and the next does not go on")
        return self

    def at(self, rung: int) -> Recipe:
        """The recipe with what is different on this rung."""
        times, batch = self.rungs[rung].rate, self.rungs[rung].batch or self.batch
        rates = {"filter_rate": times * self.filter_rate, "rate": times * self.rate}
        return self.model_copy(update={**rates, "batch": batch})

    def halved(self) -> Recipe:
        """The recipe for half the batch: less memory, and twice as many steps.

        The rate of SGD goes with the batch (Goyal et al. 2017, arXiv:1706.02677). Muon's updates
        have one size whatever the gradient's, as Adam's nearly have, and for those the rate goes
        with its square root (Malladi et al. 2022, arXiv:2205.10287).
        """
        rates = {"rate": self.rate / 2, "filter_rate": self.filter_rate / math.sqrt(2)}
        return self.model_copy(update={**rates, "batch": max(2, self.batch // 2)})

    @property
    def top(self) -> int:
        """The number of the last rung, which is a full training."""
        return len(self.rungs) - 1

    def run(self, rung: int) -> int:
        """The rung on which the run of this rung began."""
        while rung > 0 and self.rungs[rung].continues(self.rungs[rung - 1]):
            rung -= 1
        return rung

    def work(self, rung: int) -> float:
        """Passes over the training set that a network adds on this rung."""
        before = self.rungs[rung - 1].passes if self.run(rung) < rung else 0.0
        return self.rungs[rung].passes - before

    def for_images(self, count: int, *, as_long: bool = False) -> Recipe:
        """The same recipe for a training set of this size.

        The first rung sees FEWEST images where there are so many and SHORT of what a full training
        sees, for on fewer it would rank networks by chance; and a full training is at least LONGER
        times as long as the first rung, for otherwise it would find nothing new. Where it has to be
        `as_long` as it is, the first rung is shorter instead.
        """
        start = max(self.rungs[0].passes, min(1.0, FEWEST / count))
        if as_long:
            start = min(start, self.rungs[-1].passes / LONGER)
        epochs = max(self.rungs[-1].epochs, math.ceil(LONGER * start / self.rungs[-1].share))
        recipe = self.with_epochs(epochs)
        passes = round(max(start, SHORT * recipe.rungs[-1].passes), 4)
        sizes = {"share": min(1.0, passes), "epochs": max(1, round(passes))}
        first = recipe.rungs[0].model_copy(update=sizes)
        return recipe.model_copy(update={"rungs": (first, *recipe.rungs[1:])})

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with this many epochs of a full training."""
        start = self.run(self.top)
        last = [rung.model_copy(update={"epochs": epochs}) for rung in self.rungs[start:]]
        return self.model_copy(update={"rungs": (*self.rungs[:start], *last)})


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML or JSON file; what it leaves out keeps its default.

    Raises:
        DocumentError: with the path and the reason of the first thing that is wrong.
    """
    if not path.exists():
        near = nearest(path.name, [beside.name for beside in path.parent.glob("*.*")])
        raise DocumentError(
            f"there is no recipe '{path}'",
            where="--recipe",
            why="it is a file that says what is to differ from the default recipe",
            fix=f"--recipe {shlex.quote(str(path.with_name(near)))}"
            if near
            else f"echo 'batch: {Recipe().batch}' > {shlex.quote(str(path))}   begins one",
        )
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
