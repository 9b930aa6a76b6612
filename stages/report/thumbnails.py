"""Small pictures inside the page: single ones, and many in one sheet."""

import base64
import io
import json
from collections.abc import Sequence

from PIL import Image, ImageOps

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.terminal.text import visible

TILE = 32
_LARGEST = 128
_COLUMNS = 25
_QUALITY = 80


def sheet_html(dataset: Dataset, rows: Sequence[int], labels: Sequence[str]) -> str:
    """A hidden sheet of TILE x TILE pictures of some rows, and a text for each, for page.js."""
    lines = -(-len(rows) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * TILE, lines * TILE))
    for number, row in enumerate(rows):
        place = (number % _COLUMNS * TILE, number // _COLUMNS * TILE)
        sheet.paste(_tile(dataset.image(row)), place)
    # Nothing in it can end the script.
    texts = json.dumps(list(map(visible, labels))).replace("<", "\\u003c")
    return (
        f'<img class="sheet" hidden alt="" data-columns="{_COLUMNS}" src="{data_url(sheet)}">'
        f'<script type="application/json">{texts}</script>'
    )


def image_html(image: Image.Image, caption: str) -> str:
    """One picture with a caption, which is HTML, below it."""
    copy = image.copy()
    copy.thumbnail((_LARGEST, _LARGEST))
    return f'<div><img alt="" src="{data_url(copy)}">{caption}</div>'


def data_url(image: Image.Image) -> str:
    """The picture as a URL that holds it."""
    content = io.BytesIO()
    # Of a picture of few pixels each counts, and costs little.
    image.save(content, format="WEBP", quality=_QUALITY, lossless=max(image.size) <= TILE)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _tile(image: Image.Image) -> Image.Image:
    """TILE x TILE pixels of its middle; pixels of a smaller picture stay squares."""
    larger = max(image.size) > TILE
    method = Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST
    return ImageOps.fit(image, (TILE, TILE), method)
