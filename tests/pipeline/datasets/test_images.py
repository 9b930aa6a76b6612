import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from egapipe.pipeline.datasets.decoding.images import MAX_PIXELS, decode
from egapipe.pipeline.datasets.decoding.reading import read_bytes
from egapipe.pipeline.errors import ImageError
from tests.pipeline.datasets.samples import encode, pixels

# A busy machine may stall any example: its time is not what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

RGB = pixels(3)
HEIGHT, WIDTH = RGB.shape[:2]
ENCODED = {
    "PNG": encode(RGB, "PNG"),
    "JPEG": encode(RGB, "JPEG", quality=95),
    "WEBP": encode(RGB, "WEBP", lossless=True),
    "GIF": encode(RGB, "GIF"),
    "BMP": encode(RGB, "BMP"),
    "TIFF": encode(RGB, "TIFF"),
    "JPEG2000": encode(RGB, "JPEG2000"),
    "PPM": encode(RGB, "PPM"),
}


def rgb(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    text = str(caught.value)
    assert 0 < len(text) <= 120
    assert "\n" not in text
    return text


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "PPM"])
def test_a_lossless_file_gives_its_exact_pixels(format: str) -> None:
    np.testing.assert_array_equal(rgb(ENCODED[format]), RGB)


@pytest.mark.parametrize(("format", "tolerance"), [("JPEG", 8), ("GIF", 30)])
def test_a_lossy_file_gives_nearly_its_pixels(format: str, tolerance: int) -> None:
    difference = rgb(ENCODED[format]).astype(int) - RGB
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    assert (rgb(data) == (255, 0, 0)).all()


