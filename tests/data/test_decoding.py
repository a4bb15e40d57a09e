"""Image files of every kind and in every state of repair."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from nasfuse.data.decoding import Looks, all_grey, decode, looks, unreadable
from nasfuse.errors import DataError

SIDE = 8


def read(*paths: Path) -> NDArray[np.uint8]:
    """Their pixels, in memory; raises as a folder does."""
    grey = all_grey(paths)
    pixels = np.empty((len(paths), 1 if grey else 3, SIDE, SIDE), np.uint8)
    bad, _ = decode(paths, pixels.__setitem__, side=SIDE, grey=grey)
    if bad:
        failed = {paths[index]: reason for index, reason in bad.items()}
        raise unreadable(paths[0].parent, failed, len(paths))
    return pixels


def middle(path: Path) -> list[int]:
    """The middle pixel, channel by channel."""
    values: list[int] = read(path)[0, :, SIDE // 2, SIDE // 2].tolist()
    return values


def noise(path: Path) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(values).save(path)
    return path.read_bytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG such as Pillow cannot, or had better not, write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


GREEN = (0, 128, 0)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.new("L", (9, 9), 77), "x.png", [77]),
        (Image.new("1", (9, 9), 1), "x.png", [255]),
        (Image.new("LA", (9, 9), (77, 255)), "x.png", [77]),
        (Image.new("LA", (9, 9), (77, 0)), "x.png", [255]),
        (Image.new("RGB", (9, 9), GREEN), "x.BMP", [*GREEN]),
        (Image.new("RGB", (9, 9), GREEN).quantize(4), "x.png", [*GREEN]),
        (Image.new("RGB", (9, 9), GREEN).quantize(4), "x.gif", [*GREEN]),
        (Image.new("RGBA", (9, 9), (*GREEN, 255)), "x.png", [*GREEN]),
        (Image.new("RGBA", (9, 9), (*GREEN, 0)), "x.png", [255, 255, 255]),
        (Image.new("RGBA", (9, 9), (0, 0, 0, 102)), "x.png", [153, 153, 153]),
        (Image.new("CMYK", (9, 9), (255, 0, 255, 0)), "x.jpg", [0, 255, 0]),
        (Image.new("I;16", (9, 9), 0xFFFF), "x.png", [255]),
        (Image.new("I;16", (9, 9), 0x4D80), "x.png", [0x4D]),
    ],
)
def test_modes(tmp_path: Path, image: Image.Image, name: str, expected: list[int]) -> None:
    image.save(tmp_path / name)
    found = middle(tmp_path / name)
    assert len(found) == len(expected)
    assert np.abs(np.subtract(found, expected)).max() <= 1


def test_transparent_palette_and_colour_key(tmp_path: Path) -> None:
    palette = Image.new("RGB", (9, 9), GREEN).quantize(4)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    Image.new("RGB", (9, 9), GREEN).save(tmp_path / "key.png", transparency=GREEN)
    assert middle(tmp_path / "p.png") == [255, 255, 255]
    assert middle(tmp_path / "key.png") == [255, 255, 255]


def test_sixteen_bits_a_colour(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0x1280, 0x80FF, 0xFFFF) * 9
    (tmp_path / "x.png").write_bytes(png(9, 9, depth=16, colour=2, rows=row * 9))
    assert middle(tmp_path / "x.png") == [0x12, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "x.jpg"), ("RGB", "x.webp"), ("RGB", "x.png"), ("I;16", "x.png")]
)
def test_orientation(tmp_path: Path, mode: str, name: str) -> None:
    image = Image.new(mode, (16, 16))
    white = 0xFFFF if mode == "I;16" else "white"
    image.paste(white, (0, 0, 16, 4))  # white above, black below
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / name, exif=exif)
    shown = read(tmp_path / name)[0, 0]
    assert shown[0].max() < 20
    assert shown[-1].min() > 235


def test_shorter_side_then_centre(tmp_path: Path) -> None:
    image = Image.new("L", (64, 16), 0)
    image.paste(200, (24, 0, 40, 16))  # the middle square
    image.save(tmp_path / "x.png")
    shown = read(tmp_path / "x.png")[0, 0]
    assert (shown[:, 1:-1] >= 200).all()
    assert shown.min() > 180


def test_resizing_is_smooth(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "x.png")
    assert abs(middle(tmp_path / "x.png")[0] - 128) <= 2


def test_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    image = Image.new("RGB", (900, 500), "white")
    image.paste("black", (300, 100, 600, 400))
    image.save(tmp_path / "x.jpeg")
    shown = read(tmp_path / "x.jpeg")
    assert shown[0, :, 4, 4].max() < 3
    assert shown[0, :, 0, 0].min() > 252


def test_order_is_that_of_the_paths(tmp_path: Path) -> None:
    paths = [tmp_path / f"{shade}.png" for shade in (9, 3, 200, 40)]
    for path in paths:
        Image.new("L", (9, 9), int(path.stem)).save(path)
    assert read(*paths)[:, 0, 0, 0].tolist() == [9, 3, 200, 40]


def test_unreadable_files_are_counted(tmp_path: Path) -> None:
    kept = noise(tmp_path / "good.png")
    (tmp_path / "a.png").write_bytes(kept[: len(kept) // 2])
    cut = noise(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "c.png").write_text("text")
    (tmp_path / "d.png").write_bytes(b"")
    (tmp_path / "e.png").symlink_to("nowhere")
    with pytest.raises(DataError, match="5 of 6 images cannot be read") as caught:
        read(*tmp_path.iterdir())
    assert caught.value.where == str(tmp_path)
    assert caught.value.why.count("; ") == 3
    assert caught.value.why.count("truncated") == 2
    assert "c.png: it is no JPEG" in caught.value.why
    assert "e.png" in caught.value.fix
    assert "good.png" not in caught.value.fix


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),  # and is not run
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "HEIC"),
        (b"II*\0" + b"\0" * 20, "TIFF"),
        (b"PK\x03\x04" + b"\0" * 20, "zip"),
        (b"", "empty"),
        (b"hello", "no JPEG"),
    ],
)
def test_what_a_file_is_instead(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(DataError, match="no regular file"):
        read(tmp_path / "x.png")


def test_truncated_images_are_never_filled_up() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_looks_of_what_has_a_header(tmp_path: Path) -> None:
    Image.new("L", (9, 5)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"text")
    frames = [Image.new("L", (9, 5), grey) for grey in (0, 255)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    for name, most in (("d", 4095), ("e", 4096)):
        values = np.linspace(0, most, 45).round().astype(np.uint16).reshape(5, 9)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    names = ("a.png", "b.png", "c.gif", "d.png", "e.png")
    assert looks([tmp_path / name for name in names]) == [
        Looks((9, 5), moves=False, shallow=False),
        None,
        Looks((9, 5), moves=True, shallow=False),
        Looks((9, 5), moves=False, shallow=True),
        Looks((9, 5), moves=False, shallow=False),
    ]


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_of_moving_pictures_the_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("white", "black", "black")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert middle(tmp_path / name) == [255, 255, 255]


def test_deep_grey_with_a_transparent_colour_is_refused(tmp_path: Path) -> None:
    values = np.full((9, 9), 40_000, np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=40_000)
    with pytest.raises(DataError, match="16-bit grey with a transparent colour"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(10_000, 5_001, "50 million"), (10_000, 10_000, "bomb"), (50_000, 50_000, "bomb")],
)
def test_bomb(tmp_path: Path, width: int, height: int, said: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(width, height, depth=8, colour=0, rows=b""))
    with pytest.raises(DataError, match=said):
        read(path)
