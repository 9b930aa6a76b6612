"""`egapipe sweep`."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import columns, say

if TYPE_CHECKING:
    from egapipe.pipeline.config import Config
    from egapipe.stages.sweep import SweepReport


def register(app: typer.Typer) -> None:
    """Add `egapipe sweep`."""
    app.command()(sweep)


def sweep(
    config: ConfigName = None,
    overrides: Overrides = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Run the sweep anew where it is finished or under way."),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run trials again that failed before.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Search the settings of `sweep.space` on Ray Tune, and print the trials, the best first.

    The same command continues an interrupted sweep.
    """
    from egapipe.pipeline.config import load_config

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    report = _run(loaded, restart, retry_failed)
    if report.finished_before:
        typer.echo("this sweep was finished before; --restart runs it again")
    say(*lines(loaded, report))


def _run(config: "Config", restart: bool, retry_failed: bool) -> "SweepReport":
    from egapipe.pipeline.terminal.progress import open_progress
    from egapipe.stages.sweep import run

    if not sys.stderr.isatty():
        return run(config, restart=restart, retry_failed=retry_failed, progress=open_progress)
    from egapipe.stages.experiment.live import LiveTable

    with LiveTable() as live:
        return run(config, restart=restart, retry_failed=retry_failed, watch=live.show)


def lines(config: "Config", report: "SweepReport") -> list[str]:
    """The trials as lines of text, the best first, and where everything is."""
    from egapipe.pipeline.results.labels import setting_names, short_name
    from egapipe.stages.distill.data.rows.choice import ON_TEST

    space = list(config.sweep.space)
    rows = [["trial", *map(short_name, space), "epochs", report.metric, ""]]
    trials = report.ranked()
    texts = {path: setting_names(path, [trial.changes for trial in trials]) for path in space}
    for place, trial in enumerate(trials):
        settings = [texts[path][place] for path in space]
        value = "" if trial.value is None else f"{trial.value:.4g}"
        rows.append([str(trial.number), *settings, str(trial.epochs), value, trial.status])
    reasons = [f"trial {trial.number}: {trial.error}" for trial in trials if trial.error]
    counts = ", ".join(f"{report.count(s)} {s}" for s in ("finished", "stopped", "failed"))
    shares = ", ".join(f"{short_name(p)} {100 * s:.0f} %" for p, s in report.importance.items())
    mattered = [f"what mattered, of {len(report.settings())} settings: {shares}"] if shares else []
    return [
        *columns(rows, left=[len(rows[0]) - 1]),
        *(["", *reasons] if reasons else []),
        "",
        f"{counts}; {report.concurrent} at once, {report.seconds:.1f} s",
        *([f"the best: {report.verdict()}"] if report.best else []),
        *([f"the best was {ON_TEST}"] if report.metric.startswith("test/") else []),
        *mattered,
        *([f"best: {report.best.run}"] if report.best else []),
        f"sweep: {report.folder}",
    ]
