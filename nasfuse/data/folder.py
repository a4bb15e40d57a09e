"""A folder of images, one sub-folder a class.

Either `train/` with `val/` (or `valid/`, `validation/`) and perhaps `test/`, each with a folder a
class; or the classes' folders at once, of which a fifth is then held out for validation. `train/`
without `val/` is divided so too, and `test/` may lie beside the classes' folders.
"""

from __future__ import annotations

import logging
import os
import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasfuse.data.dataset import Dataset, Split, assemble, draw
from nasfuse.data.decoded import decoded
from nasfuse.data.decoding import all_grey, unreadable
from nasfuse.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
VALIDATION_NAMES = ("val", "valid", "validation")
VALIDATION_SHARE = 0.2

_log = logging.getLogger(__name__)
Files = dict[str, list[Path]]  # of each class, both in order of names


class Layout(NamedTuple):
    """The files of each split; validation and test may be missing."""

    train: Files
    validation: Files | None
    test: Files | None


class Found(NamedTuple):
    """The images of each part that can be read, their files in the same order, and other files."""

    splits: list[Split]
    paths: list[list[Path]]
    bad: dict[Path, str]


def load(root: Path, *, side: int, seed: int, skip_bad: int = 0) -> Dataset:
    """Training and validation images of side x side pixels; `seed` divides what is not divided.

    Raises DataError for a layout or for images that cannot be used, those of test/ by their names
    only, and for more than `skip_bad` that cannot be read; fewer are left out.
    """
    train, validation = divided(scan(root), seed)
    found = read([train, validation], side=side)
    _check_bad(root, found, skip_bad)
    train_split, validation_split = found.splits
    return assemble(
        root.resolve().name, tuple(train), train=train_split, validation=validation_split
    )


def load_test(root: Path, *, side: int, skip_bad: int = 0) -> Split | None:
    """The images of test/, with as many channels as those that the search sees; None without it.

    Raises DataError as `load` does.
    """
    layout = scan(root)
    if layout.test is None:
        return None
    grey = all_grey([*flat(layout.train), *flat(layout.validation or {})])
    found = read([layout.test], side=side, grey=grey)
    _check_bad(root, found, skip_bad)
    return found.splits[0]


def divided(layout: Layout, seed: int) -> tuple[Files, Files]:
    """Training and validation files, as they lie or drawn by the seed. Raises DataError."""
    if layout.validation is None:
        return _hold_out(layout.train, seed)
    return layout.train, layout.validation


def flat(files: Files) -> list[Path]:
    """All files, class by class."""
    return [path for members in files.values() for path in members]


def read(parts: Sequence[Files], *, side: int, grey: bool | None = None) -> Found:
    """All parts in one go, so that one error can name every file that cannot be decoded."""
    lists = [flat(files) for files in parts]
    # mixed once and for all: the first images of a split are then not all of one class
    orders = [np.random.default_rng(0).permutation(len(paths)) for paths in lists]
    mixed = [[paths[i] for i in order] for paths, order in zip(lists, orders, strict=True)]
    every = list(chain.from_iterable(mixed))
    images, places, file = decoded(every, side=side, grey=grey)
    bad = {every[place]: reason for place, reason in places.items()}
    found, start = Found([], [], bad), 0
    for files, order, paths in zip(parts, orders, mixed, strict=True):
        good = np.array([path not in bad for path in paths], bool)
        found.splits.append(_split(images, start, _labels(files)[order][good], file))
        found.paths.append([path for path in paths if path not in bad])
        start += len(found.paths[-1])
    return found


def _check_bad(root: Path, found: Found, skip_bad: int) -> None:
    total = len(found.bad) + sum(map(len, found.paths))
    if len(found.bad) > skip_bad:
        raise unreadable(root, found.bad, total)
    if found.bad:
        _log.warning("%d of %d images cannot be read and are left out", len(found.bad), total)


def _split(
    images: NDArray[np.uint8], start: int, labels: NDArray[np.int64], file: Path | None
) -> Split:
    """As many images as labels, from `start` on; mapped where all of them are."""
    part = images[start : start + len(labels)]
    if file is None or not len(part):
        return Split(part, labels)
    return Split.mapped((file, start * int(np.prod(images.shape[1:]))), part.shape, labels)


