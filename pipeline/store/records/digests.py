"""Digests of images: the SHA-256 of each one's bytes, as whoever encoded it has read them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.store.format.layout import DIGEST_BYTES

Digests = npt.NDArray[np.uint8]
"""[rows, 32]; zeros where there were no bytes, or nobody knows them."""


def image_digests(rows: range, found: Mapping[int, bytes]) -> Digests:
    """Digests by row as an array. Raises ValueError if one is not of these rows."""
    other = found.keys() - set(rows)
    if other:
        raise ValueError(f"row {min(other)} of a digest is not in {rows}")
    digests = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
    for row, digest in found.items():
        digests[row - rows.start] = np.frombuffer(digest, np.uint8)
    return digests


def rows_without(start: int, digests: Digests) -> set[int]:
    """Rows that have no digest, of those from `start` on."""
    return {start + int(place) for place in np.flatnonzero(~digests.any(axis=1))}


def changed_rows(was: Digests, now: Digests) -> npt.NDArray[np.int64]:
    """Places of images that are others now, ascending.

    Only what was read both times is compared: that an image could not be read once, or took its
    process with it, says nothing of its bytes.
    """
    read = was.any(axis=1) & now.any(axis=1)
    return np.flatnonzero(read & (was != now).any(axis=1))


def gone_rows(was: Digests, now: Digests) -> npt.NDArray[np.int64]:
    """Places of images that were read and cannot be read now, ascending."""
    return np.flatnonzero(was.any(axis=1) & ~now.any(axis=1))
