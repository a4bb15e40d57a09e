"""Holes: what a space leaves open, how a document says so, and how a trial fills it.

A hole is a mapping with one of the keys `choice`, `int` or `float`:

    width: {int: [16, 64], step: 8}
    alpha: {float: [1.0, 1.4]}
    block: {choice: [{kind: residual, kernel: {choice: [3, 5]}}, ...]}
    fusion: {each: skip, choice: [add, concat]}       # one hole for each block of the stage
    growth: {int: [8, 32], step: 4, when: {fusion: concat}}   # only where a fusion concatenates
    width: {int: [8, 32], when: {fusion: [add, gated]}}       # only where one of these is chosen

A parameter's name is its path (`stages.1.block.mbconv.expand`), so one name means one range in a
study, and what does not apply does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import intern
from typing import Any, Protocol

from nasfuse.costs import MOST
from nasfuse.errors import DocumentError
from nasfuse.names import nearest

DEEPEST = 1000  # blocks that are each given a choice; fewer are too many for a network

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
    values: frozenset[Value]
    hole: Choice | Range


def fill(node: Any, trial: Trial, path: str) -> Any:
    """The node with every hole filled; `path` is the name of what is filled."""
    match node:
        case Choice():
            label = trial.suggest_categorical(path, list(node.options))
            return fill(node.options[label], trial, f"{path}.{label}")
        case Range(low, high, 0):
            return trial.suggest_float(path, low, high)
        case Range(low, high, step):
            return trial.suggest_int(path, int(low), int(high), step=step)
        case dict():
            return _fill_mapping(node, trial, path)
        case list():
            return [fill(item, trial, f"{path}.{index}") for index, item in enumerate(node)]
    return node


def _fill_mapping(node: Mapping[str, Any], trial: Trial, path: str) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, value in node.items():
        where = intern(f"{path}.{name}".lstrip("."))  # thousands of trials keep these names
        if isinstance(value, When):
            if not value.values & labels(filled.get(value.neighbour, [])):
                continue
            value = value.hole
        if isinstance(value, Choice) and value.each:
            single = replace(value, each=False)
            if filled["depth"] > DEEPEST:
                raise _bad_hole(where, f"there are {filled['depth']:,} blocks", "depth: 3")
            skips = range(filled["depth"])
            filled[name] = [fill(single, trial, intern(f"{where}.{index}")) for index in skips]
        else:
            filled[name] = fill(value, trial, where)
    return filled


def labels(filled: Any) -> set[Value]:
    """The labels in a filled value: of each of its items where it is a list."""
    items = filled if isinstance(filled, list) else [filled]
    return {item["kind"] if isinstance(item, dict) else item for item in items}


def parameters(node: Any, path: str) -> Iterator[str]:
    """The name of every parameter that some filling of the node asks for."""
    match node:
        case Choice():
            yield path
            for label, option in node.options.items():
                yield from parameters(option, f"{path}.{label}")
        case Range():
            yield path
        case dict():
            for name, value in node.items():
                places = [f"{path}.{name}".lstrip(".")]
                hole = value.hole if isinstance(value, When) else value
                if isinstance(hole, Choice) and hole.each:
                    skips = range(min(DEEPEST, _span(node["depth"])[-1]))
                    places = [f"{places[0]}.{index}" for index in skips]
                for place in places:
                    yield from parameters(hole, place)
        case list():
            for index, item in enumerate(node):
                yield from parameters(item, f"{path}.{index}")


def count(node: Any) -> int:
    """How many ways there are to fill a node (counting a `When` as always there)."""
    match node:
        case When():
            return count(node.hole)
        case Choice():
            return sum(count(option) for option in node.options.values())
        case Range(_, _, 0):
            return 1
        case Range(low, high, step):
            return int(high - low) // step + 1
        case dict():
            return sum(_sizes_by_depth(node))
        case list():
            total = 1
            for item in node:
                total *= count(item)
            return total
    return 1


def _sizes_by_depth(node: Mapping[str, Any]) -> Iterator[int]:
    """For each depth that a stage may have, how many ways there are to fill the rest."""
    for skips in _span(node.get("depth", 1)):
        total = 1
        for name, value in node.items():
            if name != "depth":
                each = isinstance(value, Choice) and value.each
                total *= count(value) ** (skips if each else 1)
        yield total


def _span(depth: int | Choice | Range) -> Sequence[int]:
    """The depths that a stage may have, the largest last."""
    match depth:
        case Choice():
            return sorted(int(str(option)) for option in depth.options)
        case Range():
            return range(int(depth.low), int(depth.high) + 1, depth.step)
    return [depth]


_HOLES = ("choice", "int", "float")


def parse(node: Any, path: str) -> Any:
    """The template with mappings that are holes replaced by holes; a bad one is named at once."""
    if isinstance(node, list):
        return [parse(item, f"{path}.{index}") for index, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    kinds = [kind for kind in _HOLES if kind in node]
    if not kinds:
        _refuse_near_holes(node, path)
        parsed = {name: parse(v, f"{path}.{name}".lstrip(".")) for name, v in node.items()}
        return _in_order(parsed, path)
    hole = _hole(kinds[0], node, path)
    if "when" not in node:
        return hole
    match node["when"]:
        case dict() as condition if len(condition) == 1:
            neighbour, found = next(iter(condition.items()))
            values = found if isinstance(found, list) else [found]
            if not any(isinstance(value, list | dict) for value in values):
                return When(neighbour, frozenset(values), hole)
    raise _bad_hole(path, "'when' names one neighbour and one value", "when: {fusion: concat}")


def _in_order(node: dict[str, Any], path: str) -> dict[str, Any]:
    """As the document has it, but each hole behind the neighbours that it depends on."""
    ordered: dict[str, Any] = {}
    left = list(node)
    while left:
        waiting = []
        for name in left:
            if all(need in ordered for need in _needs(node[name])):
                ordered[name] = node[name]
            else:
                waiting.append(name)
        if waiting == left:
            raise _unmet(node, left, path)
        left = waiting
    return ordered


def _needs(hole: Any) -> tuple[str, ...]:
    """The neighbours that say whether there is this hole, and how often."""
    if isinstance(hole, When):
        return (hole.neighbour, *_needs(hole.hole))
    return ("depth",) if isinstance(hole, Choice) and hole.each else ()


def _unmet(node: Mapping[str, Any], left: Sequence[str], path: str) -> DocumentError:
    """Of holes that depend on what is not there, or on each other."""
    needs = [(name, need) for name in left for need in _needs(node[name])]
    for name, need in needs:
        if need not in node:
            near = nearest(str(need), map(str, node))
            fix = f"{near}   in place of {need}" if near else f"put '{need}' beside it"
            why = f"it depends on '{need}', which is not beside it"
            return _bad_hole(f"{path}.{name}".lstrip("."), why, fix)
    name, need = needs[0]
    why = f"it depends on '{need}', and the conditions go in a circle"
    return _bad_hole(f"{path}.{name}".lstrip("."), why, "remove one 'when'")


def _refuse_near_holes(node: Mapping[str, Any], path: str) -> None:
    """A list under a name that is almost a hole's was meant to be one."""
    for name, value in node.items():
        near = nearest(str(name), _HOLES) if isinstance(value, list) else None
        if near:
            raise _bad_hole(f"{path}.{name}", f"'{name}' is no kind of hole", f"{near}: {value}")


