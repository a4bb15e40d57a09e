"""Survey: what is in a data set, and everything that is wrong or doubtful about it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nasfuse.data import folder
from nasfuse.data.dataset import Split, assemble, check_test
from nasfuse.data.decoding import looks, unreadable
from nasfuse.data.load import is_folder, load_dataset, load_test
from nasfuse.errors import DataError

IMBALANCE = 10  # times as many images in one class as in another
FEW = 10  # images of a class to validate with
TINY = 16  # pixels of the shorter side
HUGE = 20_000_000  # pixels
LONG = 3  # times the shorter side
SHOWN = 3
VERB = "nasfuse data check"


class Finding(NamedTuple):
    """What is wrong, or only doubtful; in the words of an error."""

    level: Literal["error", "warning"]
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Survey:
    """Images of each class in each split, and what was found; little of it where all failed.

    `unreadable` says of each file why, `repeated` which images are the same.
    """

    source: str
    classes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    fingerprint: str | None = None
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    repeated: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a search would take it and could be believed."""
        return all(finding.level != "error" for finding in self.findings)


class _Part(NamedTuple):
    """A split, and the files of its images where they have some."""

    name: str
    split: Split
    paths: list[Path]

    def shown(self, index: int) -> str:
        return str(self.paths[index]) if self.paths else f"image {index} of {self.name}"


def survey(source: str, *, side: int, seed: int = 0, skip_bad: int = 0) -> Survey:
    """Everything about a data set; `side`, `seed` and `skip_bad` are those of a search.

    Raises DataError only if there is no such data set.
    """
    try:
        of_files = is_folder(source)
    except DataError as error:
        raise error.for_verb(VERB, "--data") from None
    try:
        if of_files:
            return _survey_folder(source, side=side, seed=seed, skip_bad=skip_bad)
        dataset = load_dataset(source, side=side, seed=seed)
        parts = [_Part("train", dataset.train, []), _Part("validation", dataset.validation, [])]
    except DataError as error:
        return Survey(source, findings=(_finding(error),))
    begun = Survey(source, dataset.classes, fingerprint=dataset.fingerprint)
    try:
        test = load_test(source, side=side)
        if test is not None:
            check_test(dataset, test)
            parts.append(_Part("test", test, []))
    except DataError as error:
        begun = replace(begun, findings=(_finding(error),))
    return _survey(begun, parts)


def _survey_folder(source: str, *, side: int, seed: int, skip_bad: int) -> Survey:
    root = Path(source).expanduser()
    layout = folder.scan(root)
    files = folder.divided(layout, seed)
    found = folder.read(files, side=side)
    parts = [
        _Part(*each)
        for each in zip(("train", "validation"), found.splits, found.paths, strict=True)
    ]
    bad = dict(found.bad)
    if layout.test is not None:
        tests = folder.read([layout.test], side=side, grey=parts[0].split.images.shape[1] == 1)
        parts.append(_Part("test", tests.splits[0], tests.paths[0]))
        bad |= tests.bad
    within = {paths[0].parent for files in layout if files for paths in files.values()}
    findings = [
        *_bad(root, bad, parts, skip_bad),
        *_left_out(sorted(within)),
        *_unused(root, within),
        *_doubtful(parts),
    ]
    fingerprint, classes = None, tuple(layout.train)
    try:
        whole = assemble(root.name, classes, train=parts[0].split, validation=parts[1].split)
        fingerprint = whole.fingerprint
        if layout.test is not None:
            check_test(whole, parts[2].split)
    except DataError as error:
        findings.append(_finding(error))
    reasons = {str(path): reason for path, reason in sorted(bad.items())}
    empty = Survey(
        source, classes, fingerprint=fingerprint, unreadable=reasons, findings=tuple(findings)
    )
    return _survey(empty, parts)


def _survey(begun: Survey, parts: Sequence[_Part]) -> Survey:
    """With the counts, and what the images themselves show."""
    size = len(begun.classes)
    counts = {p.name: tuple(np.bincount(p.split.labels, minlength=size).tolist()) for p in parts}
    groups = _repetitions(parts)
    findings = (
        *begun.findings,
        *_repeated(groups),
        *_imbalance(begun.classes, counts["train"]),
        *_few(begun.classes, counts["validation"]),
    )
    return Survey(
        begun.source,
        begun.classes,
        parts[0].split.images.shape[1:],
        begun.fingerprint,
        counts,
        begun.unreadable,
        tuple(tuple(part.shown(index) for part, index in group) for group in groups),
        findings,
    )


def _finding(error: DataError) -> Finding:
    error = error.for_verb(VERB, "--data")
    return Finding("error", error.what, error.where, error.why, error.fix)


def _bad(
    root: Path, bad: dict[Path, str], parts: Sequence[_Part], skip_bad: int
) -> Iterator[Finding]:
    if bad:
        error = _finding(unreadable(root, bad, len(bad) + sum(len(part.paths) for part in parts)))
        yield error if len(bad) > skip_bad else error._replace(level="warning")


