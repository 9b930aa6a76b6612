"""Which JPEG files are plain: told by their markers, and never of another size than Pillow's."""

import io
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.datasets.decoding.jpeg import Stored, plain_jpeg
from egapipe.pipeline.errors import ImageError

NOISE = np.random.default_rng(0).integers(0, 256, (41, 30, 3), np.uint8)


def encoded(mode: str = "RGB", kind: str = "jpeg", orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


PLAIN = [
    {},
    {"mode": "L"},
    {"progressive": True},
    {"mode": "L", "progressive": True},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"optimize": True, "quality": 30},
    {"restart_marker_blocks": 2},
    {"comment": b"\xff\xd9\xff\xda"},
]


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_what_cameras_and_libraries_write_is_plain(options: dict[str, Any]) -> None:
    data = encoded(**options)
    plain = plain_jpeg(data)
    assert plain is not None
    assert plain.stored == Stored(41, 30, 1)
    assert np.array_equal(np.asarray(decode(plain.data)), np.asarray(decode(data)))
    # What follows the image is no part of it.
    assert plain_jpeg(data + b"\0" * 99 + data) == plain
    assert plain_jpeg(plain.data) == plain


@pytest.mark.parametrize("orientation", range(10))
def test_it_is_upright_as_pillow_has_it(orientation: int) -> None:
    data = encoded(orientation=orientation)
    plain, image = plain_jpeg(data), decode(data)
    assert plain is not None
    assert plain.stored.upright == (image.height, image.width)
    assert plain.stored.orientation == (orientation if 1 <= orientation <= 8 else 1)
    # So that nobody turns it twice.
    assert (decode(plain.data).height, decode(plain.data).width) == (41, 30)


def test_other_files_and_other_colours_are_not() -> None:
    data = encoded()
    others = [
        *(encoded(kind=kind) for kind in ("png", "webp", "tiff")),
        encoded(mode="CMYK"),
        encoded(keep_rgb=True),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        data[:-2],
        data[: len(data) // 2],
        data[: len(data) // 2] + data[-2:].replace(b"\xd9", b"\xc1"),
        # Extended and arithmetic frames, 12 bits, a component sampled otherwise, no height yet.
        *(_frame(data, 1, bytes([marker])) for marker in (0xC1, 0xC9, 0xC3)),
        _frame(data, 4, b"\x0c"),
        _frame(data, 5, b"\0\0"),
        _frame(data, 11, b"\x31"),
        _frame(data, 14, b"\x21"),
        _frame(data, 9, b"\2"),
    ]
    assert [plain_jpeg(other) for other in others] == [None] * len(others)


def test_colours_are_as_adobe_says() -> None:
    data = encoded()
    assert plain_jpeg(_with_adobe(data, 1)) is not None
    assert plain_jpeg(_with_adobe(data, 0)) is None
    grey = encoded("L")
    assert plain_jpeg(_with_adobe(grey, 0)) is not None
    bare = data.replace(b"JFIF", b"ABCD", 1)
    assert plain_jpeg(bare) is not None
    assert plain_jpeg(_frame(_frame(_frame(bare, 10, b"R"), 13, b"G"), 16, b"B")) is None


def _frame(data: bytes, offset: int, new: bytes) -> bytes:
    place = data.index(b"\xff\xc0\x00\x11") + offset
    return data[:place] + new + data[place + len(new) :]


def _with_adobe(data: bytes, transform: int) -> bytes:
    return data[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + data[2:]


@given(
    st.sampled_from(PLAIN[:4]),
    st.integers(2, 10_000),
    st.integers(0, 40),
    st.binary(max_size=40),
)
def test_damage_never_makes_another_image_of_it(
    options: dict[str, Any], place: int, gone: int, new: bytes
) -> None:
    data = encoded(**options)
    place %= len(data)
    damaged = data[:place] + new + data[place + gone :]
    plain = plain_jpeg(damaged)
    if plain is None:
        return
    try:
        image = decode(damaged)
    except ImageError as error:
        with pytest.raises(ImageError, match=re.escape(str(error))):
            decode(plain.data)
        return
    assert (image.height, image.width) == plain.stored.upright
    if plain.stored.orientation == 1:
        assert np.array_equal(np.asarray(image), np.asarray(decode(plain.data)))


@given(st.binary(max_size=300))
def test_any_bytes_may_come(noise: bytes) -> None:
    assert plain_jpeg(noise) is None
    plain_jpeg(encoded()[:200] + noise)
