"""What data check finds: each fault planted once, found once, and nothing in sound data."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasfuse.data.checking import Survey, survey
from nasfuse.data.load import load_test
from nasfuse.errors import DataError

SIDE = 32


def save(path: Path, *, seed: int, size: tuple[int, int] = (20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0]), np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, divided, with enough different images of each."""
    root = tmp_path / "photos"
    for place, part in enumerate(("train/a", "train/b", "val/a", "val/b")):
        for number in range(12):
            save(root / part / f"{number}.png", seed=100 * place + number)
    return root


def check(root: Path, *, skip_bad: int = 0) -> Survey:
    return survey(str(root), side=SIDE, skip_bad=skip_bad)


def test_sound_images_have_no_findings(photos: Path) -> None:
    found = check(photos)
    assert found.findings == ()
    assert found.usable
    assert found.classes == ("a", "b")
    assert found.counts == {"train": (12, 12), "validation": (12, 12)}
    assert found.shape == (1, SIDE, SIDE)
    assert found.fingerprint is not None


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    Image.new("1", (8000, 7000)).save(path)


def tarred(root: Path) -> None:
    with tarfile.open(root.with_name("x"), "w") as archive:
        archive.add(root, "photos")
    shutil.rmtree(root)
    root.with_name("x").rename(root)


def zipped(root: Path) -> None:
    with zipfile.ZipFile(root.with_name("x"), "w") as archive:
        archive.write(root / "train/a/0.png", "photos/train/a/0.png")
    shutil.rmtree(root)
    root.with_name("x").rename(root)


def copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / source, root / target)


def thin(root: Path) -> None:
    for number in range(5):
        (root / f"val/a/{number}.png").unlink()


def grow(root: Path) -> None:
    for number in range(250):
        save(root / f"train/b/more{number}.png", seed=1000 + number)


def move(root: Path) -> None:
    generator = np.random.default_rng(99)
    frames = [Image.fromarray(generator.integers(0, 255, (24, 20), np.uint8)) for _ in range(2)]
    frames[0].save(root / "train/a/x.gif", save_all=True, append_images=frames[1:])


def shallow(root: Path) -> None:
    values = np.random.default_rng(9).integers(0, 4096, (24, 20), np.uint16)
    Image.fromarray(values).save(root / "train/a/x.png")


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda root: half(root / "train/a/3.png"), "1 of 48 images cannot be read"),
    "web page": (lambda r: (r / "val/b/1.png").write_text("<html>no</html>"), "a web page"),
    "bomb": (lambda root: bomb(root / "train/b/x.png"), "the limit is 50 million"),
    "empty class": (lambda root: (root / "train/c").mkdir(), "1 of 3 classes have no images: c"),
    "one class": (lambda root: shutil.rmtree(root / "train/b"), "'a' is the only class"),
    "class missing": (lambda r: save(r / "train/c/x.png", seed=9), "in one split only: c"),
    "zip": (zipped, "this is an archive"),
    "tar": (tarred, "this is an archive"),
    "leak": (copy("train/a/3.png", "val/a/copy.png"), "the same image in several splits: 1"),
    "two labels": (copy("train/a/3.png", "train/b/x.png"), "the same image in several classes: 1"),
}