def _left_out(classes: Sequence[Path]) -> Iterator[Finding]:
    """What lies in the folders of classes and is neither an image by its name nor hidden."""
    inside = [entry for parent in classes for entry in folder.entries(parent)]
    deeper = [entry for entry in inside if entry.is_dir()]
    if deeper:
        yield Finding(
            "warning",
            f"{len(deeper)} folders inside of classes are not looked into",
            str(deeper[0]),
            "only images that lie directly in a class's folder belong to it",
        )
    others = [e for e in inside if not e.is_dir() and e.suffix.lower() not in folder.SUFFIXES]
    if others:
        kinds = Counter(entry.suffix.lower() or "none" for entry in others).most_common(SHOWN)
        yield Finding(
            "warning",
            f"files left out, as their names are not those of images: {len(others)}",
            str(others[0]),
            f"endings: {', '.join(f'{kind} ({count})' for kind, count in kinds)}; "
            f"images end in {', '.join(folder.SUFFIXES)}",
        )


def _unused(root: Path, classes: Set[Path]) -> Iterator[Finding]:
    """What lies where classes or splits do and is in none; and splits that count as a class."""
    levels = {root, *(place.parent for place in classes)}
    unused = [
        entry
        for level in sorted(levels)
        for entry in folder.entries(level)
        if entry not in levels | classes
        and (entry.is_dir() or entry.suffix.lower() in folder.SUFFIXES)
    ]
    if unused:
        yield Finding(
            "warning",
            f"folders and images that belong to no class: {len(unused)}",
            str(unused[0]),
            "they are not looked at; images lie in a folder that has their class's name",
        )
    splits = {"train", "test", *folder.VALIDATION_NAMES}
    for place in sorted(classes):
        if place.name.casefold() in splits:
            yield Finding(
                "warning",
                f"'{place.name}' counts as a class",
                str(place),
                "as a split it would hold a folder for each class",
            )


def _doubtful(parts: Sequence[_Part]) -> Iterator[Finding]:
    """Images of which less is seen than their owner may think."""
    paths = [path for part in parts for path in part.paths]
    found = [(path, look) for path, look in zip(paths, looks(paths), strict=True) if look]
    known = [(path, look.size) for path, look in found]
    tiny = [(path, size) for path, size in known if min(size) < TINY]
    huge = [(path, size) for path, size in known if size[0] * size[1] > HUGE]
    long = [(path, size) for path, size in known if max(size) > LONG * min(size)]
    moving = [(path, look.size) for path, look in found if look.moves]
    shallow = [(path, look.size) for path, look in found if look.shallow]
    for cases, what, why in (
        (moving, "moving pictures", "only their first frame is used"),
        (
            shallow,
            "16-bit images without a value above 4095",
            "they are nearly black, for the upper 8 bits are used; multiply 12-bit values by 16",
        ),
        (tiny, f"images smaller than {TINY} pixels", "they are enlarged and show little"),
        (
            huge,
            f"images of over {HUGE // 10**6} million pixels",
            "decoding takes long, the first time",
        ),
        (
            long,
            f"images with one side over {LONG} times the other",
            "only the middle square is used",
        ),
    ):
        if cases:
            path, (width, height) = cases[0]
            why = f"the first has {width} x {height}; {why}"
            yield Finding("warning", f"{what}: {len(cases)}", str(path), why)


_Group = list[tuple[_Part, int]]  # places of the same pixels


def _repetitions(parts: Sequence[_Part]) -> list[_Group]:
    seen: dict[bytes, _Group] = {}
    for part in parts:
        for index, image in enumerate(part.split.images):
            digest = hashlib.sha256(image.tobytes()).digest()
            seen.setdefault(digest, []).append((part, index))
    return [group for group in seen.values() if len(group) > 1]


def _repeated(groups: Sequence[_Group]) -> Iterator[Finding]:
    """The same pixels in two splits, under two labels, or merely twice."""
    across, labels, rest = [], [], []
    for group in groups:
        splits = {part.name for part, _ in group}
        answers = {int(part.split.labels[index]) for part, index in group}
        if len(splits) > 1:
            across.append(group)
        if len(answers) > 1:
            labels.append(group)
        if len(splits) == len(answers) == 1:
            rest.append(group)
    if across:
        yield _twice(across, "error", "in several splits", "accuracy would be too good")
    if labels:
        yield _twice(labels, "error", "in several classes", "one of the labels must be wrong")
    if rest:
        yield _twice(rest, "warning", "several times", "copies only weigh more in training")


def _twice(groups: list[_Group], level: Literal["error", "warning"], how: str, why: str) -> Finding:
    (one, first), (other, second) = groups[0][:2]
    return Finding(
        level,
        f"the same image {how}: {len(groups)}",
        one.shown(first),
        f"the first is the same as {other.shown(second)}; {why}",
        "keep one of each   (--json lists all)",
    )


def _imbalance(classes: Sequence[str], counts: Sequence[int]) -> Iterator[Finding]:
    most, least = max(counts), min(counts)
    if least and most > IMBALANCE * least:
        large, small = classes[counts.index(most)], classes[counts.index(least)]
        share = most / sum(counts)
        yield Finding(
            "warning",
            f"class '{large}' has {most / least:.0f} times as many images as '{small}'",
            "train",
            f"{most:,} and {least:,}; to answer '{large}' always is right for {share:.0%} of them",
        )


def _few(classes: Sequence[str], counts: Sequence[int]) -> Iterator[Finding]:
    few = [name for name, count in zip(classes, counts, strict=True) if count < FEW]
    if few:
        total = max(1, sum(counts))
        error = 100 * math.sqrt(0.25 / total)
        yield Finding(
            "warning",
            f"classes with fewer than {FEW} images to validate with: {len(few)}",
            f"validation: {', '.join(few[:SHOWN])}{', ...' if len(few) > SHOWN else ''}",
            f"with {total:,} in all, an accuracy near one half is known to {error:.1f} points",
        )
