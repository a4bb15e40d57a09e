"""Documents: files of plain values, from anyone. What is too large or deep is refused early.

Nothing in a file is ever run: YAML is read as plain values only, and JSON cannot say more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import yaml

from nasfuse.errors import DocumentError

MAX_BYTES = 1_000_000
MAX_VALUES, MAX_DEPTH = 100_000, 50  # with every alias of YAML written out


def read_document(path: Path) -> object:
    """The plain values in a JSON file (by its name) or a YAML file of at most 1 MB.

    Raises:
        DocumentError: the file cannot be read, is too large or deep, or is not JSON or YAML.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # a pipe or a device would never end
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DocumentError("this file is too large", where=str(path), why="the limit is 1 MB")
        text = content.decode("utf-8")
        return _json(text) if path.suffix.lower() == ".json" else _yaml(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise DocumentError("this file cannot be read", where=str(path), why=reason) from None


def printable(text: str, limit: int = 300) -> str:
    """Text from outside for a terminal: short, and without its control characters."""
    kept = text[:limit] + ("..." if len(text) > limit else "")
    return "".join(sign if sign.isprintable() else "?" for sign in kept)


def _json(text: str) -> object:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    document = json.loads(text, parse_constant=refuse)
    _require_small(*_extent(document, 0))
    return document


def _extent(value: object, depth: int) -> tuple[int, int]:
    """How many values there are in it, and how deep they lie."""
    for word in value if isinstance(value, dict) else [value]:
        _require_letters(word)
    inside = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inside, list) or depth > MAX_DEPTH:
        return 1, depth
    extents = [_extent(item, depth + 1) for item in inside]
    return 1 + sum(n for n, _ in extents), max((d for _, d in extents), default=depth)


def _yaml(text: str) -> object:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _node_extent(node, 0, {})
        try:
            value: object = loader.construct_document(node)
        except (AttributeError, KeyError, TypeError) as error:  # of its converters, for bad tags
            raise ValueError(f"a value does not fit its tag: {error}") from None
        return value
    finally:
        loader.dispose()


def _node_extent(node: yaml.Node, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """As `_extent`, before anything is made of it: an alias counts as what it stands for."""
    if id(node) not in known:
        _require_small(0, depth)  # what contains itself ends here
        _require_letters(node.value)
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        items = [item for pair in pairs for item in pair]
        items = node.value if isinstance(node, yaml.SequenceNode) else items
        extents = [_node_extent(item, depth + 1, known) for item in items]
        height = 1 + max((height for _, height in extents), default=0)
        known[id(node)] = 1 + sum(count for count, _ in extents), height
    count, height = known[id(node)]
    _require_small(count, depth + height - 1)
    return count, height


def _require_letters(value: object) -> None:
    """Refuse halves of letters, which escapes can say and no file or terminal takes."""
    if isinstance(value, str):
        value.encode()


def _require_small(count: int, depth: int) -> None:
    if count > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES:,} values, aliases written out")
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