def _labels(files: Files) -> NDArray[np.int64]:
    sizes = [len(members) for members in files.values()]
    return np.repeat(np.arange(len(files), dtype=np.int64), sizes)


def _hold_out(files: Files, seed: int) -> tuple[Files, Files]:
    lone = [name for name, members in files.items() if len(members) < 2]
    if lone:
        path = files[lone[0]][0]
        raise DataError(
            f"{len(lone)} of {len(files)} classes have one image only: {', '.join(lone[:3])}",
            where=str(path.parent),
            why="without val/ a class needs at least 2: one to train on, one to validate with",
            fix=f"mv -n {_quoted(path.parent)} {_quoted(path.parents[1].resolve().parent)}   "
            "leaves the class out",
        )
    drawn = draw(_labels(files), lambda size: max(1, round(VALIDATION_SHARE * size)), seed=seed)
    paths = flat(files)
    held = {paths[index] for index in drawn}
    return (
        {name: [path for path in members if path not in held] for name, members in files.items()},
        {name: [path for path in members if path in held] for name, members in files.items()},
    )


@contextmanager
def permitted() -> Iterator[None]:
    """Missing rights to look at a file or folder raise DataError."""
    try:
        yield
    except PermissionError as error:
        path = Path(str(error.filename))
        raise _closed("this", path, error, inside=path.parent) from error


@permitted()
def scan(root: Path) -> Layout:
    """The files of each split and class, with every check that needs no decoding."""
    _check_folder(root)
    top = {folder.name.casefold(): folder for folder in subfolders(root)}
    test = None
    if "test" in top and subfolders(top["test"]):
        test = _classes(top["test"], subfolders(top.pop("test")))
    if _is_divided(top):
        held = _validation_folder(root, top)
        train = _classes(top["train"], subfolders(top["train"]))
        layout = Layout(train, _classes(held, subfolders(held)) if held else None, test)
    else:
        layout = Layout(_classes(root, list(top.values())), None, test)
    for other in (layout.validation, layout.test):
        _check_same(layout.train, other)
    return layout


def _is_divided(top: dict[str, Path]) -> bool:
    """A class may be called `train`: it is one where it lies beside others and holds images."""
    return "train" in top and (
        any(name in top for name in VALIDATION_NAMES)
        or bool(subfolders(top["train"]))
        or set(top) <= {"train", "test"}
    )


def _validation_folder(root: Path, top: dict[str, Path]) -> Path | None:
    found = [top[name] for name in VALIDATION_NAMES if name in top]
    if len(found) > 1:
        raise DataError(
            f"there are {len(found)} folders for validation",
            where=str(root),
            why=" and ".join(folder.name for folder in found),
            fix=f"mv {_quoted(found[1])} {_quoted(root.resolve().parent)}",
        )
    return found[0] if found else None


def _classes(parent: Path, folders: list[Path]) -> Files:
    if len(folders) < 2:
        only = f"'{folders[0].name}' is the only class" if folders else "there are no classes"
        raise DataError(
            f"{only} in this folder",
            where=str(parent),
            why="at least 2 are needed, each a folder of images that has the class's name",
            fix=f"--data {_quoted(folders[0])}"
            if folders and subfolders(folders[0])
            else f"mkdir {_quoted(parent / 'another_class')}   and put its images there"
            if folders
            else _two_classes(parent),
        )
    for folder in folders:
        require_text(folder)
    files = {folder.name: _images(folder) for folder in folders}
    empty = [folder for folder in folders if not files[folder.name]]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(folders)} classes have no images: {_listed(empty)}",
            where=str(empty[0]),
            why=f"of {len(entries(empty[0]))} entries none is a file in {', '.join(SUFFIXES)}",
            fix=f"mv -n {_quoted(empty[0])} {_quoted(parent.resolve().parent)}   or fill it",
        )
    return files


def _two_classes(parent: Path) -> str:
    one, other = (_quoted(parent / name) for name in ("one_class", "another_class"))
    return f"mkdir {one} {other}   and put the images of each class into its own"


