"""Layouts of folders of images, and what can be wrong with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasfuse.data.dataset import Dataset, Split
from nasfuse.data.load import load_dataset, load_test
from nasfuse.errors import DataError

SIDE = 8


def load(root: Path, *, seed: int = 0) -> Dataset:
    return load_dataset(str(root), side=SIDE, seed=seed)


def save(path: Path, image: Image.Image | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("L", (10, 10), 7)).save(path)


def fill(root: Path, *names: str, count: int = 5) -> Path:
    """Grey images, each of its own shade, in a folder for each name."""
    for place, name in enumerate(names):
        for number in range(count):
            shade = 40 * place + number
            save(root / name / f"{number}.png", Image.new("L", (12, 10), shade))
    return root


def shades(split: Split) -> list[int]:
    return sorted(int(shade) for shade in split.images[:, 0, 0, 0])


def test_held_out_by_seed(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", "Ape", count=10)
    save(tmp_path / ".hidden" / "x.png")
    save(tmp_path / "__MACOSX" / "cat" / "x.png")
    save(tmp_path / "cat" / "._0.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    one = load(tmp_path)
    assert one.classes == ("Ape", "cat", "dog")
    assert one.name == tmp_path.name
    assert np.bincount(one.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(one.validation.labels).tolist() == [2, 2, 2]
    assert sorted(shades(one.train) + shades(one.validation)) == [
        40 * place + number for place in range(3) for number in range(10)
    ]
    assert load(tmp_path).fingerprint == one.fingerprint
    assert load(tmp_path, seed=1).fingerprint != one.fingerprint
    assert load_test(str(tmp_path), side=SIDE) is None


def test_labels_belong_to_their_images(tmp_path: Path) -> None:
    dataset = load(fill(tmp_path, "a", "b", "c", count=10))
    for split in (dataset.train, dataset.validation):
        assert (split.images[:, 0, 0, 0] // 40 == split.labels).all()
    assert dataset.train.labels.tolist() != sorted(dataset.train.labels.tolist())


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_own_validation_and_test(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "train/a", "train/b", count=4)
    fill(tmp_path, f"{name}/a", f"{name}/b", count=2)
    fill(tmp_path, "test/a", "test/b", count=3)
    (tmp_path / "annotations").mkdir()
    dataset, test = load(tmp_path), load_test(str(tmp_path), side=SIDE)
    assert test is not None
    assert (len(dataset.train), len(dataset.validation), len(test)) == (8, 4, 6)
    assert load(tmp_path, seed=9).fingerprint == dataset.fingerprint


def test_train_and_test_alone(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "test/a", "test/b", count=5)
    dataset, test = load(tmp_path), load_test(str(tmp_path), side=SIDE)
    assert test is not None
    assert (len(dataset.train), len(dataset.validation), len(test)) == (8, 2, 10)


def test_a_class_called_train(tmp_path: Path) -> None:
    assert load(fill(tmp_path, "bus", "train")).classes == ("bus", "train")


def test_test_has_the_channels_of_train(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "test/a", "test/b")
    save(tmp_path / "test" / "a" / "colour.png", Image.new("RGB", (9, 9), "red"))
    test = load_test(str(tmp_path), side=SIDE)
    assert test is not None
    assert test.images.shape == (11, 1, SIDE, SIDE)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("I;16", 1), ("RGB", 3), ("P", 3)])
def test_grey_only_if_every_image_is(tmp_path: Path, mode: str, channels: int) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b")
    save(tmp_path / "val" / "b" / "x.png", Image.new(mode, (9, 9), 5))
    assert load(tmp_path).channels == channels


def test_unreadable_files_of_all_splits_are_told_at_once(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b")
    for name in ("train/a", "train/b", "val/b"):
        (tmp_path / name / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 of 20 images cannot be read"):
        load(tmp_path)


def test_empty_class(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="1 of 3 classes have no images: c"):
        load(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' is the only class"):
        load(fill(tmp_path, "a"))


def test_one_folder_too_high(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(fill(tmp_path, "inner/a", "inner/b"))
    assert caught.value.fix == f"--data {tmp_path / 'inner'}"


def test_images_without_classes(tmp_path: Path) -> None:
    save(tmp_path / "x.png")
    with pytest.raises(DataError, match="there are no classes") as caught:
        load(tmp_path)
    subprocess.run(caught.value.fix.split("   ")[0], shell=True, check=True)
    made = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert load(fill(tmp_path, *made)).classes == ("another_class", "one_class")


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_file_of_a_class_is_not_the_class(tmp_path: Path, prefix: str) -> None:
    root = fill(tmp_path / "photos", f"{prefix}a", f"{prefix}b")
    with pytest.raises(DataError, match="a file, not a folder") as caught:
        load(root / prefix / "a" / "0.png")
    assert caught.value.fix == f"--data {root}"


def test_splits_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no classes"):
        load(fill(tmp_path, "train", "test"))


def test_class_of_one_image(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    save(tmp_path / "c" / "x.png")
    with pytest.raises(DataError, match="1 of 3 classes have one image only: c"):
        load(tmp_path)


def test_case_clash(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", "Cat")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes the two for one")
    with pytest.raises(DataError, match="differ only in case: 'Cat' and 'cat'"):
        load(tmp_path)


@pytest.mark.parametrize("lacking", ["train/b", "val/b", "test/b"])
def test_class_in_one_split_only(tmp_path: Path, lacking: str) -> None:
    parts = [f"{split}/{name}" for split in ("train", "val", "test") for name in "abc"]
    fill(tmp_path, *parts, count=1)
    shutil.rmtree(tmp_path / lacking)
    with pytest.raises(DataError, match="1 classes are in one split only: b") as caught:
        load(tmp_path)
    assert caught.value.where == str(tmp_path / lacking)


def test_two_folders_for_validation(tmp_path: Path) -> None:
    names = [f"{split}/{name}" for split in ("train", "val", "valid") for name in "ab"]
    with pytest.raises(DataError, match="2 folders for validation"):
        load(fill(tmp_path, *names))


def test_archives_and_files(tmp_path: Path) -> None:
    archive, text = tmp_path / "images.zip", tmp_path / "notes.txt"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("a/x.png", b"")
    text.write_text("hello")
    tar = Path(shutil.make_archive(str(tmp_path / "more"), "gztar", tmp_path, "notes.txt"))
    for path, said in ((archive, "an archive"), (tar, "an archive"), (text, "a file")):
        with pytest.raises(DataError, match=f"{said}, not a folder") as caught:
            load(path)
        if said == "an archive":
            command = caught.value.fix.split("   ")[0].replace("python ", f"{sys.executable} ")
            subprocess.run(command, shell=True, check=True)
            assert list((tmp_path / f"{path.name.split('.')[0]}-unpacked").rglob("*.*"))


def spoil(root: Path, *names: str) -> None:
    for name in names:
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("lost", [["a/0.png"], ["a/0.png", "b/4.png", "a/3.png"]])
def test_as_many_as_may_be_bad_are_left_out(tmp_path: Path, lost: list[str]) -> None:
    fill(tmp_path, "a", "b", count=10)
    spoil(tmp_path, *lost)
    with pytest.raises(DataError, match=f"{len(lost)} of 20") as caught:
        load(tmp_path)
    assert f"--skip-bad {len(lost)} " in caught.value.fix
    for _ in range(2):  # decoded, then from the cache
        dataset = load_dataset(str(tmp_path), side=SIDE, skip_bad=len(lost))
        found = sorted(shades(dataset.train) + shades(dataset.validation))
        missing = {40 * "ab".index(name[0]) + int(name[2]) for name in lost}
        assert found == sorted({*range(10), *range(40, 50)} - missing)
        for split in (dataset.train, dataset.validation):
            assert (split.images[:, 0, 0, 0] // 40 == split.labels).all()


def test_test_images_may_be_bad_too(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "test/a", "test/b")
    spoil(tmp_path, "test/b/0.png")
    with pytest.raises(DataError, match="1 of 10 images"):
        load_test(str(tmp_path), side=SIDE)
    test = load_test(str(tmp_path), side=SIDE, skip_bad=1)
    assert test is not None
    assert len(test) == len(test.labels) == 9


def test_nothing_is_left_of_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b", count=2)
    spoil(tmp_path, "train/b/0.png", "train/b/1.png")
    with pytest.raises(DataError, match="1 of 2 classes have no image in train"):
        load_dataset(str(tmp_path), side=SIDE, skip_bad=2)


def test_names_in_two_splits_that_differ_in_case(tmp_path: Path) -> None:
    fill(tmp_path, "train/Cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(DataError, match="differ in case: 'Cat' and 'cat'") as caught:
        load(tmp_path)
    subprocess.run(caught.value.fix, shell=True, check=True)
    assert load(tmp_path).classes == ("Cat", "dog")


def test_what_cannot_be_read_is_moved_out_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "photos"
    fill(root, "a", "b", count=10)
    spoil(root, "a/0.png")
    monkeypatch.chdir(root)
    with pytest.raises(DataError, match="1 of 20 images") as caught:
        load(Path())
    subprocess.run(caught.value.fix.split("or ")[1], shell=True, check=True)
    assert load(Path()).classes == ("a", "b")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    fill(tmp_path / "photos", "a", "b")
    strange = os.fsencode(tmp_path / "photos") + b"/caf\xe9"
    os.rename(tmp_path / "photos" / "a", strange)
    for root in (tmp_path / "photos", Path(os.fsdecode(strange))):
        with pytest.raises(DataError, match="is not UTF-8") as caught:
            load_dataset(str(root), side=SIDE)
        assert caught.value.where.endswith("caf\\xe9")


@pytest.fixture
def photos() -> Iterator[Path]:
    """A folder that other users may enter, as those of pytest may not be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="needs another user")
@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_missing_rights_are_of_the_data(photos: Path, mode: int) -> None:
    """As another user: nothing is refused to root."""
    fill(photos, "a", "b")
    shutil.make_archive(str(photos / "b" / "packed"), "zip", photos / "a")
    code = (
        "import os, sys, pathlib; from nasfuse.data import folder; from nasfuse.errors import "
        "DataError; os.chdir('/'); os.setgid(65534); os.setuid(65534)\n"
        "for name in sys.argv[1:]:\n"
        "    try: folder.scan(pathlib.Path(name)); print('read')\n"
        "    except DataError as error: print(error.what)"
    )
    (photos / "a").chmod(mode)
    (photos / "b" / "packed.zip").chmod(0)
    asked = [str(photos), str(photos / "b" / "packed.zip")]
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False
    )
    (photos / "a").chmod(0o755)
    first, second = done.stdout.splitlines()
    assert "cannot be read" in first
    assert "cannot be read" in second


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a", "b")
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DataError, match="this folder cannot be read") as caught:
        load(tmp_path)
    assert (caught.value.where, caught.value.why) == (str(tmp_path / "b"), "Permission denied")
