"""A full training: one architecture, several seeds, the test images touched once at the end.

It is the loop of `training` with the recipe of a search, for as many epochs as a network deserves
that will be used. After each epoch a checkpoint is left, from which the same call goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nasfuse.checkpoints import load_checkpoint, save_checkpoint
from nasfuse.costs import show_macs
from nasfuse.data.batches import Images, Normalisation
from nasfuse.data.dataset import Dataset, Split
from nasfuse.data.load import load_test
from nasfuse.errors import DataError, SearchError, SetupError, StorageError, UsageError
from nasfuse.files import refusal, sweep, write_text
from nasfuse.finals import REPEATS
from nasfuse.gpus import usable_gpus
from nasfuse.kept_weights import load_weights, require_weights, save_weights
from nasfuse.memory import (
    is_out_of_memory,
    recompute_if_needed,
    release_memory,
    room,
    step_memory,
)
from nasfuse.network import build, cost, thop_macs
from nasfuse.searching.locking import holding
from nasfuse.searching.worker import REPEAT_STRIDE, Clock, versions
from nasfuse.trained import (
    MAX_BYTES,
    RESULT,
    SETTINGS,
    Epoch,
    Scores,
    SeedRun,
    Trained,
    TrainingSettings,
    read_trained,
)
from nasfuse.training import NonFiniteError, Training, answers, evaluate, recalibrate

AGAIN = "give the same `nasfuse train` again: it trains this seed anew"
LEAST = 2  # times the maps that blocks put out, which every training step keeps


class Moment(NamedTuple):
    """Where a full training stands: epochs are counted over all seeds."""

    settings: TrainingSettings
    run: int
    epoch: int
    last: Epoch
    left: float  # seconds, by the epochs of this process so far
    notice: str | None = None  # what was wrong with the checkpoint that the seed went on from


Listener = Callable[[Moment], None]


@dataclass(frozen=True)
class FullTraining:
    """A training that was planned: its settings, its images, its folder, and about its seconds."""

    settings: TrainingSettings
    dataset: Dataset
    folder: Path
    expected: float | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if usable_gpus() else "cpu")

    def images(self, split: Split) -> Images:
        settings = self.settings
        normalisation = Normalisation(settings.mean, settings.std)
        side = settings.architecture.resolution
        return Images.of(split, normalisation, resolution=side, device=self.device)

    @property
    def finished(self) -> bool:
        """Whether its result is there; that it is this training's, `run` finds out."""
        return (self.folder / RESULT).exists()

    def run(self, listen: Listener | None = None) -> Trained:
        """Train what is not trained yet, judge all seeds, and write the result; or read it.

        Raises:
            StorageError: another process trains in the folder, it cannot be written, or weights
                were changed after their training.
            SearchError: the loss of a seed left the finite numbers, or half the batch was too much
                for the memory.
        """
        with self._locked():
            if self.finished:
                return read_trained(self.folder)
            sweep(self.folder)
            write_text(self.folder / SETTINGS, self.settings.model_dump_json(indent=2) + "\n")
            pace = _Pace(self.settings, listen)
            runs = tuple(self._seed(number, pace) for number in range(self.settings.seeds))
            result = self._judge(runs)
            write_text(self.folder / RESULT, result.model_dump_json(indent=2) + "\n")
        for leftover in self.folder.glob("*.ckpt"):
            leftover.unlink()
        return result

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder; refuse one with another training."""
        kept = self.folder / SETTINGS
        if kept.exists() and kept.read_text() != self.settings.model_dump_json(indent=2) + "\n":
            raise UsageError(
                "this folder holds another training",
                where=str(self.folder),
                why="it was asked for with other options, or for other images",
                fix=f"--out {self.folder}-2",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(self.folder, error) from None

        def refuse(holder: str) -> StorageError:
            return StorageError(
                "another process trains this network already",
                where=str(self.folder),
                why=f"process {holder} holds the folder",
                fix="wait for it, or end it: the same command goes on from its last epoch",
            )

        with holding(self.folder, "training", refuse):
            yield

    def _seed(self, number: int, pace: _Pace) -> SeedRun:
        """The training of one seed; where memory runs out, once more with half the batch."""
        if (run := self._finished(number, pace)) is not None:
            return run
        release_memory(self.device)  # of the seed before, whose graph would keep it on a GPU
        try:
            return self._train(number, pace)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {error}".splitlines()[0]
        release_memory(self.device)
        try:
            return self._train(number, pace, retry=why)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SearchError(
                f"the memory does not hold the training of seed {number + 1}",
                where=str(self.folder),
                why=f"with half the batch too: {error}".splitlines()[0],
                fix="--recipe FILE   with a smaller 'batch'",
            ) from None

    def _finished(self, number: int, pace: _Pace) -> SeedRun | None:
        """What came of a seed, where its weights are still those that were trained."""
        path = self.folder / f"seed{number + 1}.json"
        if not path.exists():
            return None
        try:
            with path.open("rb") as file:
                run = SeedRun.model_validate_json(file.read(MAX_BYTES))
            require_weights(self.folder / run.weights, run.sha256, fix="")
        except (OSError, ValueError, StorageError) as error:  # pydantic's are of the second kind
            what = error.what if isinstance(error, StorageError) else f"{path.name} is damaged"
            pace.note(f"seed {number + 1}: {what}; it is trained again")
            return None
        return run

    def _train(self, number: int, pace: _Pace, *, retry: str | None = None) -> SeedRun:
        """The training of one seed, from its last checkpoint where there is one."""
        name = f"seed{number + 1}"
        weights, finished = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        training, epochs, clock, notice, retry = self._begin(number, retry)
        pace.note(notice)
        validation = None
        if not self.settings.all_data:
            validation = self.images(self.dataset.validation)
        pace.start()
        while training.done < training.steps:
            with self._finite(number):
                loss = training.epoch()
                score = evaluate(training.network, validation) if validation else None
            epochs.append(Epoch(loss=loss, accuracy=score.accuracy if score else None))
            state = training.state() | {
                "epochs": [epoch.model_dump() for epoch in epochs],
                "spent": clock.spent,
                "retry": retry,
            }
            save_checkpoint(self.folder / f"{name}.ckpt", state)
            pace.tell(number, epochs)
        pace.tell_notice(number, epochs)
        with self._finite(number):
            recalibrate(training.network, training.images)
        sha256 = save_weights(weights, training.network, key=self.settings.architecture.key)
        seconds = clock.spent["seconds"]
        run = SeedRun(
            seed=number,
            weights=weights.name,
            sha256=sha256,
            seconds=seconds,
            epochs=tuple(epochs),
            batch=training.recipe.batch,
            retry=retry,
        )
        write_text(finished, run.model_dump_json() + "\n")
        return run

    @contextmanager
    def _finite(self, number: int) -> Iterator[None]:
        """A seed whose numbers leave the finite ones ends the training, with what can be done."""
        try:
            yield
        except NonFiniteError as error:
            raise SearchError(
                f"the training of seed {number + 1} broke down",
                where=str(self.folder),
                why=str(error),
                fix="--recipe FILE   with a lower 'rate' and 'filter_rate'",
            ) from None

    def _begin(self, number: int, retry: str | None) -> _Begun:
        """A seed's training as its checkpoint left it; a retry goes on only from its own."""
        settings, key = self.settings, self.settings.architecture.key
        found = load_checkpoint(self.folder / f"seed{number + 1}.ckpt")
        if found and retry and not found.state.get("retry"):
            found = None
        retry = found.state.get("retry") if found else retry
        # not those of the search, whose trainings chose the network: they were lucky ones
        fresh = (REPEATS + 1 + number) * REPEAT_STRIDE
        seed = (settings.seed + fresh + int(key, 16)) % 2**31
        torch.manual_seed(seed)
        network, train = build(settings.architecture), self.dataset.train
        if settings.all_data:
            train = _joined(train, self.dataset.validation)
        images, recipe = self.images(train), settings.recipe
        recipe = recipe.halved() if retry else recipe
        recompute_if_needed(
            network,
            settings.architecture,
            recipe.batch,
            device=self.device,
            free=room(self.device, 1.0),
        )
        training = Training(network, images, recipe, epochs=settings.epochs, seed=seed)
        notice = f"out of memory; seed {number + 1} has half the batch" if retry else None
        if found is None:
            return _Begun(training, [], Clock(), notice, retry)
        training.restore(found.state)
        epochs = [Epoch.model_validate(epoch) for epoch in found.state["epochs"]]
        return _Begun(training, epochs, Clock(found.state["spent"]), found.notice or notice, retry)

    def _judge(self, runs: tuple[SeedRun, ...]) -> Trained:
        """All seeds on the validation images, and then, once, on the test images."""
        settings = self.settings
        validation = None
        if not settings.all_data:
            validation = self._scores(runs, self.dataset.validation)
        chosen = 0
        if validation is not None:
            chosen = validation.accuracies.index(max(validation.accuracies))
        held_out = load_test(settings.data, side=settings.side, skip_bad=settings.skip_bad)
        test = None if held_out is None else self._scores(runs, held_out)
        price = cost(settings.architecture)
        return Trained(
            settings=settings,
            macs=price.macs,
            params=price.params,
            thop=thop_macs(settings.architecture),
            runs=runs,
            chosen=chosen,
            validation=validation,
            test=test,
            versions=versions(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _scores(self, runs: tuple[SeedRun, ...], split: Split) -> Scores:
        """In float32, as the exported network will answer."""
        images = self.images(split)
        network = build(self.settings.architecture).to(self.device)
        confusions = []
        for run in runs:
            path = require_weights(self.folder / run.weights, run.sha256, fix=AGAIN)
            load_weights(network, path)
            with self._finite(run.seed):
                confusions.append(_confusion(network, images, len(self.settings.classes)))
        return Scores.of(confusions)


def _confusion(network: torch.nn.Module, images: Images, classes: int) -> list[list[int]]:
    """How many images of each class (rows) got each answer (columns)."""
    counts = torch.zeros(classes * classes, dtype=torch.long)
    for outputs, labels in answers(network, images, precise=True):
        cells = classes * labels + outputs.argmax(1)
        counts += torch.bincount(cells.cpu(), minlength=classes * classes)
    table: list[list[int]] = counts.view(classes, classes).tolist()
    return table


class _Begun(NamedTuple):
    training: Training
    epochs: list[Epoch]
    clock: Clock
    notice: str | None
    retry: str | None


class _Pace:
    """Tells the listener where the training stands, and how long the rest will take."""

    def __init__(self, settings: TrainingSettings, listen: Listener | None) -> None:
        self.settings, self.listen = settings, listen
        self.began, self.count = time.monotonic(), 0
        self.notice: str | None = None

    def start(self) -> None:
        if not self.count:
            self.began = time.monotonic()

    def note(self, notice: str | None) -> None:
        """To be said with the next epoch."""
        self.notice = "; ".join(filter(None, (self.notice, notice))) or None

    def tell(self, run: int, epochs: list[Epoch]) -> None:
        self.count += 1
        self._tell(run, epochs)

    def tell_notice(self, run: int, epochs: list[Epoch]) -> None:
        """What no epoch has said, because all of the seed's were trained before."""
        if self.notice:
            self._tell(run, epochs)

    def _tell(self, run: int, epochs: list[Epoch]) -> None:
        settings, each = self.settings, (time.monotonic() - self.began) / max(1, self.count)
        left = each * (settings.epochs * (settings.seeds - run) - len(epochs))
        if self.listen is not None:
            self.listen(Moment(settings, run, len(epochs), epochs[-1], left, self.notice))
            self.notice = None  # said once


def _joined(train: Split, validation: Split) -> Split:
    images = np.concatenate((train.images, validation.images))
    return Split(images, np.concatenate((train.labels, validation.labels)))


def check_fits(settings: TrainingSettings, dataset: Dataset) -> None:
    """Whether the network suits the images and the machine, before anything is built.

    Raises:
        DataError: its channels or classes are not those of the images.
        SetupError: training it would need more memory than there is.
    """
    architecture = settings.architecture
    wants = (architecture.channels, architecture.classes)
    if wants != (dataset.channels, len(dataset.classes)):
        raise DataError(
            "the network does not fit the images",
            where=settings.data,
            why=f"it takes {wants[0]} channels and knows {wants[1]} classes, they have "
            f"{dataset.channels} and {len(dataset.classes)}",
            fix="--data   with the images of the study",
        )
    params = cost(architecture).params
    needed = step_memory(architecture, settings.recipe.batch, times=LEAST)
    if needed > _memory():
        raise SetupError(
            "this machine has too little memory to train the network",
            where=f"architecture {architecture.key}",
            why=f"it has {show_macs(params)} parameters and needs at least "
            f"{needed / 2**30:.1f} GB; there are {_memory() / 2**30:.1f} GB",
            fix="--recipe FILE   with a smaller 'batch', or a smaller network",
        )


def _memory() -> int:
    """Bytes of the machine; no limit where the system does not say."""
    if not hasattr(os, "sysconf"):
        return 2**63
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
