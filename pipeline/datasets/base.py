"""What a stage may ask of a data set."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.kinds.arrays.stored import Arrays

UNLABELLED = -1

Labels = npt.NDArray[np.int64]


class Images(Protocol):
    """Images, or arrays, by row, with stable keys: what a worker needs of a data set.

    Reading is safe from several threads. Pickling is cheap: paths travel, never pixels, and the
    receiving process opens the files itself.
    """

    @property
    def name(self) -> str:
        """What it is, for manifests and messages; the same wherever the files lie."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """A unique, stable id a row, N of them; the same on every machine."""
        ...

    def __len__(self) -> int:
        """Number of rows, N."""
        ...

    def encoded(self, row: int) -> bytes:
        """The stored bytes of a row's image: what the fingerprint covers.

        Raises ImageError if there are none, MachineError if the machine cannot read them,
        IndexError for a row outside 0..N-1.
        """
        ...

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """The decoded, upright RGB image of a row, 8 bits a channel.

        divisor: by what its size may be divided, see `images.decode`; whole without one. data: what
        `encoded` has given, where that was asked before; else it is read. Raises ImageError, its
        text a short reason, if the image is missing or damaged; MachineError if the machine cannot
        read it; IndexError for a row outside 0..N-1.
        """
        ...

    @property
    def arrays(self) -> Arrays | None:
        """What its samples are, where they are arrays and no images."""
        ...

    def array(self, row: int) -> npt.NDArray[Any]:
        """The variants of a row of arrays, [V, *shape] of int64 or float32.

        Raises as `image`, for numbers that are not finite too; UsageError where samples are images,
        as `image` does where they are arrays.
        """
        ...

    def extents(self, rows: Sequence[int]) -> Any:
        """Where the images of some rows lie, for `learn` of a process that has no list of them: it
        can be pickled, and is a few numbers a row. None where the key of a row says it."""
        ...

    def learn(self, extents: Any) -> None:
        """Be told by `extents` of another process. Those of the last few calls are kept."""
        ...


class Dataset(Images, Protocol):
    """Images with labels, and what is known of all of them."""

    @property
    def classes(self) -> list[str] | None:
        """Class names by label, where they are known."""
        ...

    @property
    def labels(self) -> Labels:
        """int64 [N], -1 where a row has no label."""
        ...

    @property
    def label_numbers(self) -> Labels:
        """int64 [N], what identity covers: the source's own numbers, where classes are named by
        numbers, else the labels of the data set by itself."""
        ...

    @property
    def numbered(self) -> bool:
        """Whether the names of the classes are the numbers that the source has for labels."""
        ...

    @property
    def chosen(self) -> Labels:
        """int64 [N], ascending: the row of the whole source, without its limit, for each row."""
        ...

    @property
    def source_rows(self) -> int:
        """Rows of the whole source, without its limit."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know of it, a line each."""
        ...

    def for_workers(self, keys: Sequence[str]) -> Images:
        """The images alone, for processes that each read a part of them.

        keys: of all rows, from where a process gets those that it needs.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 over every row's key, label and image bytes: equal content, equal fingerprint."""
        ...

    def digests(self, rows: int) -> list[bytes]:
        """SHA-256 of every `rows` images, see `image_digests`. It reads all of them."""
        ...
