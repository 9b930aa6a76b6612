"""Tables as comma-separated values (RFC 4180)."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def comma_separated(names: Sequence[str], records: Iterable[Mapping[str, Any]]) -> bytes:
    """A heading and a line a record, in UTF-8; what a record lacks is empty.

    Lines end in CR LF: with any other end Python leaves a lone CR inside a text unquoted, which
    then ends the row.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()
