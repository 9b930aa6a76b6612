"""Parquet bytes are read by the thread that asks, and by no other way than `read_parquet`."""

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.disk.parquet import read_parquet

PROJECT = Path(__file__).resolve().parents[3]
COUNT = """
import os, sys
import pyarrow.parquet
from egapipe.pipeline.disk.parquet import read_parquet
before = len(os.listdir("/proc/self/task"))
table = read_parquet(sys.stdin.buffer.read())
print(len(os.listdir("/proc/self/task")) - before, table.num_rows)
"""


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=2)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def test_a_table_comes_back() -> None:
    """Several row groups, nested columns, and none at all."""
    sums = pa.array([[("x", 1)], [], [("y", 2)]], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"key": ["a", "b", "c"], "sums": sums})
    assert read_parquet(parquet(table)).equals(table)
    assert read_parquet(parquet(table[:0])).num_rows == 0


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 and then something PAR1"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((OSError, ValueError, pa.ArrowException)):
        read_parquet(data)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux lists")
def test_no_thread_is_started() -> None:
    """One that still holds the bytes when the process ends would abort it."""
    data = parquet(pa.table({"row": range(1000)}))
    run = subprocess.run([sys.executable, "-c", COUNT], input=data, capture_output=True, check=True)
    assert run.stdout.split() == [b"0", b"1000"]


def test_nobody_reads_with_the_threads_of_arrow() -> None:
    found = [
        f"{file.relative_to(PROJECT)}:{node.lineno}"
        for folder in ("pipeline", "stages")
        for file in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "read_table")
        or (isinstance(node, ast.ImportFrom) and any(a.name == "read_table" for a in node.names))
    ]
    assert found == []
