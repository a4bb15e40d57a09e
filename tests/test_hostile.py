"""Files from anyone: refused with a clear error or sound, whatever they say; nothing in them runs.

`NASFUSE_MUTANTS=10000 pytest tests/test_hostile.py` tries more of them.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

import nasfuse
from nasfuse.architecture import Architecture, read_architecture
from nasfuse.documents import MAX_BYTES, read_document
from nasfuse.errors import DocumentError
from nasfuse.exporting.source import module_source
from nasfuse.network import cost
from nasfuse.recipe import read_recipe
from nasfuse.references import load_architecture, reference_names
from nasfuse.space import load_space

PACKAGE = Path(nasfuse.__file__).parent
MUTANTS = int(os.environ.get("NASFUSE_MUTANTS", "500"))
MARK = "executed-by-a-document"
CODE = f"__import__('pathlib').Path('{MARK}').touch()"
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
FILES: dict[str, tuple[str, str]] = {
    "merge bomb": (MERGES, "100,000 values"),
    "alias bomb": (LAUGHS, "100,000 values"),
    "contains itself": ("a: &a [*a]", "50 levels"),
    "nested": ("[" * 2000 + "]" * 2000, "recursion"),
    "nested a little": ("[" * 60 + "]" * 60, "50 levels"),
    "large": ("a" * (MAX_BYTES + 1), "1 MB"),
    "code in a tag": (f'!!python/object/apply:eval ["{CODE}"]', "could not determine"),
    "number of 5000 digits": ("a: " + "9" * 5000, "4300 digits"),
    "no day": ("a: 2001-99-99", "month must be"),
    "tag that does not fit": ("a: !!timestamp x", "tag"),
    "another one": ("!!bool x", "tag"),
    "control characters": ("\x1b[2J", "special characters"),
    "half a letter": ('a: "\\ud800"', "surrogates"),
    "half a letter in a key": ('"\\ud800": 1', "surrogates"),
    "key that is no word": ("? [1, 2]\n: 3", "unhashable"),
}
JSON: dict[str, tuple[str, str]] = {
    "nested": ("[" * 100_000, "recursion"),
    "nested a little": ("[" * 60 + "]" * 60, "50 levels"),
    "many values": ("[" + "1," * 200_000 + "1]", "100,000 values"),
    "no number": ('{"norm_eps": NaN}', "NaN"),
    "number of 5000 digits": ("9" * 5000, "4300 digits"),
    "cut off": ('{"resolution": 3', "delimiter"),
    "half a letter": ('["\\ud800"]', "surrogates"),
    "half a letter in a key": ('{"\\ud800": 1}', "surrogates"),
    "pickle": ("\x80\x04", "Expecting value"),
}


@pytest.mark.parametrize("name", FILES)
def test_hostile_yaml_is_refused(tmp_path: Path, name: str) -> None:
    text, said = FILES[name]
    (tmp_path / "a.yaml").write_text(text)
    for read in (read_document, read_architecture, read_recipe, lambda p: load_space(str(p))):
        with pytest.raises(DocumentError) as caught:
            read(tmp_path / "a.yaml")
        assert said in str(caught.value)
        assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_is_refused(tmp_path: Path, name: str) -> None:
    text, said = JSON[name]
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DocumentError, match=said):
        read_architecture(tmp_path / "a.json")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "absent"):
        with pytest.raises(DocumentError, match="cannot be read"):
            read_document(path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="utf-8"):
        read_document(tmp_path / "a.yaml")


WRONG: dict[str, Any] = {
    "code as a kind": ("activation", CODE),
    "a class of torch": ("activation", "nn.Module"),
    "text for a number": ("resolution", "16"),
    "no whole number": ("resolution", 16.5),
    "truth for a number": ("classes", True),
    "huge": ("resolution", 10**30),
    "unknown name": (CODE, 1),
    "unknown name with control characters": ("\x1b]0;title\x07", 1),
    "a long name": ("x" * 10_000, 1),
    "a million stages": ("stages", [{}] * 90_000),
    "a list for a document": ("stem", ["width"] * 5),
    "nothing": ("head", None),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_named_in_a_short_error(
    tmp_path: Path, document: dict[str, Any], name: str
) -> None:
    key, value = WRONG[name]
    (tmp_path / "a.json").write_text(json.dumps({**document, key: value}))
    with pytest.raises(DocumentError, match="not an architecture") as caught:
        read_architecture(tmp_path / "a.json")
    text = str(caught.value)
    assert len(text) < 1500
    assert text.replace("\n", "").isprintable()


VALUES: list[Any] = [
    CODE, '"""', "\\", "a\nb", "\x1b[2J", "add", "nn.ReLU", "__class__", "", " ", "0", "1e9", None,
    True, False, 0, 1, -1, 2, 3, 7, 128, 129, 10**9, 10**40, -(10**40), 0.5, 1e308, -0.0, 1e-300,
    [], {}, [[]], [[[[[]]]]], {"kind": "aff"}, {"kind": CODE}, {"__class__": {}}, ["add"] * 300,
    {"kind": "aff", "reduction": 10**9}, {"kind": "bam", "reduction": 1}, "dual_path", "concat",
]  # fmt: skip
CHUNKS = ["&a", "*a", "<<: ", "!!python/name:os.system", "- ", ": ", "{", "}", "[", "]", "\t", '"',
          "\x00", "\ufeff", "9" * 30, ".nan", "-.inf", "|\n", "? ", "...", "---", "%", "@", "#",
          "stages:", "true", "~", "\u2028", CODE]  # fmt: skip


