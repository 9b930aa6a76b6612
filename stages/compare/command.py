"""`egapipe compare`."""

from typing import TYPE_CHECKING

import typer

from egapipe.pipeline.options import ConfigName, Overrides

if TYPE_CHECKING:
    from egapipe.stages.compare import CompareReport


def register(app: typer.Typer) -> None:
    """Add `egapipe compare`."""
    app.command()(compare)


def compare(config: ConfigName = None, overrides: Overrides = None) -> None:
    """Train every variant of `compare.variants` with every seed and print a table.

    Finished cells are not trained again.
    """
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.progress import open_progress
    from egapipe.stages.compare import run

    loaded = load_config(config, overrides or [])
    report = run(loaded, progress=open_progress)
    typer.echo("\n".join(table_lines(report)))


def table_lines(report: "CompareReport") -> list[str]:
    """The comparison as lines of text: mean and standard deviation over seeds, in % top-1."""
    seeds = len({cell.seed for cell in report.cells})
    first = report.rows[0].variant
    lines = [
        f"top-1 on the test images, mean ± standard deviation over {seeds} seeds",
        "",
        f"{'variant':<14}{'top-1 %':>16}{f'against {first}':>20}{'seconds':>10}",
    ]
    for row in report.rows:
        gain = "" if row.variant == first else f"{row.gain:+.2f} ± {row.gain_std:.2f}"
        score = f"{row.mean:.2f} ± {row.std:.2f}"
        lines.append(f"{row.variant:<14}{score:>16}{gain:>20}{row.seconds:>10.1f}")
    if report.teacher_top1 is not None:
        lines += ["", f"the teacher's head on the same labels: {report.teacher_top1:.2f} %"]
    return [*lines, "", *(f"run: {cell.run}" for cell in report.cells)]
