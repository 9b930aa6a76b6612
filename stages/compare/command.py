"""`egapipe compare`."""

import math
from typing import TYPE_CHECKING

import typer

from egapipe.pipeline.options import ConfigName, Overrides, TrustRemoteCode

if TYPE_CHECKING:
    from egapipe.stages.compare import CompareReport, Row


def register(app: typer.Typer) -> None:
    """Add `egapipe compare`."""
    app.command()(compare)


def compare(
    config: ConfigName = None,
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train every variant of `compare.variants` with every student and seed, and print a table.

    Finished cells are not trained again.
    """
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.progress import open_progress
    from egapipe.stages.compare import run

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    report = run(loaded, progress=open_progress)
    typer.echo("\n".join(table_lines(report)))


def table_lines(report: "CompareReport") -> list[str]:
    """The comparison as lines of text: mean and standard deviation over seeds, in % top-1."""
    seeds = len({cell.seed for cell in report.cells})
    first = report.rows[0].variant
    students = list(dict.fromkeys(row.student for row in report.rows))
    lines = [
        f"top-1 on the test images, mean ± standard deviation over {seeds} seed{'s'[: seeds != 1]}"
    ]
    for student in students:
        rows = [row for row in report.rows if row.student == student]
        lines += ["", *_block(student if len(students) > 1 else "", rows, first, report.confidence)]
    if report.teacher_top1 is not None:
        lines += ["", f"the teacher's head on the same labels: {report.teacher_top1:.2f} %"]
    return [
        *lines,
        "",
        *(f"run: {cell.run}" for cell in report.cells),
        f"tables: {report.folder}",
    ]


def _block(student: str, rows: "list[Row]", first: str, confidence: float) -> list[str]:
    from egapipe.stages.compare.folder import score

    width = max(14, *(len(row.variant) + 2 for row in rows), len(student) + 2)
    interval = f"{confidence:.0%} interval"
    heading = f"{student or 'variant':<{width}}{'top-1 %':>14}{f'against {first}':>16}"
    lines = [f"{heading}{interval:>20}{'seconds':>10}"]
    for row in rows:
        gain = between = ""
        if row.variant != first:
            gain = f"{row.gain:+.2f}"
            between = "" if math.isnan(row.low) else f"{row.low:+.2f} to {row.high:+.2f}"
        line = f"{row.variant:<{width}}{score(row):>14}{gain:>16}{between:>20}{row.seconds:>10.1f}"
        lines.append(line)
    return lines
