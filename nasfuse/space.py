"""SearchSpace: an architecture with holes, and how a trial fills them.

A hole is a mapping with one of the keys `choice`, `int` or `float`:

    width: {int: [16, 64], step: 8}
    alpha: {float: [1.0, 1.4]}
    block: {choice: [{kind: residual, kernel: {choice: [3, 5]}}, ...]}
    fusion: {each: skip, choice: [add, concat]}       # one hole for each block of the stage
    growth: {int: [8, 32], step: 4, when: {fusion: concat}}   # only where a fusion concatenates

A parameter's name is its path (`stages.1.block.mbconv.expand`), so one name means one range in a
study, and what does not apply does not exist.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from nasfuse.architecture import Architecture, Scaling, parse_architecture, read_document
from nasfuse.errors import DocumentError, NasfuseError

Value = int | float | str | None
Choices = Sequence[Value]


class Trial(Protocol):
    """What a space asks of optuna.Trial, optuna.trial.FixedTrial or a double of ours."""

    def suggest_categorical(self, name: str, choices: Choices) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...
    def suggest_float(self, name: str, low: float, high: float) -> float: ...


@dataclass(frozen=True)
class Choice:
    """One of several values or sub-documents; with `each`, one for every skip of the stage."""

    options: Mapping[Value, Any]
    each: bool = False


@dataclass(frozen=True)
class Range:
    """An integer between two others, in steps, or a float where `step` is 0."""

    low: float
    high: float
    step: int


@dataclass(frozen=True)
class When:
    """A hole that exists only where a neighbour has one of its values."""

    neighbour: str
    value: Value
    hole: Choice | Range


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
        document = _fill(self.template, trial, "")
        scaling = Scaling.model_validate(document.pop("scaling"))
        document |= {"channels": self.channels, "classes": self.classes}
        return Candidate(parse_architecture(_used(document), where=self.name), scaling)

    def reference(self, name: str) -> dict[str, Value]:
        """The parameters of a reference, as an enqueued trial wants them."""
        trial = PatternTrial(self.references[name])
        self.suggest(trial)
        return trial.params

    def sample(self, seed: int) -> Candidate:
        """A member drawn uniformly, hole by hole."""
        return self.suggest(RandomTrial(seed))

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
        return _size({k: v for k, v in self.template.items() if k != "scaling"})

    @property
    def fusions(self) -> list[str]:
        """The labels of every fusion that some skip may have."""
        found: dict[str, None] = {}
        for stage in self.template["stages"]:
            hole = stage["fusion"]
            options = hole.options if isinstance(hole, Choice) else _labelled([hole], "fusion")
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
            raise DocumentError(
                f"a reference asks for {answer!r}, which is no choice",
                where=name,
                why=f"the choices are {', '.join(map(str, choices))}",
            )
        return answer

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return int(self._answer(name, low + (high - low) // step // 2 * step))

    def suggest_float(self, name: str, low: float, high: float) -> float:
        return float(self._answer(name, (low + high) / 2))


def _fill(node: Any, trial: Trial, path: str) -> Any:
    """The node with every hole filled; `path` is the name of what is filled."""
    match node:
        case Choice():
            label = trial.suggest_categorical(path, list(node.options))
            return _fill(node.options[label], trial, f"{path}.{label}")
        case Range(low, high, 0):
            return trial.suggest_float(path, low, high)
        case Range(low, high, step):
            return trial.suggest_int(path, int(low), int(high), step=step)
        case dict():
            return _fill_mapping(node, trial, path)
        case list():
            return [_fill(item, trial, f"{path}.{index}") for index, item in enumerate(node)]
    return node


def _fill_mapping(node: Mapping[str, Any], trial: Trial, path: str) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, value in node.items():
        where = f"{path}.{name}".lstrip(".")
        if isinstance(value, When):
            if value.value not in _values(filled[value.neighbour]):
                continue
            value = value.hole
        if isinstance(value, Choice) and value.each:
            single = replace(value, each=False)
            skips = range(filled["depth"])
            filled[name] = [_fill(single, trial, f"{where}.{index}") for index in skips]
        else:
            filled[name] = _fill(value, trial, where)
    return filled


def _values(filled: Any) -> set[Value]:
    """The labels in a filled value: of each of its items where it is a list."""
    items = filled if isinstance(filled, list) else [filled]
    return {item["kind"] if isinstance(item, dict) else item for item in items}


def _used(document: dict[str, Any]) -> dict[str, Any]:
    """The document without a stage's width or growth where no fusion of the stage uses it."""
    for stage in document["stages"]:
        fusions = _values(stage["fusion"])
        if "concat" not in fusions:
            stage.pop("growth", None)
        if fusions == {"concat"}:
            stage.pop("width", None)
    return document


def _size(node: Any) -> int:
    """How many ways there are to fill a node (counting a `When` as always there)."""
    match node:
        case When():
            return _size(node.hole)
        case Choice():
            return sum(_size(option) for option in node.options.values())
        case Range(_, _, 0):
            return 1
        case Range(low, high, step):
            return int(high - low) // step + 1
        case dict():
            return sum(_sizes_by_depth(node))
        case list():
            total = 1
            for item in node:
                total *= _size(item)
            return total
    return 1


def _sizes_by_depth(node: Mapping[str, Any]) -> Iterator[int]:
    """For each depth that a stage may have, how many ways there are to fill the rest."""
    depth = node.get("depth", 1)
    span = range(depth, depth + 1) if isinstance(depth, int) else _span(depth)
    for skips in span:
        total = 1
        for name, value in node.items():
            if name != "depth":
                each = isinstance(value, Choice) and value.each
                total *= _size(value) ** (skips if each else 1)
        yield total


