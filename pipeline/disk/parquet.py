"""Parquet bytes as tables, read by the calling thread alone."""

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(data: bytes) -> pa.Table:
    """The table in Parquet bytes. Raises OSError, ValueError or Arrow's errors if they are none.

    `pyarrow.parquet.read_table` has Arrow's threads read ahead, whether or not it may use threads.
    One of them may let go of the bytes after the table is there: where the process ends meanwhile,
    it is aborted (`terminate called without an active exception`), and a pool of threads does not
    survive a fork. It also imports pandas where that is installed: half a second of a command that
    reads one small file.
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