def require_text(path: Path) -> None:
    """Raises DataError for a name that is no text: neither a study nor an export could keep it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(
            "the name of a folder or file is not UTF-8",
            where=shown,
            why="it was probably made on a system with another encoding, as in an old zip archive",
            fix=f"convmv -r -f latin1 -t utf8 --notest {shlex.quote(os.path.dirname(shown) or '.')}"
            "   or give it another name",
        ) from None


def _check_same(train: Files, other: Files | None) -> None:
    """Names in one split only; a test/ that does not fit must show before the search, not after."""
    if other is None or set(train) == set(other):
        return
    alone = sorted(set(train) ^ set(other))
    here, there = (train, other) if alone[0] in train else (other, train)
    folder = here[alone[0]][0].parent
    twins = [name for name in alone if name in there and name.casefold() == alone[0].casefold()]
    if twins:
        twin = there[twins[0]][0].parent
        raise DataError(
            f"a class's names in two splits differ in case: '{alone[0]}' and '{twins[0]}'",
            where=str(twin),
            why=f"{folder} and {twin} would be two classes, each in one split only",
            fix=f"mv {_quoted(twin)} {_quoted(twin.with_name('renaming'))} && "
            f"mv {_quoted(twin.with_name('renaming'))} {_quoted(twin.with_name(alone[0]))}",
        )
    missing = next(iter(there.values()))[0].parent.with_name(alone[0])
    raise DataError(
        f"{len(alone)} classes are in one split only: {', '.join(alone[:3])}",
        where=str(missing),
        why=f"{folder} holds {len(here[alone[0]])} images, and there is no {missing}",
        fix=f"mkdir {_quoted(missing)}   and put images there, or remove {_quoted(folder)}",
    )


def _check_folder(root: Path) -> None:
    if root.is_dir():
        return
    packed = root.is_file() and (zipfile.is_zipfile(root) or tarfile.is_tarfile(root))
    target = root.with_name(root.name.split(".")[0] + "-unpacked")
    # Python's own tarfile would also write outside of the target
    unpack = f"python -m {'zipfile' if zipfile.is_zipfile(root) else 'tarfile --filter data'} -e"
    raise DataError(
        f"this is {'an archive' if packed else 'a file'}, not a folder of images",
        where=str(root),
        why=f"it is one file of {root.stat().st_size:,} bytes",
        fix=f"{unpack} {_quoted(root)} {_quoted(target)}   then --data {_quoted(target)}"
        if packed
        else _holding(root),
    )


def _holding(file: Path) -> str:
    """What to do with a file of a folder of images: take the folder that its class lies in."""
    splits = {"train", "test", *VALIDATION_NAMES}
    for above in file.parents:
        with suppress(DataError):
            if sum(bool(_images(inside)) for inside in subfolders(above)) > 1:
                whole = above.parent if above.name.casefold() in splits else above
                return f"--data {_quoted(whole)}"
    return _two_classes(file.parent)


def subfolders(parent: Path) -> list[Path]:
    """In order of names. Raises DataError for names that differ in nothing but case."""
    folders = [entry for entry in entries(parent) if entry.is_dir()]
    seen: dict[str, Path] = {}
    for folder in folders:
        twin = seen.setdefault(folder.name.casefold(), folder)
        if twin is not folder:
            raise DataError(
                f"two folders differ only in case: '{twin.name}' and '{folder.name}'",
                where=str(parent),
                why="they would be two classes here, and one on Windows and macOS",
                fix=f"mv -n {_quoted(folder)}/* {_quoted(twin)}/ && rmdir {_quoted(folder)}",
            )
    return folders


def _images(folder: Path) -> list[Path]:
    # a broken link is no folder either: it is kept, and reported when it cannot be read
    return [p for p in entries(folder) if p.suffix.lower() in SUFFIXES and not p.is_dir()]


def entries(folder: Path) -> list[Path]:
    """What lies in it by name, but what is hidden. Raises DataError if it cannot be listed."""
    try:
        found = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise _closed("this folder", folder, error, inside=folder) from error
    return sorted(found, key=lambda path: path.name)


def _closed(what: str, path: Path, error: OSError, *, inside: Path) -> DataError:
    return DataError(
        f"{what} cannot be read",
        where=str(path),
        why=str(error.strerror),
        fix=f"chmod -R u+rX {_quoted(inside)}",
    )


def _listed(folders: list[Path]) -> str:
    return ", ".join(folder.name for folder in folders[:3]) + (", ..." if len(folders) > 3 else "")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