def _span(depth: Choice | Range) -> Sequence[int]:
    if isinstance(depth, Choice):
        return [int(str(option)) for option in depth.options]
    return range(int(depth.low), int(depth.high) + 1, depth.step)


_HOLES = ("choice", "int", "float")


def _parse(node: Any, path: str) -> Any:
    """The template with mappings that are holes replaced by holes; a bad one is named at once."""
    if isinstance(node, list):
        return [_parse(item, f"{path}.{index}") for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kinds = [kind for kind in _HOLES if kind in node]
    if not kinds:
        return {name: _parse(v, f"{path}.{name}".lstrip(".")) for name, v in node.items()}
    hole = _hole(kinds[0], node, path)
    if "when" not in node:
        return hole
    match node["when"]:
        case dict() as condition if len(condition) == 1:
            return When(*next(iter(condition.items())), hole)
    raise _bad_hole(path, "'when' names one neighbour and one value", "when: {fusion: concat}")


def _hole(kind: str, node: Mapping[str, Any], path: str) -> Choice | Range:
    known = {"choice": {"each"}, "int": {"step"}, "float": set()}[kind]
    for name in node.keys() - {kind, "when"} - known:
        near = difflib.get_close_matches(name, ["each", "step", "when"], 1)
        raise _bad_hole(path, f"'{name}' is not known here", f"{near[0]}:" if near else "remove it")
    match kind, node[kind]:
        case "choice", list() as options if options:
            each = node.get("each")
            if each not in (None, "skip"):
                raise _bad_hole(path, f"'each: {each}' is not known", "each: skip")
            return Choice(_labelled(options, path), each == "skip")
        case "int", [int(low), int(high)] if low <= high:
            step = node.get("step", 1)
            if isinstance(step, int) and step > 0 and (high - low) % step == 0:
                return Range(low, high, step)
            raise _bad_hole(path, f"{high} - {low} is no multiple of the step {step}", "step: 1")
        case "float", [int() | float() as low, int() | float() as high] if low < high:
            return Range(float(low), float(high), 0)
    example = {"choice": "[add, concat]", "int": "[8, 32]", "float": "[1.0, 1.4]"}[kind]
    raise _bad_hole(path, f"{node[kind]!r} cannot be used", f"{{{kind}: {example}}}")


def _labelled(options: Sequence[Any], path: str) -> dict[Value, Any]:
    """Options by label: `kind` of a sub-document, or the value itself."""
    labels: dict[Value, Any] = {}
    for index, option in enumerate(options):
        label = option.get("kind") if isinstance(option, dict) else option
        if label in labels or isinstance(label, list | dict):
            raise _bad_hole(path, f"two choices are called {label!r}", "give each its own kind")
        labels[label] = _parse(option, f"{path}.{index}")
    return labels


def _bad_hole(path: str, why: str, fix: str) -> DocumentError:
    return DocumentError("this hole of the space is wrong", where=path, why=why, fix=fix)


def spaces_folder() -> Path:
    """Where the spaces that come with the package lie: inside it, or beside it in a checkout."""
    inside = Path(__file__).parent / "search_spaces"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "search_spaces"


def space_names() -> list[str]:
    """The spaces that come with the package."""
    return sorted(path.stem for path in spaces_folder().glob("*.yaml"))


def find_space(name: str) -> Path:
    """The file of a space, by the name of one that is shipped or by its path.

    Raises:
        DocumentError: there is no such space; a near match is offered.
    """
    path = spaces_folder() / f"{name}.yaml" if name in space_names() else Path(name)
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, space_names(), 1)
    raise DocumentError(
        f"there is no space '{name}'",
        where="--space",
        why=f"it is no file, and the spaces that come with nasfuse are {', '.join(space_names())}",
        fix=f"--space {near[0] if near else 'default'}",
    )


def read_space(name: str) -> dict[str, Any]:
    """The document of a space as plain values, holes and all."""
    document = read_document(find_space(name))
    assert isinstance(document, dict)  # load_space has parsed it
    return document


def load_space(name: str) -> SearchSpace:
    """A space by name or path, tried out: each reference and twenty random members are filled.

    Raises:
        DocumentError: there is no such space, or it is not well formed.
    """
    path = find_space(name)
    space = parse_space(read_document(path), name=path.stem)
    _try_out(space, path)
    return space


def parse_space(document: object, *, name: str) -> SearchSpace:
    """The space that a document with holes describes."""
    if not isinstance(document, dict) or not isinstance(document.get("stages"), list):
        raise DocumentError("this is not a search space", where=name, why="it has no 'stages'")
    if not isinstance(document.get("scaling"), dict) or "resolution" not in document:
        why = "it needs 'resolution', and 'scaling' with alpha, beta and gamma"
        raise DocumentError("this is not a search space", where=name, why=why)
    references = document.get("references", {})
    template = _parse({k: v for k, v in document.items() if k != "references"}, "")
    return SearchSpace(name, template, references)


def _try_out(space: SearchSpace, path: Path) -> None:
    try:
        for name in space.references:
            space.reference(name)
        for seed in range(20):
            space.sample(seed)
    except NasfuseError as error:
        error.where = f"{path}, {error.where}"
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise DocumentError("this space cannot be filled", where=str(path), why=why) from None
