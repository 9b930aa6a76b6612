"""What a comparison leaves behind, beside the run folders of its cells.

config.yaml      the resolved configuration
comparison.json  cells and rows, as `Cell` and `Row`; runs are paths relative to this folder
cells.csv        one line a training
table.md         objectives against students, mean ± standard deviation
"""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.files import read_json_object, replace_file
from egapipe.pipeline.runs import RunFolder
from egapipe.stages.compare.table import Cell, Row

RECORD = "comparison.json"


def comparison_folder(config: Config, runs: Sequence[RunFolder]) -> "ComparisonFolder":
    """The folder of a comparison: the same cells find the same folder again."""
    names = "\n".join(run.path.name for run in runs)
    identity = hashlib.sha256(names.encode()).hexdigest()[:8]
    return ComparisonFolder(Path(config.runs) / config.name / f"compare-{identity}")


@dataclass(frozen=True)
class ComparisonFolder:
    """The small files of one comparison."""

    path: Path

    def write(
        self, config: Config, cells: Sequence[Cell], rows: Sequence[Row], teacher: float | None
    ) -> None:
        """Write every file anew. teacher: mean accuracy of the teacher's head, %."""
        self.path.mkdir(parents=True, exist_ok=True)
        record = {
            "name": config.name,
            "confidence": config.compare.confidence,
            "teacher_top1": teacher,
            "cells": [self._cell(cell) for cell in cells],
            "rows": [_finite(asdict(row)) for row in rows],
        }
        replace_file(self.path / "config.yaml", to_yaml(config).encode())
        replace_file(self.path / "cells.csv", _csv([self._cell(cell) for cell in cells]).encode())
        replace_file(self.path / "table.md", markdown(rows).encode())
        # Last: whoever finds it finds the others.
        replace_file(self.path / RECORD, json.dumps(record, indent=2, allow_nan=False).encode())

    def read(self) -> dict[str, Any]:
        """The content of comparison.json. Raises UsageError if this is no such folder."""
        file = self.path / RECORD
        if not file.is_file():
            raise UsageError(f"{self.path} is not the folder of a comparison: it has no {RECORD}")
        return read_json_object(file)

    def _cell(self, cell: Cell) -> dict[str, Any]:
        return {**asdict(cell), "run": os.path.relpath(cell.run, self.path)}


def markdown(rows: Sequence[Row]) -> str:
    """The table of a poster: a line a variant, a column a student, mean ± standard deviation."""
    students = list(dict.fromkeys(row.student for row in rows))
    variants = list(dict.fromkeys(row.variant for row in rows))
    scores = {(row.variant, row.student): score(row) for row in rows}
    lines = [["top-1 %", *students], ["---", *("---:" for _ in students)]]
    lines += [[name, *(scores.get((name, s), "") for s in students)] for name in variants]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def score(row: Row) -> str:
    """Mean ± standard deviation of a row, without the latter where there is one seed."""
    return f"{row.mean:.2f}" + ("" if math.isnan(row.std) else f" ± {row.std:.2f}")


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """NaN as null: JSON has no other word for it."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
