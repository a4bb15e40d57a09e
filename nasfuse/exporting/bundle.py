"""Export: a folder that needs nothing of ours, checked in a fresh process before it gets its name.

Weights travel as safetensors, which cannot carry code.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from nasfuse.data.dataset import Split
from nasfuse.errors import ExportError, UsageError
from nasfuse.exporting.card import card
from nasfuse.exporting.formats import FORMATS, write_formats
from nasfuse.exporting.origin import Origin
from nasfuse.exporting.verification import Check, verify
from nasfuse.files import refusal, rename_folder

LOCK = "export.lock"


def export_network(
    origin: Origin,
    out: Path,
    formats: Sequence[str] = tuple(FORMATS)[:2],
    *,
    validation: Split | None = None,
    latency: bool = False,
) -> Check:
    """Write the network in these formats (`python` always), with a card and what was checked.

    On `validation`, where it is given, the files have to be as accurate as the network.

    Raises:
        UsageError: `out` exists and is not empty.
        ExportError: a file does not answer as the trained network; `out` is then left as it was.
    """
    if out.is_file():
        raise UsageError(
            "this is a file", where=f"--out {out}", why="an export is a folder", fix="--out net/"
        )
    if out.exists() and any(out.iterdir()):
        raise UsageError(
            "the folder for the export is not empty",
            where=str(out),
            why="an export never mixes with, or replaces, other files",
            fix=f"--out {out}-2   or remove the folder",
        )
    wanted = tuple(dict.fromkeys(("python", *formats)))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # written and checked beside `out`, which only then gets its name
        with _staging(out) as staged:
            check = _fill(staged, origin, wanted, validation=validation, latency=latency)
            rename_folder(staged, out)
    except OSError as error:
        raise refusal(out, error) from None
    return check


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder beside `out` for as long as the block runs; those of killed exports go first."""
    for lock in out.parent.glob(f".{escape(out.name)}-*/{LOCK}"):
        with suppress(Timeout), FileLock(lock, timeout=0):  # another export may be running
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    with folder as name, FileLock(Path(name) / LOCK):
        staged = Path(name) / "export"
        staged.mkdir()
        yield staged


def _fill(
    staged: Path, origin: Origin, formats: Sequence[str], *, validation: Split | None, latency: bool
) -> Check:
    write_formats(staged, origin, formats)
    check = verify(staged, origin, formats, validation=validation, latency=latency)
    text = json.dumps(check.document(), indent=2) + "\n"
    (staged / "verify.json").write_text(text, encoding="utf-8")
    (staged / "README.md").write_text(card(origin, check), encoding="utf-8")
    _refuse_paths(staged)
    return check


def _refuse_paths(staged: Path) -> None:
    """A folder's name in a file would tell strangers about this machine."""
    name = str(staged.parent.resolve()).encode()
    for path in staged.rglob("*"):
        if path.is_file() and name in path.read_bytes():
            raise ExportError("a file would tell this machine's folders", where=path.name)
