"""`extract`, `distill`, `compare`, `sweep`, `load_student` and `predict`, as `egapipe` gives them.

A configuration is whatever `load_config` takes. Mistakes raise UsageError and what fails another
EgapipeError, each in one line; a call that was interrupted is continued by the same call.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.machine.cluster import ray_session
from egapipe.pipeline.results.runs import open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.progress import OpenProgress, open_progress, silent_progress
from egapipe.stages.api.configuration import Configuration, Overrides, load_config
from egapipe.stages.api.result import Result, plain_rows

if TYPE_CHECKING:
    from egapipe.stages.compare import CompareReport
    from egapipe.stages.distill import DistillReport
    from egapipe.stages.extract import ExtractReport
    from egapipe.stages.predict import Picture, Prediction, Predictor
    from egapipe.stages.sweep import SweepReport


def extract(
    config: Configuration = None,
    overrides: Overrides = (),
    *,
    splits: Iterable[Split] | None = None,
    local: bool = False,
    progress: bool = False,
    trust_remote_code: bool = False,
) -> "Result[list[ExtractReport]]":
    """Run the teacher over every view of every image, once; a row is one store.

    splits: which images, default all that the configuration has. local: in this process instead of
    Ray workers. progress: show it on stderr.
    """
    from egapipe.stages.extract import prepare

    loaded = load_config(config, overrides, trust_remote_code=trust_remote_code)
    extractions = prepare(loaded, loaded.splits() if splits is None else list(splits))
    on_ray = not local and any(not extraction.complete for extraction in extractions)
    with ray_session(loaded.cluster) if on_ray else nullcontext():
        reports = [one.run(local=local, progress=_shown(progress)) for one in extractions]
    return Result(reports, plain_rows(asdict(report) for report in reports), loaded.stores)


def distill(
    config: Configuration = None,
    overrides: Overrides = (),
    *,
    restart: bool = False,
    progress: bool = False,
    trust_remote_code: bool = False,
) -> "Result[DistillReport]":
    """Train a student from the stored features; a row is one epoch.

    A finished run is returned as it is, unless `restart`.
    """
    from egapipe.stages.distill import run

    loaded = load_config(config, overrides, trust_remote_code=trust_remote_code)
    report = run(loaded, restart=restart, progress=_shown(progress))
    return Result(report, plain_rows(read_metrics(open_run(report.run))), report.where)


def compare(
    config: Configuration = None,
    overrides: Overrides = (),
    *,
    progress: bool = False,
    trust_remote_code: bool = False,
) -> "Result[CompareReport]":
    """Train every variant with every student and seed; a row is one training."""
    from egapipe.stages.compare import run

    loaded = load_config(config, overrides, trust_remote_code=trust_remote_code)
    report = run(loaded, progress=_shown(progress))
    return Result(report, plain_rows(report.trainings), str(report.folder))


def sweep(
    config: Configuration = None,
    overrides: Overrides = (),
    *,
    restart: bool = False,
    retry_failed: bool = False,
    progress: bool = False,
    trust_remote_code: bool = False,
) -> "Result[SweepReport]":
    """Search the settings of `sweep.space`; a row is one trial, its settings columns."""
    from egapipe.stages.sweep import run

    loaded = load_config(config, overrides, trust_remote_code=trust_remote_code)
    report = run(loaded, restart=restart, retry_failed=retry_failed, progress=_shown(progress))
    return Result(report, plain_rows(asdict(one) for one in report.trials), str(report.folder))


def load_student(
    model: str | Path,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> "Predictor":
    """A student as a function of pictures: `load_student(RUN).predict([picture])`.

    model, checkpoint, device, trust_remote_code: see `load_predictor`.
    """
    from egapipe.stages.predict import load_predictor

    return load_predictor(model, device, checkpoint, trust_remote_code=trust_remote_code)


def predict(
    model: "str | Path | Predictor", images: "Iterable[Picture]", *, top: int = 5
) -> "Result[list[Prediction]]":
    """Classes and embeddings of pictures: files, folders, PIL images and arrays; a row is one.

    model: see `load_student`.
    """
    from egapipe.stages.predict import run
    from egapipe.stages.predict.output import record

    found = list(run(model, images, top=top))
    return Result(found, [record(one) for one in found])


def _shown(progress: bool) -> OpenProgress:
    return open_progress if progress else silent_progress
