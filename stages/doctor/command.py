"""`egapipe doctor`."""

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import say


def register(app: typer.Typer) -> None:
    """Add `egapipe doctor`."""
    app.command()(doctor)


def doctor(
    config: ConfigName = None,
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Check this machine and whether data, teacher, store and student fit together.

    One line a check; exit code 1 if one fails. What is not there yet is skipped.
    """
    from egapipe.pipeline.config import load_config
    from egapipe.stages.doctor import run

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    report = run(loaded, show=lambda finding: say(finding.line()))
    say(report.summary())
    if not report.healthy:
        raise typer.Exit(1)
