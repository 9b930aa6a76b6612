"""`egapipe distill`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import say


def register(app: typer.Typer) -> None:
    """Add `egapipe distill`."""
    app.command()(distill)


def distill(
    config: ConfigName = None,
    overrides: Overrides = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Train anew where a run is finished or under way.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a student from the stored features. The same command continues an interrupted run."""
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.terminal.progress import open_progress

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.distill import run

    done = run(loaded, restart=restart, progress=open_progress)
    if done.finished_before:
        typer.echo("this run was finished before; --restart trains it again")
    say(describe(done.summary))
    say(f"run: {done.where}")


def describe(summary: Mapping[str, object]) -> str:
    """The results of a run in one line."""
    from egapipe.stages.distill.data.rows.choice import ON_TEST

    shown = {
        "top1": "top-1 {:.2f} %",
        "top5": "top-5 {:.2f} %",
        "validation_top1": "validation {:.2f} %",
        "ema_top1": "its average {:.2f} %",
        "teacher_top1": "teacher head {:.2f} %",
        "train_seconds": "{:.1f} s",
        "rows_per_s": "{:.0f} rows/s",
        "data_wait": "data wait {:.1%}",
    }
    parts = [text.format(summary[name]) for name, text in shown.items() if name in summary]
    if "best_epoch" in summary:
        # Summaries of before there was a validation do not say it.
        validated = summary.get("chosen_on") == "validation"
        on = "chosen on the validation images" if validated else ON_TEST
        parts.append(f"best epoch {summary['best_epoch']}, {on}")
    return f"{summary['student']}: " + ", ".join(parts)
