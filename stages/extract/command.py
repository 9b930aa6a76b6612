"""`egapipe extract`: teacher embeddings of every view of every image, into the store."""

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from egapipe.pipeline.terminal.options import ConfigName, Overrides, TrustRemoteCode
from egapipe.pipeline.terminal.text import say

if TYPE_CHECKING:
    from egapipe.pipeline.config import Config
    from egapipe.pipeline.config.tree import Split


def register(app: typer.Typer) -> None:
    """Add `egapipe extract`."""
    app.command()(extract)


def extract(
    config: ConfigName = None,
    overrides: Overrides = None,
    local: Annotated[
        bool, typer.Option("--local", help="In this process instead of Ray workers.")
    ] = False,
    split: Annotated[
        str, typer.Option(help="Which images: train, test, unlabelled, ... or all that there are.")
    ] = "all",
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only say how much, how long and whether it fits; write nothing."
        ),
    ] = False,
    retry_failures: Annotated[
        bool,
        typer.Option(
            "--retry-failures", help="Do shards again in which an image failed, finished or not."
        ),
    ] = False,
    workers: Annotated[
        bool, typer.Option("--workers", help="Show a line a worker: where, what, how fast.")
    ] = False,
    append: Annotated[
        bool,
        typer.Option(
            "--append", help="Add the rows that a data set has got since its store was finished."
        ),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run the teacher over every view of every image, once, and store its embeddings.

    Run it again after an interruption: it continues where it stopped.
    """
    from egapipe.pipeline.config import load_config
    from egapipe.pipeline.errors import UsageError
    from egapipe.pipeline.machine.cluster import ray_session
    from egapipe.pipeline.terminal.progress import open_progress

    loaded = load_config(config, overrides or [], trust_remote_code=trust_remote_code)
    splits: list[Split] = loaded.splits() if split == "all" else [split]
    if dry and retry_failures:
        raise UsageError("--dry-run writes nothing, --retry-failures does: give one of them")
    if local and workers:
        raise UsageError("--workers shows workers of Ray, --local has none: give one of them")
    if dry:
        _rehearse(loaded, splits, local, append)
        return
    # After the configuration: a mistake in it does not wait for torch.
    from egapipe.stages.extract import prepare

    extractions = prepare(loaded, splits, append=append)
    for extraction in extractions:
        say(*extraction.job.dataset.notes, err=True)
    if retry_failures:
        for extraction in extractions:
            again = len(extraction.retry_failures())
            say(f"{extraction.job.split}: shards with failures are done again: {again}")
    on_ray = not local and any(not extraction.complete for extraction in extractions)
    shown = partial(open_progress, detailed=workers)
    # One Ray for all splits: it takes longer to start than a small split to extract.
    with ray_session(loaded.cluster) if on_ray else nullcontext():
        for extraction in extractions:
            report = extraction.run(local=local, progress=shown)
            say(report.line())


def _rehearse(config: "Config", splits: "list[Split]", local: bool, append: bool) -> None:
    from egapipe.stages.extract.planning.dry_run import dry_run
    from egapipe.stages.extract.planning.dry_run_table import table_lines

    rehearsed = dry_run(config, splits, local=local, append=append)
    say(*table_lines(rehearsed))
    rehearsed.check()
