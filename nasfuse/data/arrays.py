"""Images that are arrays already: in a `.npz` file, or returned by a function of the user's.

Both give `images` and `labels`; and, if they like, `classes`, `validation_images` and
`validation_labels` (else a fifth is held out), `test_images` and `test_labels`. Images are uint8,
(n, height, width) or with 1 or 3 channels before or after height and width; of those that are not
square the middle is used. Labels are numbers or names of classes.

A function is called without arguments and returns a mapping:

    # shapes.py, in the working folder or installed;  nasfuse search --data shapes:make ...
    import numpy as np

    def make():
        generator = np.random.default_rng(0)
        labels = np.arange(1000) % 2
        images = generator.integers(0, 100, (1000, 32, 32), dtype=np.uint8)
        images[labels == 1, 8:24, 8:24] += 100
        return {"images": images, "labels": labels, "classes": ["noise", "square"]}

It runs because its name was typed; no file that nasfuse reads can name one to be run.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasfuse.data.dataset import Dataset, Split, assemble, divide, draw
from nasfuse.errors import DataError
from nasfuse.names import nearest

VALIDATION_SHARE = 0.2
OPTIONAL = ("classes", "validation_images", "validation_labels", "test_images", "test_labels")
NAMES = ("images", "labels", *OPTIONAL)
MAX_CLASSES = 100_000
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Arrays = Mapping[str, Any]


def is_function(source: str) -> bool:
    """Whether this is module:function, and not a path."""
    return _FUNCTION.fullmatch(source) is not None


def load(source: str, *, seed: int) -> Dataset:
    """Training and validation images of module:function or of a `.npz` file.

    Raises DataError for a function that fails and for arrays that cannot be used.
    """
    arrays = _arrays(source, test=False)
    classes, labels = _labels(source, arrays)
    whole = Split(_images(source, arrays, "images"), labels)
    if "validation_images" in arrays:
        train, validation = whole, _part(source, arrays, "validation", classes)
    else:
        order = np.random.default_rng(0).permutation(len(whole))
        _check_length(source, whole)
        mixed = Split(whole.images[order], labels[order])
        chosen = draw(mixed.labels, lambda size: max(1, round(VALIDATION_SHARE * size)), seed=seed)
        validation, train = divide(mixed, chosen)
    return assemble(title(source), classes, train=train, validation=validation)


def load_test(source: str) -> Split | None:
    """The test images, None where there are none. Raises as `load` does."""
    arrays = _arrays(source, test=True)
    if "test_images" not in arrays:
        return None
    return _part(source, arrays, "test", _labels(source, arrays)[0])


def title(source: str) -> str:
    """What a data set, and a study of it, are called."""
    return source.replace(":", "-") if is_function(source) else Path(source).stem


def _arrays(source: str, *, test: bool) -> Arrays:
    if is_function(source):
        return _called(source)
    without = {"images", "validation_images"} if test else {"test_images"}
    return _read(Path(source), set(NAMES) - without)


def _called(source: str) -> Arrays:
    module, _, name = source.partition(":")
    try:
        with _importing_from(os.getcwd()):
            imported = importlib.import_module(module)
            found = getattr(imported, name)() if hasattr(imported, name) else None
    except (Exception, SystemExit) as error:  # whatever it is, it is the user's own code
        raise _failed(module, name, error) from error
    if not hasattr(imported, name):
        near = difflib.get_close_matches(name, dir(imported), 1)
        raise DataError(
            f"there is no function '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""),
            where=str(getattr(imported, "__file__", module)),
            why=f"module {module} does not have it",
            fix=f"--data {module}:{near[0]}" if near else f"def {name}():   in that file",
        )
    if not isinstance(found, Mapping):
        raise _unusable(
            source, f"{source} returned no mapping", f"it returned a {type(found).__name__}"
        )
    _check_names(source, list(found))
    return found


def _failed(module: str, name: str, error: BaseException) -> DataError:
    """That there is no such module, or where it broke down."""
    what, kind = f"{module}:{name} failed", type(error).__name__
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        near = nearest(module, [path.stem for path in Path.cwd().glob("*.py")])
        return DataError(
            what,
            where=os.getcwd(),
            why=f"{kind}: there is no module '{error.name}' in this folder, and none is installed",
            fix=f"--data {near}:{name}" if near else f"cd FOLDER   where {module}.py is",
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = error if isinstance(error, SyntaxError) else last  # which Python's own code finds
    return DataError(
        what,
        where=f"{place.filename}, line {place.lineno}",
        why=f"{kind}: {error}",
        fix=f'python -c "import {module}; {module}.{name}()"   shows the whole of it',
    )


def _check_names(source: str, names: Sequence[str]) -> None:
    """None that is not known, and would be passed over; of validation and test both or neither."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise _unusable(
            source, f"'{unknown[0]}' is not known here", f"the names are {', '.join(NAMES)}"
        )
    for part in ("validation", "test"):
        missing = {f"{part}_images", f"{part}_labels"} - set(names)
        if len(missing) == 1:
            raise _unusable(
                source, f"there are no '{missing.pop()}'", f"there are only {', '.join(names)}"
            )


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """As `python -m` does for the working folder, and an installed command does not."""
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before


