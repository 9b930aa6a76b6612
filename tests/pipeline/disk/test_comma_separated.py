"""What is written as comma-separated values is read as it was."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.disk.comma_separated import comma_separated

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.tuples(cells, cells), max_size=4))
def test_every_text_comes_back(rows: list[tuple[str, str]]) -> None:
    """A lone return would end a row where nobody quotes it."""
    written = comma_separated(["a", "b\r,"], [{"a": a, "b\r,": b} for a, b in rows])
    found = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert found == [["a", "b\r,"], *map(list, rows)]


def test_what_a_record_lacks_is_empty() -> None:
    assert comma_separated(["a", "b"], [{"b": 1}]) == b"a,b\r\n,1\r\n"