def _hole(kind: str, node: Mapping[str, Any], path: str) -> Choice | Range:
    known = {"choice": {"each"}, "int": {"step"}, "float": set()}[kind]
    for name in node.keys() - {kind, "when"} - known:
        near = nearest(str(name), ["each", "step", "when"])
        raise _bad_hole(path, f"'{name}' is not known here", f"{near}:" if near else "remove it")
    match kind, node[kind]:
        case "choice", list() as options if options:
            each = node.get("each")
            if each not in (None, "skip"):
                raise _bad_hole(path, f"'each: {each}' is not known", "each: skip")
            return Choice(labelled(options, path), each == "skip")
        case "int", [int(low), int(high)] if -MOST <= low <= high <= MOST:
            step = node.get("step", 1)
            if isinstance(step, int) and step > 0 and (high - low) % step == 0:
                return Range(low, high, step)
            raise _bad_hole(path, f"{high} - {low} is no multiple of the step {step}", "step: 1")
        case "float", [int() | float() as low, int() | float() as high] if (
            -MOST <= low < high <= MOST
        ):
            return Range(float(low), float(high), 0)
    example = {"choice": "[add, concat]", "int": "[8, 32]", "float": "[1.0, 1.4]"}[kind]
    raise _bad_hole(path, f"{node[kind]!r} cannot be used", f"{{{kind}: {example}}}")


def labelled(options: Sequence[Any], path: str) -> dict[Value, Any]:
    """Options by label: `kind` of a sub-document, or the value itself."""
    labels: dict[Value, Any] = {}
    for index, option in enumerate(options):
        label = option.get("kind") if isinstance(option, dict) else option
        if isinstance(label, list | dict) or label in labels:
            raise _bad_hole(path, f"two choices are called {label!r}", "give each its own kind")
        labels[label] = parse(option, f"{path}.{index}")
    return labels


def _bad_hole(path: str, why: str, fix: str) -> DocumentError:
    return DocumentError("this hole of the space is wrong", where=path, why=why, fix=fix)
