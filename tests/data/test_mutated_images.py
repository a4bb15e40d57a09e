"""Image files with random damage: each is decoded or left out, never a traceback or a hang."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nasfuse.data.checking import survey
from nasfuse.data.load import load_dataset
from nasfuse.errors import DataError

COUNT = 200
SUFFIXES = ("jpg", "png", "webp", "bmp", "gif")


def originals() -> list[bytes]:
    """Small files of every format, in the modes and with the extras that decoders differ on."""
    values = np.random.default_rng(0).integers(0, 255, (24, 28, 3), np.uint8)
    colour = Image.fromarray(values).resize((56, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    palette, clear = colour.quantize(16), colour.copy()
    clear.putalpha(colour.convert("L"))
    frames = [colour.rotate(angle) for angle in (0, 90)]
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True, "quality": 95}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("L"), "JPEG", {}),
        (colour, "PNG", {"exif": exif}),
        (palette, "PNG", {"transparency": 0}),
        (deep, "PNG", {}),
        (clear, "PNG", {}),
        (colour, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True}),
        (frames[0], "WEBP", {"save_all": True, "append_images": frames[1:]}),
        (colour, "BMP", {}),
        (palette, "BMP", {}),
        (colour.convert("1"), "BMP", {}),
        (palette, "GIF", {"transparency": 0}),
        (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
    ]
    files = []
    for image, kind, options in kinds:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        files.append(stream.getvalue())
    return files


def damaged(files: list[bytes], generator: np.random.Generator) -> bytes:
    """One of the files with one to three changes."""
    content = bytearray(files[generator.integers(len(files))])
    for _ in range(generator.integers(1, 4)):
        # most of what matters to a decoder stands in the first hundred bytes
        reach = len(content) if generator.random() < 0.5 else min(100, len(content))
        place = int(generator.integers(reach + 1))
        match generator.integers(6):
            case 0:
                for index in generator.integers(0, max(1, reach), 5):
                    content[index : index + 1] = generator.bytes(1)
            case 1:
                content[place : place + 1] = bytes([int(generator.choice([0, 0x7F, 0x80, 0xFF]))])
            case 2:
                del content[place:]
            case 3:
                content += generator.bytes(500)
            case 4:
                content[place:place] = generator.bytes(8)
            case 5:
                other = files[generator.integers(len(files))]
                content[place:] = other[place:]
    return bytes(content)


def fill(root: Path, count: int, seed: int) -> None:
    """Good and damaged files under any ending, in two classes and two splits."""
    generator, files = np.random.default_rng(seed), originals()
    for part in ("train/a", "train/b", "val/a", "val/b"):
        (root / part).mkdir(parents=True)
        (root / part / "good.png").write_bytes(files[4])
    for number in range(count):
        part = ("train/a", "train/b", "val/a", "val/b")[number % 4]
        suffix = SUFFIXES[generator.integers(len(SUFFIXES))]
        (root / part / f"{number}.{suffix}").write_bytes(damaged(files, generator))


def test_undamaged_files_are_all_read(tmp_path: Path) -> None:
    for number, content in enumerate(originals() * 4):
        path = tmp_path / ("train", "val")[number // 32] / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    dataset = load_dataset(str(tmp_path), side=16)
    assert len(dataset.train) == len(dataset.validation) == 32


def test_damaged_files_are_read_or_left_out(tmp_path: Path) -> None:
    fill(tmp_path, COUNT, seed=1)
    with pytest.raises(DataError, match="images cannot be read") as caught:
        load_dataset(str(tmp_path), side=16)
    bad = int(caught.value.what.split()[0])
    assert COUNT // 10 < bad < COUNT
    dataset = load_dataset(str(tmp_path), side=16, skip_bad=bad)
    assert len(dataset.train) + len(dataset.validation) == COUNT + 4 - bad
    found = survey(str(tmp_path), side=16, skip_bad=bad)
    assert len(found.unreadable) == bad
    assert all(found.unreadable.values()), "each with a reason"
