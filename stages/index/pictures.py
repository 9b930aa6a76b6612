"""Which images are one picture: a perceptual hash that another encoding or size does not change."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy.fft import dctn

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.mathematics.nearest import Floats, Ints, nearest
from egapipe.pipeline.terminal.progress import Progress

Copy = Literal["pixels", "picture", "mirrored"]
"""The same pixels; the same picture, encoded or scaled anew; that one from right to left."""

# As pHash has them (Zauner 2010): the lowest frequencies of the picture in grey.
_SIDE, _LOWEST = 32, 8
# A cosine begins a copy. Kept as numbers, not as pHash's bits: of 1,437 digits of 8 x 8 pixels one
# in twenty is within 4 of 64 bits of another one, while their cosines end at 0.993. JPEG of
# quality 90, a blur or four times the size leave more than 0.997 there, and 0.999 of CIFAR-100.
# Between that one's 10,000 test and 50,000 training images it finds 10 pairs of equal pixels and 33
# others, of which 32 are one picture to the eye.
_SAME = 0.995
# Across a picture the odd waves change their sign when it is mirrored.
_MIRRORED = np.tile((-1.0) ** np.arange(_LOWEST), _LOWEST)[1:].astype(np.float32)
_AHEAD = 64


@dataclass(frozen=True)
class Pictures:
    """n images that could be read. rows: int64 [n] of the data set. hashes: float32 [n, 63], of
    unit length, 0 for a picture of one colour. pixels: SHA-256 of size and pixels, n of them.
    unread: how many could not be read."""

    rows: Ints
    hashes: Floats
    pixels: list[bytes]
    unread: int


def perceptual_hash(image: Image.Image) -> Floats:
    """float32 [63] of unit length: the lowest frequencies of a picture but its mean brightness."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    waves = dctn(np.asarray(grey, dtype=np.float32), norm="ortho")[:_LOWEST, :_LOWEST].ravel()[1:]
    length = float(np.linalg.norm(waves))
    # A rest of rounding is no picture.
    return np.asarray(waves / length if length > 1e-3 else np.zeros_like(waves), dtype=np.float32)


def read_pictures(dataset: Dataset, rows: Ints, progress: Progress, done: int = 0) -> Pictures:
    """The hashes of some rows, int64 [N]; those whose image cannot be read are left out.

    done: what the progress has already seen. Raises MachineError.
    """
    kept, hashes, pixels = [], [np.empty((0, _LOWEST**2 - 1), np.float32)], []
    for row, found in zip(rows.tolist(), _ahead(dataset, rows), strict=True):
        done += 1
        if found is not None:
            kept.append(row)
            hashes.append(found[0][None])
            pixels.append(found[1])
        progress.update(done)
    return Pictures(
        np.array(kept, dtype=np.int64), np.concatenate(hashes), pixels, len(rows) - len(kept)
    )


def find_copies(mine: Pictures, theirs: Pictures) -> dict[int, tuple[int, Copy]]:
    """Row of mine -> the row of theirs that is the same picture, and in which way."""
    equal = dict(zip(reversed(theirs.pixels), reversed(theirs.rows.tolist()), strict=True))
    found: dict[int, tuple[int, Copy]] = {}
    if not (len(mine.rows) and len(theirs.rows)):
        return found
    kinds: dict[Copy, Floats] = {"mirrored": mine.hashes * _MIRRORED, "picture": mine.hashes}
    for kind, queries in kinds.items():
        cosines, places = nearest(theirs.hashes, queries, 1)
        for place in np.flatnonzero(cosines[:, 0] >= _SAME):
            found[int(mine.rows[place])] = (int(theirs.rows[places[place, 0]]), kind)
    for row, digest in zip(mine.rows.tolist(), mine.pixels, strict=True):
        if digest in equal:
            found[row] = (equal[digest], "pixels")
    return found


def same_picture(one: Floats, other: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """bool [n]: whether pairs of hashes, float32 [n, 63] twice, are of one picture, or mirrored."""
    cosines = [np.einsum("nd,nd->n", one * turned, other) for turned in (1.0, _MIRRORED)]
    return np.asarray(np.maximum(*cosines) >= _SAME)


def _ahead(dataset: Dataset, rows: Ints) -> Iterator[tuple[Floats, bytes] | None]:
    """Decoded in threads, a few ahead of whoever takes them."""
    waiting: deque[Future[tuple[Floats, bytes] | None]] = deque()
    with ThreadPoolExecutor(available_cpus()) as pool:
        for row in rows.tolist():
            waiting.append(pool.submit(_read, dataset, row))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(dataset: Dataset, row: int) -> tuple[Floats, bytes] | None:
    try:
        image = dataset.image(row)
    except ImageError:
        return None
    content = f"{image.size}".encode() + image.tobytes()
    return perceptual_hash(image), hashlib.sha256(content).digest()
