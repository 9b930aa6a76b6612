"""Which column of a table is which, and what it holds."""

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.errors import UsageError

NO_LABELS = "none"
_LABEL_NAMES = ("label", "labels", "fine_label")


def image_column(features: Mapping[str, Any], asked: str | None) -> str:
    """The column of images: the one asked for, or the only one. Raises UsageError."""
    found = [name for name, feature in features.items() if _is_image(feature)]
    if asked is not None:
        _check_present(features, asked, "image_column")
        if asked not in found:
            raise UsageError(
                f"image_column {asked!r} holds {_type(features[asked])}, not images"
                f" ({{bytes, path}}); columns: {_shown(features)}"
            )
        return asked
    if len(found) != 1:
        what = f"several columns of images ({', '.join(found)})" if found else "no column of images"
        raise UsageError(f"{what}: set image_column; columns: {_shown(features)}")
    return found[0]


def label_column(features: Mapping[str, Any], asked: str | None) -> str | None:
    """The column of class numbers, None for no labels. Raises UsageError."""
    if asked == NO_LABELS:
        return None
    if asked is not None:
        return _check_present(features, asked, "label_column")
    named = [name for name in _LABEL_NAMES if name in features]
    typed = [name for name, f in features.items() if isinstance(f, datasets.ClassLabel)]
    if named:
        return named[0]
    if len(typed) == 1:
        return typed[0]
    what = f"several columns of labels ({', '.join(typed)})" if typed else "no column of labels"
    raise UsageError(
        f"{what}: set label_column, or `label_column: {NO_LABELS}`; columns: {_shown(features)}"
    )


def class_names(feature: Any) -> list[str] | None:
    """Names by label, where the column's feature knows them."""
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def labels(column: pa.ChunkedArray, name: str) -> Labels:
    """int64 [N], null as -1. Raises UsageError if they are not class numbers."""
    if not pa.types.is_integer(column.type):
        raise UsageError(
            f"label_column {name!r} holds {column.type}, labels must be integers (class numbers):"
            f" choose another column, or `label_column: {NO_LABELS}`"
        )
    try:
        column = column.cast(pa.int64())
    except pa.ArrowInvalid:
        raise UsageError(f"label_column {name!r} holds a number beyond 64 bits") from None
    values = np.asarray(pc.fill_null(column, UNLABELLED), dtype=np.int64)
    if values.size and values.min() < UNLABELLED:
        raise UsageError(
            f"label_column {name!r} holds {values.min()}: labels count from 0, {UNLABELLED} is none"
        )
    return values


def keys(column: pa.ChunkedArray, name: str) -> list[str]:
    """One string a row. Raises UsageError for null, and what is neither text nor integers."""
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind)):
        raise UsageError(f"key_column {name!r} holds {kind}, keys must be text or integers")
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise UsageError(f"key_column {name!r} has no key in row {row}")
    return [str(key) for key in column.to_pylist()]


def check_unique(keys: Iterable[str], where: str) -> None:
    """Raises UsageError naming the first key that comes twice."""
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        first = seen.setdefault(key, row)
        if first != row:
            raise UsageError(f"{where}: rows {first} and {row} have the same key {key!r}")


def _check_present(features: Mapping[str, Any], name: str, field: str) -> str:
    if name not in features:
        raise UsageError(f"{field} {name!r} is not a column; columns: {_shown(features)}")
    return name


def key_column(features: Mapping[str, Any], asked: str | None) -> str | None:
    """The column of keys, if one is asked for. Raises UsageError."""
    return None if asked is None else _check_present(features, asked, "key_column")


def _is_image(feature: Any) -> bool:
    """An Image feature, or its storage {bytes, path} in a file that doesn't say it is one."""
    if isinstance(feature, datasets.Image):
        return True
    if not isinstance(feature, Mapping) or "bytes" not in feature:
        return False
    return getattr(feature["bytes"], "dtype", None) in ("binary", "large_binary")


def _shown(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())


def _type(feature: Any) -> str:
    if isinstance(feature, datasets.Value):
        return str(feature.dtype)
    if isinstance(feature, Mapping):
        return "{" + ", ".join(feature) + "}"
    return type(feature).__name__
