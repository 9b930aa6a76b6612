"""What a comparison leaves behind, beside the run folders of its cells.

config.yaml      the resolved configuration
comparison.json  all cells planned, those done and rows, as `Planned`, `Cell` and `Row`; runs are
                 paths relative to this folder
cells.csv        one line a training
table.md         objectives against students, mean ± standard deviation
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.disk.comma_separated import comma_separated
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, folder_at, open_run
from egapipe.pipeline.terminal.markdown import markdown
from egapipe.pipeline.terminal.markdown import table as markdown_table
from egapipe.stages.compare.table import Cell, Planned, Row, table

RECORD = "comparison.json"


def comparison_folder(config: Config, runs: Sequence[RunFolder]) -> "ComparisonFolder":
    """The folder of a comparison: the same cells find the same folder again."""
    names = "\n".join(run.path.name for run in runs)
    identity = hashlib.sha256(names.encode()).hexdigest()[:8]
    place = f"{config.runs.rstrip('/')}/{config.name}/compare-{identity}"
    return ComparisonFolder.of(folder_at(place))


@dataclass(frozen=True)
class ComparisonFolder(RunFolder):
    """The small files of one comparison."""

    @classmethod
    def of(cls, folder: RunFolder) -> Self:
        """The folder at another one's place."""
        return cls(folder.path, folder.url)

    def record(
        self,
        config: Config,
        planned: Sequence[Planned],
        cells: Sequence[Cell],
        rows: Sequence[Row],
        teacher: float | None,
    ) -> None:
        """Write every file anew. teacher: mean accuracy of the teacher's head, %."""
        record = {
            "name": config.name,
            "confidence": config.compare.confidence,
            "weights": config.compare.weights,
            "teacher_top1": teacher,
            "finished": all(cell.state == "done" for cell in planned),
            "planned": [asdict(cell) for cell in planned],
            "cells": [self._cell(cell) for cell in cells],
            "rows": [_finite(asdict(row)) for row in rows],
        }
        self.write("config.yaml", to_yaml(config).encode())
        names = [field.name for field in fields(Cell)]
        done = comma_separated(names, [self._cell(cell) for cell in cells])
        self.write("cells.csv", done)
        self.write("table.md", poster(rows, planned).encode())
        # Last: whoever finds it finds the others.
        self.write(RECORD, json.dumps(record, indent=2, allow_nan=False).encode())

    def recorded(self) -> dict[str, Any]:
        """The content of comparison.json, with what an older egapipe did not write worked out.

        Raises UsageError if this is no such folder, it is damaged, or no training is done yet.
        """
        if not self.has(RECORD):
            raise UsageError(f"{self.where} is not the folder of a comparison: it has no {RECORD}")
        content = self.read_json(RECORD)
        try:
            return _complete(content, self)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise UsageError(
                f"{self.where}/{RECORD} is damaged: run the same `egapipe compare` again, which "
                "writes it anew"
            ) from None

    def _cell(self, cell: Cell) -> dict[str, Any]:
        return {**asdict(replace(cell, run="")), "run": self.relative(open_run(cell.run))}


def without(
    content: dict[str, Any], folder: RunFolder, reasons: Mapping[str, str]
) -> dict[str, Any]:
    """The content of comparison.json as if some trainings had failed. reasons: run -> why.

    folder: the comparison's. Raises UsageError if none is left.
    """
    kept = [cell for cell in content["cells"] if cell["run"] not in reasons]
    if not kept:
        reason = next(iter(reasons.values()))
        raise UsageError(f"no training of the comparison {folder.where} counts: {reason}")
    failed = {_key(cell): reasons[cell["run"]] for cell in content["cells"] if cell not in kept}
    planned = [
        {**cell, "state": "failed", "error": failed[_key(cell)]} if _key(cell) in failed else cell
        for cell in content["planned"]
    ]
    return _complete({**content, "cells": kept, "planned": planned, "rows": []}, folder)


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["student"], cell["variant"], cell["seed"]


def _complete(content: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    runs = [folder.beside(cell["run"]) for cell in content["cells"]]
    cells = [
        Cell(**{**cell, "run": run.url or run.path})
        for cell, run in zip(content["cells"], runs, strict=True)
    ]
    if not cells:
        raise UsageError(
            f"no training of the comparison {folder.where} is done yet: run the same"
            " `egapipe compare` again"
        )
    done = [asdict(Planned(c.student, c.variant, c.seed, "done")) for c in cells]
    planned = [asdict(Planned(**cell)) for cell in content.get("planned", done)]
    first = planned[0]["variant"]
    rows = [_finite(asdict(row)) for row in table(cells, content["confidence"], first)]
    # Its own numbers stay, whatever this version would make of its cells.
    own = {(row["student"], row["variant"]): row for row in content["rows"]}
    rows = [{**row, **own.get((row["student"], row["variant"]), {})} for row in rows]
    finished = content.get("finished", True)
    weights = content.get("weights", "last")
    return {**content, "weights": weights, "finished": finished, "planned": planned, "rows": rows}


def poster(rows: Sequence[Row], planned: Sequence[Planned]) -> str:
    """The table of a poster: a line a variant, a column a student, mean ± standard deviation.

    Bold is what separates from the baseline; a mean of fewer trainings than are planned says so.
    """
    students = list(dict.fromkeys(cell.student for cell in planned))
    variants = list(dict.fromkeys(cell.variant for cell in planned))
    found = {(row.variant, row.student): row for row in rows}
    lines = [
        [markdown(name), *(_entry(found.get((name, s)), count(planned, s, name)) for s in students)]
        for name in variants
    ]
    note = said_of(planned)
    text = markdown_table(["top-1 %", *map(markdown, students)], lines, align="---:")
    return "\n".join([*text, *(["", note] if note else [])]) + "\n"


def _entry(row: Row | None, planned: int) -> str:
    if row is None:
        return f"0 of {planned}"
    text = f"**{score(row)}**" if row.separates else score(row)
    return text if row.n == planned else f"{text} ({row.n} of {planned})"


def count(planned: Sequence[Planned], student: str, variant: str) -> int:
    """Trainings that are planned of a row."""
    return sum((cell.student, cell.variant) == (student, variant) for cell in planned)


def said_of(planned: Sequence[Planned]) -> str:
    """What is missing of an unfinished comparison, in words; empty for a finished one."""
    states = [cell.state for cell in planned]
    done, failed = states.count("done"), states.count("failed")
    if done == len(states):
        return ""
    broken = f", {failed} failed" if failed else ""
    return f"unfinished: {done} of {len(states)} trainings done{broken}"


def score(row: Row) -> str:
    """Mean ± standard deviation of a row, without the latter where there is one seed."""
    return f"{row.mean:.2f}" + ("" if math.isnan(row.std) else f" ± {row.std:.2f}")


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """NaN as null: JSON has no other word for it."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}
