"""Which column of a table is which, and what it holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egapipe.pipeline.datasets.base import UNLABELLED, Labels
from egapipe.pipeline.datasets.classes import Classes, of_names, of_numbers
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.keys import TextKeys, repeated

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
    """The column of classes, None for no labels. Raises UsageError."""
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


def classes(column: pa.ChunkedArray, name: str, known: list[str] | None) -> Classes:
    """Labels of a column of N rows: names, truth values, or numbers, whole ones if they are floats.

    Null, and NaN among floats, is unlabelled. known: names by number, where they are given; numbers
    then are class numbers. Raises UsageError for anything else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = pc.if_else(column, "true", "false")
    if _is_text(column.type):
        names = texts(column, f"label_column {name!r}")
        if "" in names:
            raise UsageError(f"label_column {name!r} has no name in row {names.index('')}")
        return of_names(names, known)
    numbers = _numbers(column, name)
    return of_numbers(numbers) if known is None else Classes(numbers, known)


def _numbers(column: pa.ChunkedArray, name: str) -> Labels:
    """int64 [N], null as -1. Raises UsageError."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    elif not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise UsageError(
            f"label_column {name!r} holds {kind}, labels must be names or whole numbers: choose"
            f" another column, or `label_column: {NO_LABELS}`"
        )
    try:
        column = column.cast(pa.int64())
    except pa.ArrowInvalid:
        what = "fractions" if pa.types.is_floating(kind) else "a number beyond 64 bits"
        raise UsageError(
            f"label_column {name!r} holds {what}, labels must be names or whole numbers"
        ) from None
    values = np.asarray(pc.fill_null(column, UNLABELLED), dtype=np.int64)
    if values.size and values.min() < UNLABELLED:
        raise UsageError(
            f"label_column {name!r} holds {values.min()}: no label is negative, {UNLABELLED} is"
            " none"
        )
    return values


def keys(column: pa.ChunkedArray, name: str) -> TextKeys:
    """One text a row. Raises UsageError for null, and what is neither text nor integers."""
    kind = column.type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise UsageError(f"key_column {name!r} holds {kind}, keys must be text or integers")
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise UsageError(f"key_column {name!r} has no key in row {row}")
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return TextKeys.of(map(str, texts(column, f"key_column {name!r}")))
    return TextKeys(column)


def texts(column: pa.ChunkedArray, where: str) -> list[Any]:
    """The values of a column, where it has text in Unicode. Raises UsageError for other bytes,
    which Arrow reads as they are."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} holds text that is no UTF-8: {error.reason}") from None
    return values


def check_unique(keys: Sequence[str], where: str) -> None:
    """Raises UsageError naming the first key that comes twice."""
    twice = repeated(keys)
    if twice is not None:
        first, row = twice
        raise UsageError(f"{where}: rows {first} and {row} have the same key {keys[row]!r}")


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


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _shown(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())


def _type(feature: Any) -> str:
    if isinstance(feature, datasets.Value):
        return str(feature.dtype)
    if isinstance(feature, Mapping):
        return "{" + ", ".join(feature) + "}"
    return type(feature).__name__
