"""Files of pictures: what they hold, and what is refused before it is decoded."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingle.core.errors import RequestError
from ingle.media.picture import FORMATS, MOST_PIXELS, png_of, read_picture

RED = (255, 0, 0)


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def claimed(width: int, height: int) -> bytes:
    """A PNG of hardly any bytes whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format(format_: str) -> None:
    picture = read_picture(saved(Image.new("RGB", (6, 4), RED), format_))
    assert picture.pixels.shape == (4, 6, 3)
    assert picture.pixels.dtype == np.uint8
    assert np.abs(picture.pixels.reshape(-1, 3).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_every_way_of_colour(mode: str) -> None:
    grey = Image.new("RGB", (5, 5), (153, 153, 153)).convert(mode)
    format_ = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    pixels = read_picture(saved(grey, format_)).pixels.astype(int)
    assert pixels.shape == (5, 5, 3)
    if mode != "1":
        assert np.abs(pixels - 153).max() <= 3


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = read_picture(saved(Image.fromarray(ramp))).pixels
    assert np.array_equal(pixels[..., 0], (ramp >> 8).astype(np.uint8))


def test_what_is_transparent_is_white() -> None:
    assert (read_picture(saved(Image.new("RGBA", (3, 3), (0, 0, 0, 0)))).pixels == 255).all()
    paletted = Image.new("P", (3, 3), 0)
    assert (read_picture(saved(paletted, "GIF", transparency=0)).pixels == 255).all()


def test_a_turned_photograph_stands_upright_and_keeps_no_metadata() -> None:
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    exif[0x010F] = "a camera"
    picture = read_picture(saved(image, "PNG", exif=exif))
    assert picture.pixels.shape == (8, 4, 3)
    assert tuple(picture.pixels[0, 0]) == RED
    assert b"a camera" not in png_of(picture)


def test_the_same_pixels_have_the_same_digest() -> None:
    image = Image.new("RGB", (8, 4), RED)
    assert read_picture(saved(image)).digest == read_picture(saved(image, "BMP")).digest
    assert read_picture(saved(image)).digest != read_picture(saved(Image.new("RGB", (4, 8), RED))).digest


@pytest.mark.parametrize(("width", "height"), [(1, 100_000), (100_000, 1), (16_000, 16_000), (2**31 - 1, 2**31 - 1)])
def test_what_is_too_large_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(RequestError, match=r"million pixels|on a side|damaged"):
        read_picture(claimed(width, height))


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    bomb = saved(Image.new("1", (16_000, 16_000)))  # 256 million pixels in 32 kB
    assert len(bomb) < 100_000 < MOST_PIXELS["PNG"]
    tracemalloc.start()
    with pytest.raises(RequestError, match="million pixels"):
        read_picture(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_moving_pictures_are_refused() -> None:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 100, 200)]
    for format_ in ("GIF", "PNG", "WEBP"):
        with pytest.raises(RequestError, match="moves"):
            read_picture(saved(frames[0], format_, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("format_", FORMATS)
def test_no_cut_or_flipped_file_does_more_than_be_refused(format_: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    whole = saved(noise, format_)
    draw, refused = np.random.default_rng(1), 0
    for _ in range(150):
        data = bytearray(whole[: draw.integers(1, len(whole))] if draw.random() < 0.5 else whole)
        for at in draw.integers(0, len(data), 3):
            data[at] ^= 1 << draw.integers(8)
        try:
            read_picture(bytes(data))
        except RequestError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"II*\0" + b"\0" * 60],
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(RequestError, match=r"no picture|damaged"):
        read_picture(data)
