"""Arrays in .npy files, which may come from elsewhere."""

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.errors import UsageError, one_line

# numpy parses the header as a Python literal, and lets what its tokenizer says through.
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    TokenError,
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
)


def mapped_npy(file: Path) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped and read-only; no object is unpickled.

    Raises UsageError, in one line, if there is none, it is no regular file, or it is damaged.
    """
    if not file.is_file():
        raise UsageError(f"{file} cannot be read as .npy: it is no regular file")
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise UsageError(f"{file} cannot be read as .npy: {one_line(error)}") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise UsageError(f"{file} cannot be read as .npy: it is an archive of arrays")
    return found
