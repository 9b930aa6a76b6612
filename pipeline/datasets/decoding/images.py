"""From the bytes of an image file to RGB pixels."""

import io
import re
from collections.abc import Callable
from functools import partial

import numpy as np

# The formats' plug-ins, at once: Pillow would import them at the first image of each, and take
# one that cannot be opened at that moment for a format that nobody knows.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from egapipe.pipeline.datasets.decoding.in_flight import Pixels
from egapipe.pipeline.datasets.decoding.reading import attempt, of_machine
from egapipe.pipeline.errors import ImageError, MachineError

# An explicit list: Pillow also knows formats that start another program (EPS runs Ghostscript).
FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
)
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".avif", ".avifs"),
)
"""Endings of the files of those formats, in lower case."""

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: where Pillow begins to warn of decompression bombs."""

IN_FLIGHT = Pixels(MAX_PIXELS)
"""Of this process: threads that decode beside each other need no more memory than the largest image
that one of them may get."""

# Rows of pixels that are laid on white together: whole copies of a large image would be gigabytes.
_BAND_PIXELS = 2**20

Divisor = Callable[[int, int], int]
"""Told height and width of the upright image, by what a decoder may divide them: 1, 2, 4 or 8."""

_BACKGROUND = (255, 255, 255)
_MAX_REASON = 120
_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels: perhaps a decompression bomb"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}
"""Those after which height is width."""


def decode(data: bytes, divisor: Divisor | None = None) -> Image.Image:
    """The RGB image, 8 bits a channel, of an encoded one.

    divisor: asked where the decoder can leave out detail, as that of JPEG can, which is then
    faster and gives a smaller image.

    Of an animation the first frame; turned as its EXIF orientation says; transparency is laid on
    white, as a web page shows it; 16-bit grey is scaled to 8 bits; CMYK is converted without a
    colour profile, and other profiles are not applied.

    Raises ImageError, with a short reason that is the same at every try: empty, not an image,
    truncated, damaged, more than MAX_PIXELS; MachineError if there is no memory for it.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        return attempt(partial(_decoded, data, divisor))
    except MachineError as error:
        if isinstance(error.__cause__, MemoryError) and _memory_is_free():
            # Every try failed where any image that is permitted has room.
            raise ImageError("damaged: it asks for more memory than any image needs") from None
        raise


def _decoded(data: bytes, divisor: Divisor | None) -> Image.Image:
    """See `decode`; raises what the machine raises as it comes."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            if divisor is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
                _reduce(image, divisor)
            image.load()
            return _upright(_rgb(image), _orientation(image))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of the formats {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_TOO_LARGE) from None
    except Exception as error:
        if of_machine(error):
            raise
        if "out of memory" in str(error).lower():
            # Pillow's word for an allocation that failed inside a decoder.
            raise MemoryError(str(error)) from error
        # Decoders of damaged data raise a dozen types, from OSError to IndexError.
        raise ImageError(_reason(error)) from None


def jpeg_orientation(data: bytes, size: tuple[int, int]) -> int | None:
    """The EXIF orientation, 1..8, of a grey or RGB JPEG file of a size (height, width) as stored.

    None where it is not taken for one, for whatever reason: `decode` says which. The pixels are not
    decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS[:1]) as image:
            known = image.mode in ("L", "RGB") and (image.height, image.width) == size
            orientation = _orientation(image)
    except Exception:
        return None
    return (orientation if orientation in _UPRIGHT else 1) if known else None


def upright_rgb(image: Image.Image) -> Image.Image:
    """The same of an image that is in memory already, of any mode, as `decode` gives it of a file.

    Raises ImageError if its pixels cannot be read or have no known range.
    """
    try:
        return _upright(_rgb(image), _orientation(image))
    except ImageError:
        raise
    except Exception as error:
        # One that was opened and not read yet is decoded here.
        if of_machine(error):
            raise
        raise ImageError(_reason(error)) from None


def _memory_is_free() -> bool:
    """Whether the largest image that is decoded would find room at this moment."""
    try:
        bytearray(4 * MAX_PIXELS)
    except MemoryError:
        return False
    return True


def _check_size(image: Image.Image) -> None:
    """From the header, before pixels are decoded; Pillow itself raises from twice the limit on."""
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_TOO_LARGE)
    IN_FLIGHT.claim(image.width * image.height)


def _reduce(image: JpegImagePlugin.JpegImageFile, divisor: Divisor) -> None:
    """Have an image decoded from the low frequencies of its blocks alone, at less than its size."""
    height, width = image.height, image.width
    turned = _UPRIGHT.get(_orientation(image)) in _TURNED
    by = divisor(width, height) if turned else divisor(height, width)
    if by > 1:
        image.draft(None, (width // by, height // by))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known range")
    if image.has_transparency_data:
        return _on_white(image)
    # Pillow's conversion would copy pixels that are RGB already.
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Band by band, so that beside the image there is one copy of it, the result."""
    rgb = Image.new("RGB", image.size)
    height = max(1, _BAND_PIXELS // max(1, image.width))
    for top in range(0, image.height, height):
        box = (0, top, image.width, min(top + height, image.height))
        band = image.crop(box).convert("RGBA")
        canvas = Image.new("RGBA", band.size, _BACKGROUND)
        rgb.paste(Image.alpha_composite(canvas, band).convert("RGB"), box)
    return rgb


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError("grey levels are outside 16 bits")
    grey = np.rint(values / 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = _BACKGROUND[0]
    return Image.fromarray(grey).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8. Sound pixels are not lost for damaged EXIF beside them."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # a dozen types, as of damaged pixels
        if of_machine(error):
            raise
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _reason(error: Exception) -> str:
    """One short line without memory addresses, which differ from run to run."""
    text = re.sub(r"\s+", " ", re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "data", str(error))).strip()
    return f"damaged: {text or type(error).__name__}"[:_MAX_REASON]