def _read(path: Path, wanted: set[str]) -> Arrays:
    """These arrays of a file; no pickles, and nothing larger than it says and memory holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = {"images", "labels"} & wanted - set(inside)
            if missing:
                raise ValueError(f"it has no '{min(missing)}', only {', '.join(inside)}")
            _check_names(str(path), list(inside))
            chosen = {name: inside[name] for name in NAMES if name in wanted and name in inside}
            _check_size(path, sum(info.file_size for info in chosen.values()))
            return {name: _array(archive, info) for name, info in chosen.items()}
    except DataError:
        raise
    except Exception as error:  # zipfile, its decompressors and numpy's parser have each their own
        raise DataError(
            "this file of arrays cannot be read",
            where=str(path),
            why=str(error) or type(error).__name__,
            fix="np.savez(path, images=images, labels=labels)   writes one, without objects",
        ) from error


def _check_size(path: Path, size: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise ValueError(f"its arrays take {size:,} bytes; half of the memory is {memory // 2:,}")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array, after its header has been compared with the size of the member."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{info.filename} has version {version} of the format")
        one = version == (1, 0)
        header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        expected = stream.tell() + size
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects, which are never loaded")
    if size == 0:  # numpy makes an array of the shape all the same, however long it is
        raise ValueError(f"{info.filename} is empty: {dtype.str} of shape {shape}")
    if min(shape, default=0) < 0 or expected != info.file_size:
        raise ValueError(
            f"{info.filename} has {info.file_size:,} bytes; {shape} needs {expected:,}"
        )
    with archive.open(info) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _images(source: str, arrays: Arrays, name: str) -> NDArray[np.uint8]:
    """(n, channels, side, side), of the array with channels anywhere and sides of any length."""
    images = np.asarray(_given(source, arrays, name))
    if images.dtype != np.uint8:
        raise _unusable(
            source,
            f"'{name}' are {images.dtype}, not uint8",
            "they would have to be rounded or clipped, and only you know how",
            fix="images = (images * 255).round().astype('uint8')   for values from 0 to 1",
        )
    if images.size == 0:
        raise _unusable(source, f"'{name}' are empty", f"they have the shape {images.shape}")
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 3) for axis in (1, -1))
    if first == last:
        raise _unusable(
            source,
            f"'{name}' have the shape {images.shape}",
            "it must be (n, height, width), or have an axis of 1 or 3 channels as second or last",
        )
    images = images if first else images.transpose(0, 3, 1, 2)
    side = min(images.shape[2:])
    top, left = ((size - side) // 2 for size in images.shape[2:])
    return np.ascontiguousarray(images[:, :, top : top + side, left : left + side])


def _labels(source: str, arrays: Arrays) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Classes and labels: as `classes` names them, else those that occur, in their order."""
    labels = _words(source, arrays, "labels", "one for each image")
    named = _words(source, arrays, "classes", "one for each class") if "classes" in arrays else None
    found = [str(value) for value in (np.unique(labels) if named is None else named)]
    if len(found) > MAX_CLASSES or len(set(found)) < len(found):
        raise _unusable(
            source, "the classes are too many or not distinct", f"there are {len(found)}"
        )
    return tuple(found), _numbered(source, labels, found, by_name=named is None)


def _words(source: str, arrays: Arrays, name: str, many: str) -> NDArray[Any]:
    """Whole numbers or names, in a row."""
    words = np.asarray(_given(source, arrays, name))
    if words.ndim != 1 or words.dtype.kind not in "iuU":
        raise _unusable(
            source,
            f"'{name}' are {words.dtype} of shape {words.shape}",
            f"they must be whole numbers or names, {many}",
            fix=f"{name} = np.array({name}).astype(str).ravel()   for names",
        )
    return words


def _numbered(
    source: str, labels: NDArray[Any], classes: list[str], *, by_name: bool
) -> NDArray[np.int64]:
    """Labels as numbers of classes, which names always are looked up for."""
    if labels.dtype.kind != "U" and not by_name:
        return labels.astype(np.int64)
    number = {name: index for index, name in enumerate(classes)}
    values, inverse = np.unique(labels, return_inverse=True)
    unknown = [str(value) for value in values if str(value) not in number]
    if unknown:
        raise _unusable(
            source,
            f"{len(unknown)} labels are no class: {', '.join(unknown[:3])}",
            f"the classes are {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}",
        )
    return np.array([number[str(value)] for value in values], np.int64)[inverse]


def _part(source: str, arrays: Arrays, name: str, classes: tuple[str, ...]) -> Split:
    """validation_... or test_..., with labels as those of the training images."""
    images = _images(source, arrays, f"{name}_images")
    labels = _words(source, arrays, f"{name}_labels", "one for each image")
    numbered = _numbered(source, labels, list(classes), by_name="classes" not in arrays)
    part = Split(images, numbered)
    _check_length(source, part)
    return part


def _check_length(source: str, split: Split) -> None:
    if split.labels.shape != split.images.shape[:1]:
        raise _unusable(
            source,
            "images and labels do not fit together",
            f"there are {len(split.images)} images and labels of shape {split.labels.shape}",
        )


def _given(source: str, arrays: Arrays, name: str) -> Any:
    if name not in arrays:
        raise _unusable(
            source, f"there are no '{name}'", f"there are only {', '.join(arrays) or 'no arrays'}"
        )
    return arrays[name]


def _unusable(source: str, what: str, why: str, *, fix: str = "") -> DataError:
    example = "np.savez(path, images=images, labels=labels)   with uint8 images"
    return DataError(what, where=source, why=why, fix=fix or example)