@pytest.mark.parametrize(("plant", "said"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_found_once(photos: Path, plant: Callable[[Path], object], said: str) -> None:
    plant(photos)
    found = check(photos)
    errors = [finding for finding in found.findings if finding.level == "error"]
    assert len(errors) == 1
    assert said in f"{errors[0].what} {errors[0].why}"
    assert errors[0].where
    assert errors[0].fix
    assert not found.usable


def test_names_that_differ_in_case(photos: Path) -> None:
    save(photos / "train/A/x.png", seed=9)
    if len(os.listdir(photos / "train")) < 3:
        pytest.skip("this file system takes the two for one")
    assert "differ only in case: 'A' and 'a'" in check(photos).findings[0].what


WARNINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tiny": (lambda r: save(r / "train/a/x.png", seed=9, size=(15, 15)), "smaller than 16"),
    "huge": (lambda r: save(r / "train/a/x.png", seed=9, size=(5000, 4001)), "over 20 million"),
    "long": (lambda r: save(r / "train/a/x.png", seed=9, size=(20, 61)), "over 3 times the other"),
    "other names": (
        lambda r: (r / "train/a/x.heic").write_text(""),
        "files left out, as their names are not those of images: 1",
    ),
    "nested": (lambda r: save(r / "train/a/in/x.png", seed=9), "are not looked into"),
    "copy": (copy("train/a/3.png", "train/a/copy.png"), "the same image several times: 1"),
    "imbalance": (grow, "class 'b' has 22 times as many images as 'a'"),
    "moving": (move, "moving pictures: 1"),
    "shallow": (shallow, "16-bit images without a value above 4095: 1"),
    "beside the classes": (
        lambda r: save(r / "train/x.png", seed=9),
        "folders and images that belong to no class: 1",
    ),
    "beside the splits": (
        lambda r: save(r / "extra/a/x.png", seed=9),
        "folders and images that belong to no class: 1",
    ),
    "flat test": (lambda r: save(r / "test/x.png", seed=9), "that belong to no class: 1"),
    "few": (thin, "fewer than 10 images"),
}


@pytest.mark.parametrize(("plant", "said"), WARNINGS.values(), ids=WARNINGS)
def test_a_warning_is_found_once(photos: Path, plant: Callable[[Path], object], said: str) -> None:
    plant(photos)
    found = check(photos)
    assert [finding.level for finding in found.findings] == ["warning"]
    assert said in found.findings[0].what
    assert found.usable


def test_a_split_that_counts_as_a_class_is_told(photos: Path) -> None:
    """Two classes and a test/ of images without classes, as competitions have it."""
    root = photos / "train"
    for number in range(60):
        save(root / f"test/{number}.png", seed=5000 + number)
        for name in "ab":
            save(root / f"{name}/{number}.png", seed=7000 + 100 * "ab".index(name) + number)
    found = check(root)
    assert found.classes == ("a", "b", "test")
    assert [finding.what for finding in found.findings] == ["'test' counts as a class"]


def test_unreadable_files_are_listed_and_may_be_allowed(photos: Path) -> None:
    save(photos / "test/a/x.png", seed=907)
    save(photos / "test/b/x.png", seed=908)
    half(photos / "test/b/x.png")
    (photos / "train/a/0.png").write_text("<html>")
    assert [finding.level for finding in check(photos, skip_bad=1).findings] == ["error"]
    found = check(photos, skip_bad=2)
    assert found.usable
    assert list(found.unreadable) == [str(photos / "test/b/x.png"), str(photos / "train/a/0.png")]
    assert found.counts["train"] == (11, 12)
    assert found.counts["test"] == (1, 0)


def test_the_same_pixels_in_another_format(photos: Path) -> None:
    with Image.open(photos / "train/a/3.png") as image:
        image.save(photos / "val/a/other.bmp")
    what = check(photos).findings[0]
    assert what.level == "error"
    assert {"3.png", "other.bmp"} == {Path(what.where).name, what.why.split(";")[0].split("/")[-1]}


def test_all_copies_are_listed(photos: Path) -> None:
    for number in (3, 5):
        shutil.copy(photos / f"train/a/{number}.png", photos / f"train/a/copy{number}.png")
    groups = [sorted(Path(name).name for name in group) for group in check(photos).repeated]
    assert sorted(groups) == [["3.png", "copy3.png"], ["5.png", "copy5.png"]]


def test_arrays_are_checked_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (200, 8, 8), np.uint8)
    labels = np.arange(200) % 2
    test = {"test_images": images[:1], "test_labels": labels[:1]}
    np.savez(tmp_path / "x.npz", allow_pickle=False, images=images, labels=labels, **test)
    found = check(tmp_path / "x.npz")
    assert [finding.what for finding in found.findings] == ["the same image in several splits: 1"]
    test = {"test_images": images[:4], "test_labels": np.array([0, 1, -1, 1])}
    np.savez(tmp_path / "x.npz", allow_pickle=False, images=images, labels=labels, **test)
    with pytest.raises(DataError, match="no class: -1"):
        load_test(str(tmp_path / "x.npz"), side=8)
    assert "no class: -1" in check(tmp_path / "x.npz").findings[0].what
    np.savez(tmp_path / "x.npz", images=images)
    assert "no 'labels'" in check(tmp_path / "x.npz").findings[0].why


def test_what_does_not_exist_is_raised() -> None:
    with pytest.raises(DataError, match="did you mean 'sample'"):
        survey("smaple", side=SIDE)


def test_fixes_are_commands_that_check(photos: Path) -> None:
    (finding,) = check(photos.parent).findings
    assert finding.fix == f"nasfuse data check {photos}"
