"""SearchSpace: an architecture with holes, kept as YAML in `search_spaces/`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from nasfuse.architecture import Architecture, Scaling, parse_architecture
from nasfuse.documents import read_document
from nasfuse.errors import DocumentError
from nasfuse.holes import (
    Choice,
    Choices,
    Range,
    Trial,
    Value,
    count,
    fill,
    labelled,
    labels,
    parameters,
    parse,
)
from nasfuse.names import nearest, spaces_folder
from nasfuse.names import space_names as space_names
from nasfuse.stages import Stage

DRAWS = 100  # of a member, before a space is said to have none


@dataclass(frozen=True)
class Candidate:
    """A proposal before its size is fitted to a budget: the genes and the way to scale them."""

    architecture: Architecture
    scaling: Scaling


@dataclass(frozen=True)
class SearchSpace:
    """Architectures with holes, for images of some channels and classes.

    `references` names hand-made members: patterns of parameter names with their values.
    """

    name: str
    template: Mapping[str, Any]
    references: Mapping[str, Mapping[str, Value]]
    channels: int = 3
    classes: int = 10

    def for_images(self, *, channels: int, classes: int) -> SearchSpace:
        """The same space for images of these channels and classes."""
        return replace(self, channels=channels, classes=classes)

    def suggest(self, trial: Trial) -> Candidate:
        """Fill every hole from the trial."""
        document = fill(self.template, trial, "")
        scaling = Scaling.model_validate(document.pop("scaling"))
        document |= {"channels": self.channels, "classes": self.classes}
        return Candidate(parse_architecture(used_part(document), where=self.name), scaling)

    def reference(self, name: str) -> dict[str, Value]:
        """The parameters of a reference, as an enqueued trial wants them.

        Raises:
            DocumentError: one of its patterns asks for what is no choice, or matches no parameter.
        """
        patterns = self.references[name]
        trial = PatternTrial(patterns)
        self.suggest(trial)
        for pattern in patterns:  # it may be of what other choices bring
            if not _matches(trial.params, pattern):
                known = list(parameters(self.template, ""))
                if not _matches(known, pattern):
                    raise _no_match(name, pattern, known)
        return trial.params

    def sample(self, seed: int) -> Candidate:
        """A member drawn uniformly, hole by hole; again where what was drawn is no network."""
        trial = RandomTrial(seed)
        for _ in range(DRAWS - 1):
            with suppress(DocumentError):
                return self.suggest(trial)
        return self.suggest(trial)

    @property
    def resolution(self) -> int:
        """The side in pixels before scaling, the largest where it is a hole."""
        hole = self.template["resolution"]
        if isinstance(hole, Choice):
            return max(int(str(option)) for option in hole.options)
        return int(hole.high if isinstance(hole, Range) else hole)

    @property
    def size(self) -> int:
        """How many different documents the holes allow, the directions of scaling aside."""
        return count({k: v for k, v in self.template.items() if k != "scaling"})

    @property
    def fusions(self) -> list[str]:
        """The labels of every fusion that some skip may have."""
        found: dict[str, None] = {}
        for stage in self.template["stages"]:
            hole = stage["fusion"]
            options = hole.options if isinstance(hole, Choice) else labelled([hole], "fusion")
            found |= dict.fromkeys(str(label) for label in options)
        return list(found)


class RandomTrial:
    """A trial that draws uniformly; equal seeds give equal draws."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Choices) -> Value:
        del name
        return self._random.choice(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        del name
        return self._random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float) -> float:
        del name
        return self._random.uniform(low, high)


class PatternTrial:
    """A trial that answers by patterns of names: else the first choice, the middle of a range.

    Keeps what it answered in `params`.
    """

    def __init__(self, patterns: Mapping[str, Value]) -> None:
        self._patterns = patterns
        self.params: dict[str, Value] = {}

    def _answer(self, name: str, otherwise: Value) -> Any:
        chosen = (value for pattern, value in self._patterns.items() if fnmatch(name, pattern))
        return self.params.setdefault(name, next(chosen, otherwise))

    def suggest_categorical(self, name: str, choices: Choices) -> Value:
        answer: Value = self._answer(name, choices[0])
        if answer not in choices:
            offered = [str(choice) for choice in choices]
            near = nearest(str(answer), offered) or offered[0]
            raise _no_choice(name, answer, f"the choices are {', '.join(offered)}", near)
        return answer

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        middle = low + (high - low) // step // 2 * step
        answer = self._answer(name, middle)
        if type(answer) is not int or answer not in range(low, high + 1, step):
            why = f"it goes from {low} to {high} in steps of {step}"
            raise _no_choice(name, answer, why, middle)
        return answer

    def suggest_float(self, name: str, low: float, high: float) -> float:
        middle = (low + high) / 2
        answer = self._answer(name, middle)
        if type(answer) not in (int, float) or not low <= answer <= high:
            raise _no_choice(name, answer, f"it goes from {low:g} to {high:g}", f"{middle:g}")
        return float(answer)