def places(value: object) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    inside = [place for key in keys for place in places(value[key])]
    return [(value, key) for key in keys] + inside


def mutant(generator: random.Random) -> tuple[str, str]:
    """A published network with a few values or letters changed: the name and content of a file."""
    document = load_architecture(generator.choice(reference_names())).document()
    for _ in range(generator.choice((0, 1, 1, 2, 4))):
        container, key = generator.choice(places(document))
        choice = generator.random()
        if choice < 0.7:
            container[key] = deepcopy(generator.choice(VALUES))
        elif choice < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[generator.choice(("kind", "width", "x", CODE, "__init__"))] = 1
        else:
            container *= generator.choice((2, 50))
    as_json = generator.random() < 0.5
    text = json.dumps(document) if as_json else yaml.safe_dump(document, sort_keys=False)
    for _ in range(generator.choice((0, 0, 1, 3, 20))):
        start = generator.randrange(len(text) + 1)
        length = generator.choice((0, 1, 5, 40))
        chunk = generator.choice((*CHUNKS, text[start : start + 30], ""))
        text = text[:start] + chunk + text[start + length :]
    return ("a.json" if as_json else "a.yaml"), text


# what a network's class is made of; all other code of a module is ours, letter by letter
NODES = {
    "Assign", "Attribute", "Call", "ClassDef", "Constant", "Expr", "For", "FunctionDef", "If",
    "List", "ListComp", "Load", "Name", "Return", "Slice", "Store", "Subscript", "Tuple", "USub",
    "UnaryOp", "arg", "arguments", "comprehension", "keyword",
}  # fmt: skip
NAMES = {"self", "super", "nn", "x", "_", "Tensor", "maps", "stage", "module"}
NAMES |= {"isinstance", "range"}
IMPORTS = {
    "from __future__ import annotations", "import json", "import math", "import sys",
    "from collections.abc import Sequence", "from pathlib import Path", "import torch",
    "from torch import Tensor, nn",
}  # fmt: skip
PARTS = {"stem", "stages", "neck", "head", "modules"}
CALLS = {"maps.append", "module.eps", "super().__init__"}
SOURCES = [*(PACKAGE / "ops").glob("*.py"), PACKAGE / "exporting" / "loading.py"]
OURS = re.sub(r"  # type: ignore\[[\w-]+\]", "", "\n".join(p.read_text() for p in SOURCES))


def check_text(network: Architecture) -> None:
    """Its source is our own classes and functions, literals, and layers made of those classes."""
    text = module_source(network, about=network.activation, constants={"CLASSES": (CODE,)})
    tree, lines = ast.parse(text), text.splitlines()
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        match node:
            case ast.ClassDef(name="Network"):
                check_network(node, NAMES | classes)
            case ast.Assign():
                assert ast.literal_eval(node.value) == (CODE,)
            case ast.Expr():
                assert isinstance(node.value, ast.Constant), "the docstring"
            case ast.Import() | ast.ImportFrom():
                assert ast.unparse(node) in IMPORTS
            case _:
                assert "\n".join(lines[node.lineno - 1 : node.end_lineno]).strip() in OURS


def check_network(network: ast.ClassDef, names: set[str]) -> None:
    """No node, name or attribute is there that layers do not need."""
    assert not network.decorator_list
    for node in ast.walk(network):
        assert type(node).__name__ in NODES
        match node:
            case ast.Name():
                assert node.id in names
            case ast.Attribute(value=ast.Name(id="nn")):
                assert issubclass(getattr(nn, node.attr), nn.Module)
            case ast.Attribute(value=ast.Name(id="self")):
                assert node.attr in PARTS
            case ast.Attribute():
                assert ast.unparse(node) in CALLS


@pytest.mark.parametrize("name", reference_names())
def test_the_text_of_published_networks_is_sound(name: str) -> None:
    """Or that of mutants would be sound for what it lacks."""
    check_text(load_architecture(name))


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "self.head = open",
        "self.head = nn.init",
        "self.__class__ = Add",
        "x.data",
        "import os",
        "lambda: 0",
    ],
)
def test_what_no_network_needs_is_noticed(line: str) -> None:
    tree = ast.parse(f"class Network(nn.Module):\n    def __init__(self):\n        {line}\n")
    assert isinstance(tree.body[0], ast.ClassDef)
    with pytest.raises((AssertionError, TypeError)):
        check_network(tree.body[0], NAMES | {"Add"})


def test_mutants_are_refused_or_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator, seen = random.Random(int(os.environ.get("NASFUSE_SEED", "0"))), Counter[str]()
    longest = 0
    for _ in range(MUTANTS):
        name, text = mutant(generator)
        Path(name).write_text(text, encoding="utf-8", newline="")
        try:
            network = read_architecture(Path(name))
        except DocumentError as error:
            longest = max(longest, len(str(error)))
            seen["refused"] += 1
            continue
        assert cost(network).params > 0
        again = tmp_path / "again.json"
        again.write_text(network.to_json())
        assert read_architecture(again) == network
        check_text(network)
        seen["sound"] += 1
    assert min(seen.values()) >= MUTANTS // 20, seen
    assert longest < 1500
    assert not Path(MARK).exists()
