"""Small pictures inside the page, as URLs that hold them: single ones, and many in one sheet."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.terminal.text import visible

TILE = 32
COLUMNS = 25
_LARGEST = 128
_QUALITY = 80


def thumbnail(image: Image.Image) -> str:
    """One picture, made small."""
    copy = image.copy()
    copy.thumbnail((_LARGEST, _LARGEST))
    return data_url(copy)


def data_url(image: Image.Image) -> str:
    """The picture as a URL that holds it."""
    content = io.BytesIO()
    # Of a picture of few pixels each counts, and costs little.
    image.save(content, format="WEBP", quality=_QUALITY, lossless=max(image.size) <= TILE)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


@dataclass(frozen=True)
class Sheet:
    """url: a picture of TILE x TILE squares, COLUMNS in a row. texts: one for each square."""

    url: str
    texts: tuple[str, ...]
    columns: int = COLUMNS


def sheet_of(dataset: Dataset, rows: Sequence[int], texts: Sequence[str]) -> Sheet:
    """The sheet of some rows of a data set."""
    lines = -(-len(rows) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, lines * TILE))
    for number, row in enumerate(rows):
        place = (number % COLUMNS * TILE, number // COLUMNS * TILE)
        sheet.paste(_tile(dataset.image(row)), place)
    return Sheet(data_url(sheet), tuple(map(visible, texts)))


def _tile(image: Image.Image) -> Image.Image:
    """TILE x TILE pixels of its middle; pixels of a smaller picture stay squares."""
    larger = max(image.size) > TILE
    method = Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST
    return ImageOps.fit(image, (TILE, TILE), method)
