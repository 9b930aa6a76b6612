"""`egapipe compare`."""

import math
from typing import TYPE_CHECKING

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import columns, say

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
    from egapipe.pipeline.terminal.progress import open_progress

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.compare import run

    report = run(loaded, progress=open_progress)
    say(*table_lines(report))
    if any(cell.state == "failed" for cell in report.planned):
        raise typer.Exit(1)


def table_lines(report: "CompareReport") -> list[str]:
    """The comparison as lines of text: mean and standard deviation over seeds, in % top-1."""
    from egapipe.stages.compare.folder import said_of
    from egapipe.stages.compare.table import WHOSE

    seeds = len({cell.seed for cell in report.planned})
    first = report.planned[0].variant
    students = list(dict.fromkeys(row.student for row in report.rows))
    unfinished = said_of(report.planned)
    lines = [
        f"top-1 on the test images{WHOSE[report.weights]}, mean ± standard deviation over {seeds}"
        f" seed{'s'[: seeds != 1]}",
        *([unfinished] if unfinished else []),
    ]
    for student in students:
        lines += ["", *_block(student if len(students) > 1 else "", student, first, report)]
    others = len({cell.variant for cell in report.planned}) - 1
    if any(not math.isnan(row.p) for row in report.rows):
        over = f"{others} variant{'s'[: others != 1]}"
        lines += ["", f"* separates from {first}: Holm's correction over {over}"]
    if report.teacher_top1 is not None:
        lines += ["", f"the teacher's head on the same labels: {report.teacher_top1:.2f} %"]
    failed = [cell for cell in report.planned if cell.state == "failed"]
    return [
        *lines,
        "",
        *(f"failed: {c.student} {c.variant} seed {c.seed}: {c.error}" for c in failed),
        *(f"run: {cell.run}" for cell in report.cells),
        f"tables: {report.folder}",
    ]


def _interval(row: "Row") -> str:
    """The ends of a row's interval; of one that says nothing, why."""
    from egapipe.pipeline.mathematics.significance import silence

    silent = "" if row.separates else silence(row.low, row.high, row.pairs)
    return silent or f"{row.low:+.2f} to {row.high:+.2f}"


def _block(title: str, student: str, first: str, report: "CompareReport") -> list[str]:
    from egapipe.stages.compare.folder import count, score
    from egapipe.stages.compare.table import percent

    rows = [row for row in report.rows if row.student == student]
    interval = f"{percent(report.confidence)} interval"
    heading = [title or "variant", "n", "top-1 %", f"against {first}", interval, "p", "seconds"]
    lines = [heading]
    for row in rows:
        planned = count(report.planned, student, row.variant)
        n = str(row.n) if row.n == planned else f"{row.n}/{planned}"
        gain = between = p = ""
        if row.variant != first and row.pairs:
            gain = f"{row.gain:+.2f}" + (" *" if row.separates else "")
            between = "" if math.isnan(row.low) else _interval(row)
            p = "" if math.isnan(row.p) else f"{row.p:.2g}"
        lines.append([row.variant, n, score(row), gain, between, p, f"{row.seconds:.1f}"])
    return columns(lines, gap=3)