def _no_choice(name: str, answer: object, why: str, fix: object) -> DocumentError:
    what = f"a reference asks for {answer!r}, which is no choice"
    return DocumentError(what, where=name, why=why, fix=f'"{name}": {fix}')


def _matches(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatch(name, pattern) for name in names)


def _no_match(reference: str, pattern: str, known: Sequence[str]) -> DocumentError:
    patterns = dict.fromkeys(re.sub(r"\b\d+\b", "*", name) for name in known)
    near = nearest(pattern, [*known, *patterns])
    return DocumentError(
        f"no parameter is called '{pattern}'",
        where=f"references.{reference}",
        why=f"the space has {len(known)}, such as {', '.join(list(patterns)[:3])}",
        fix=f'"{near}"' if near else "remove it",
    )


def used_part(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what cannot matter once its fusions are chosen.

    That is a width or growth that no fusion of a stage uses, and the fusion of a block which has
    no skip (`shortcut: equal`, where shapes differ).
    """
    for stage in document["stages"]:
        fusions = labels(stage["fusion"])
        if not fusions & {"concat", "dual_path"}:
            stage.pop("growth", None)
        if fusions == {"concat"}:
            stage.pop("width", None)
    if any(stage.get("shortcut") == "equal" for stage in document["stages"]):
        _settle(document)
    return document


def _settle(document: dict[str, Any]) -> None:
    channels = document["stem"]["width"]
    for filled in document["stages"]:
        stage = Stage.model_validate(filled)
        idle = stage.idle_fusion(channels)
        if idle is not None:
            filled["fusion"] = [idle, *stage.fusion[1:]]
        channels = stage.outputs(channels)


def find_space(name: str) -> Path:
    """The file of a space, by the name of one that is shipped or by its path.

    Raises:
        DocumentError: there is no such space; a near match is offered.
    """
    path = spaces_folder() / f"{name}.yaml" if name in space_names() else Path(name)
    if path.is_file():
        return path
    raise DocumentError(
        f"there is no space '{name}'",
        where="--space",
        why=f"it is no file, and the spaces that come with nasfuse are {', '.join(space_names())}",
        fix=f"--space {nearest(name, space_names()) or 'default'}",
    )


def read_space(name: str) -> dict[str, Any]:
    """The document of a space as plain values, holes and all."""
    document = read_document(find_space(name))
    assert isinstance(document, dict)  # load_space has parsed it
    return document


def load_space(name: str) -> SearchSpace:
    """A space by name or path.

    Raises:
        DocumentError: there is no such space, or it is not well formed.
    """
    path = find_space(name)
    document = read_document(path)
    try:
        return parse_space(document, name=path.stem)
    except DocumentError as error:
        error.where = f"{path}: {error.where}"
        raise


def parse_space(document: object, *, name: str) -> SearchSpace:
    """The space that a document with holes describes, tried out: its references and some members.

    Raises:
        DocumentError: it is not well formed, or cannot be filled.
    """
    if not isinstance(document, dict) or not isinstance(document.get("stages"), list):
        raise DocumentError("this is not a search space", where=name, why="it has no 'stages'")
    if not isinstance(document.get("scaling"), dict) or "resolution" not in document:
        why = "it needs 'resolution', and 'scaling' with alpha, beta and gamma"
        raise DocumentError("this is not a search space", where=name, why=why)
    references = document.get("references", {})
    template = parse({k: v for k, v in document.items() if k != "references"}, "")
    space = SearchSpace(name, template, references)
    _try_out(space)
    return space


def _try_out(space: SearchSpace) -> None:
    try:
        for seed in range(20):  # first: a misspelt choice is not the references' fault
            space.suggest(RandomTrial(seed))
        for name in space.references:
            space.reference(name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise DocumentError("this space cannot be filled", where=space.name, why=why) from None
