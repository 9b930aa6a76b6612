"""`egapipe compare`."""

import math
import sys
from typing import TYPE_CHECKING

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import say

if TYPE_CHECKING:
    from egapipe.pipeline.config import Config
    from egapipe.stages.compare import CompareReport


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

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    report = _run(loaded)
    say(*table_lines(report))
    if report.experiment.counts["failed"]:
        raise typer.Exit(1)


def _run(config: "Config") -> "CompareReport":
    from egapipe.pipeline.terminal.progress import open_progress

    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.compare import run

    if config.compare.max_concurrent == 1 or not sys.stderr.isatty():
        return run(config, progress=open_progress)
    from egapipe.stages.experiment.live import LiveTable

    with LiveTable() as live:
        return run(config, watch=live.show)


def table_lines(report: "CompareReport") -> list[str]:
    """The comparison as lines of text: mean and standard deviation over seeds, in % top-1."""
    from egapipe.stages.compare.table import WHOSE, separation, text_table, unfinished

    experiment, rows = report.experiment, report.rows
    seeds = len({cell.seed for cell in experiment.cells})
    said = unfinished(experiment)
    lines = [
        f"top-1 on the test images{WHOSE[experiment.weights]}, mean ± standard deviation over"
        f" {seeds} seed{'s'[: seeds != 1]}",
        *([said] if said else []),
    ]
    several = len(experiment.groups) > 1
    sentences = []
    for student in experiment.groups:
        mine = [row for row in rows if row.setting.group == student]
        lines += ["", *text_table(experiment, mine, student if several else "")]
        sentence = separation(experiment, mine)
        sentences += [f"{student}: {sentence}" if several else sentence] if sentence else []
    others = len({s.label for s in experiment.settings}) - 1
    if any(not math.isnan(row.p) for row in rows):
        over = f"{others} variant{'s'[: others != 1]}"
        lines += ["", f"* separates from {experiment.baseline}: Holm's correction over {over}"]
    if experiment.teacher is not None:
        lines += ["", f"the teacher's head on the same labels: {experiment.teacher:.2f} %"]
    failed = [
        f"failed: {experiment.setting(cell.setting).name} seed {cell.seed}: {cell.error}"
        for cell in experiment.cells
        if cell.state == "failed"
    ]
    return [*lines, "", *failed, *sentences, f"runs and tables: {report.folder}"]
