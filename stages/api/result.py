"""What a command found: its report, and its rows as a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import pandas
    import pyarrow

Report = TypeVar("Report")


@dataclass(frozen=True)
class Result(Generic[Report]):
    """report: what the command found, whole. rows: the same as plain values, one dict for each row
    of the table. where: path or URL of the folder that it left behind, of `extract` that of the
    stores; None of `predict`."""

    report: Report
    rows: list[dict[str, Any]]
    where: str | None = None

    def to_arrow(self) -> "pyarrow.Table":
        """The rows; a column is the union of their keys, in the order of their first appearance."""
        import pyarrow as pa

        columns = dict.fromkeys(name for row in self.rows for name in row)
        return pa.table({name: _column([row.get(name) for row in self.rows]) for name in columns})

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows."""
        return self.to_arrow().to_pandas()


def plain_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with paths as text and settings that are a section of their own, `{"a": {"b": 1}}`, as
    columns `a.b`."""
    return [dict(_flat(row)) for row in rows]


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, Path) else value


def _column(values: list[Any]) -> Any:
    """An Arrow array; values of several types, as the choices of a setting may be, as text."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