def test_a_telephones_two_pictures_in_one_file_give_the_first() -> None:
    """Multi-Picture Object: a JPEG file with a second one behind it."""
    data = encode(RGB, "MPO", save_all=True, append_images=[Image.fromarray(pixels(4))], quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    assert np.abs(rgb(data).astype(int) - RGB).max() <= 8


def test_grey_is_repeated_over_the_channels() -> None:
    grey = np.arange(60, dtype=np.uint8).reshape(6, 10)
    np.testing.assert_array_equal(rgb(encode(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_is_0_and_255() -> None:
    bits = np.array([[True, False, True]])
    assert rgb(encode(Image.fromarray(bits), "PNG"))[0, :, 0].tolist() == [255, 0, 255]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    grey = np.array([[0, 128, 129, 256, 32768, 65407, 65535]], dtype=np.uint16)
    expected = np.rint(grey / 257).astype(int)
    assert rgb(encode(grey, format))[0, :, 1].tolist() == expected[0].tolist()
    assert expected[0].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_grey_outside_16_bits_is_refused() -> None:
    grey = np.array([[0, 70_000]], dtype=np.int32)
    assert "16 bits" in reason(encode(grey, "TIFF"))


def test_floating_point_pixels_are_refused() -> None:
    assert "range" in reason(encode(np.zeros((2, 2), dtype=np.float32), "TIFF"))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_on_white(format: str) -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = 0, 51, 255
    seen = rgb(encode(rgba, format, lossless=True))
    # 20 % of (200, 0, 0) over 80 % of white.
    np.testing.assert_allclose(seen[0], [(255, 255, 255), (244, 204, 204), (200, 0, 0)], atol=1)


def test_grey_with_alpha_is_laid_on_white() -> None:
    grey_alpha = Image.fromarray(np.array([[[7, 0], [7, 255]]], dtype=np.uint8), "LA")
    assert rgb(encode(grey_alpha)).tolist() == [[[255] * 3, [7] * 3]]


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_is_laid_on_white(format: str) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    seen = rgb(encode(image, format, transparency=0))
    assert seen.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_an_rgb_png_with_a_transparent_colour_is_laid_on_white() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert rgb(encode(image, transparency=(1, 2, 3))).tolist() == [[[255] * 3, [4, 5, 6]]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted(format: str) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    np.testing.assert_allclose(rgb(encode(cmyk, format))[4, 4], (255, 0, 0), atol=3)


def stored_as(orientation: int) -> np.ndarray:
    """How a camera with this EXIF orientation stores RGB (TIFF 6.0, page 36: tag 274)."""
    first_row_is = {1: "T", 2: "T", 3: "B", 4: "B", 5: "L", 6: "R", 7: "R", 8: "L"}[orientation]
    first_column_is = {1: "L", 2: "R", 3: "R", 4: "L", 5: "T", 6: "T", 7: "B", 8: "B"}[orientation]
    image = RGB
    if first_row_is in "LR":
        image = image.transpose(1, 0, 2)
    if first_row_is in "BR":
        image = image[::-1]
    if first_column_is in "BR":
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored_as(orientation), format, exif=exif, quality=95, lossless=True)
    seen = rgb(data)
    assert seen.shape == RGB.shape
    assert np.abs(seen.astype(int) - RGB).max() <= 8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(rgb(encode(RGB, exif=exif)), RGB)


def test_damaged_exif_does_not_cost_the_image() -> None:
    np.testing.assert_array_equal(rgb(encode(RGB, exif=b"Exif\0\0not a TIFF header")), RGB)


@pytest.mark.parametrize("format", ENCODED)
def test_the_image_does_not_hold_on_to_its_file(format: str) -> None:
    """Whether it is a copy, or has the pixels themselves where they are RGB already."""
    image = decode(ENCODED[format])
    assert getattr(image, "fp", None) is None
    image.load()
    pixels = np.asarray(image)
    assert (np.asarray(image.crop((0, 0, *image.size))) == pixels).all()
    assert (np.asarray(image.transpose(Image.Transpose.ROTATE_180))[::-1, ::-1] == pixels).all()


def test_an_empty_file() -> None:
    assert reason(b"") == "the file is empty"


@pytest.mark.parametrize(
    "data", [b"\0", b"hello", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", b"GIF"]
)
def test_not_an_image(data: bytes) -> None:
    reason(data)


def test_formats_that_start_other_programs_are_not_opened() -> None:
    eps = encode(RGB, "EPS")
    with Image.open(io.BytesIO(eps)) as image:
        assert image.format == "EPS"
    assert reason(eps).startswith("not an image of the formats JPEG, PNG")


@pytest.mark.parametrize("format", sorted(ENCODED))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file(format: str, share: float) -> None:
    data = encode(pixels(5, (64, 64)), format)
    reason(data[: int(len(data) * share)])


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], bits: int, colours: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of raw rows, for what Pillow reads and cannot write; PNG specification, section 11."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises these pixels and whose data is a few bytes."""
    return png((width, height), 8, 2, b"\0" * 100)


def row_of_16_bits(pixels: list[tuple[int, ...]]) -> bytes:
    return b"\0" + np.array(pixels, dtype=">u2").tobytes()


def test_16_bit_colour_keeps_its_8_high_bits() -> None:
    row = row_of_16_bits([(0, 256, 65535), (32768, 255, 511)])
    assert rgb(png((2, 1), 16, 2, row)).tolist() == [[[0, 1, 255], [128, 0, 1]]]


def test_16_bit_transparency_is_laid_on_white() -> None:
    colour = row_of_16_bits([(65535, 0, 0, 0), (65535, 0, 0, 65535)])
    assert rgb(png((2, 1), 16, 6, colour)).tolist() == [[[255] * 3, [255, 0, 0]]]
    grey = row_of_16_bits([(0, 0), (0, 65535)])
    assert rgb(png((2, 1), 16, 4, grey)).tolist() == [[[255] * 3, [0] * 3]]


def test_a_transparent_grey_level_of_16_bits_is_laid_on_white() -> None:
    """Levels that are the same in 8 bits are still two levels."""
    row = row_of_16_bits([(256,), (257,), (0,)])
    clear = chunk(b"tRNS", struct.pack(">H", 256))
    assert rgb(png((3, 1), 16, 0, row, clear))[0, :, 0].tolist() == [255, 1, 0]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 9_000), (20_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS
    assert "bomb" in reason(bomb(*size))


def test_a_decompression_bomb_where_warnings_are_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "bomb" in reason(bomb(10_000, 9_000))


def test_reasons_are_the_same_at_every_try() -> None:
    """They are stored, and a store must not depend on memory addresses."""
    damaged = [data[: len(data) // 2] for data in ENCODED.values()] + [b"hello"]
    assert [reason(data) for data in damaged] == [reason(data) for data in damaged]
    assert not any("0x" in reason(data) for data in damaged)


def assert_decodes_or_explains(data: bytes) -> None:
    try:
        image = decode(data)
    except ImageError:
        reason(data)
        return
    assert image.mode == "RGB"
    assert image.width > 0
    assert image.height > 0


@given(st.sampled_from(sorted(ENCODED)), st.data())
def test_any_damage_gives_an_rgb_image_or_an_image_error(format: str, data: st.DataObject) -> None:
    damaged = bytearray(ENCODED[format])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_decodes_or_explains(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes) -> None:
    assert_decodes_or_explains(data)


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(ImageError, match=r"^the file cannot be read: No such file"):
        read_bytes(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="it is no regular file"):
        read_bytes(tmp_path)
    with pytest.raises(ImageError, match="null byte"):
        read_bytes(tmp_path / "a\0b.png")
