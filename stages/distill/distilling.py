"""`run`: one student, from a configuration to a finished run folder."""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.machine.versions import installed, source_commit
from egapipe.pipeline.results.learned import (
    features_record,
    identity_part,
    require_current,
    require_features,
)
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.distill.data.rows.choice import chosen_on
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.model.spec import MODEL
from egapipe.stages.distill.setup import Job, pick_device, prepare
from egapipe.stages.distill.shown import shown
from egapipe.stages.distill.training.checkpoint import Checkpoints
from egapipe.stages.distill.training.loop import Report
from egapipe.stages.distill.workers.launch import train_inline, train_on_ray
from egapipe.stages.distill.workers.world import World
from egapipe.stages.track.tracker import tracked_run

_VERSIONED = ("egapipe", "torch", "ray", "zarr", "pyarrow", "numpy", "transformers")


@dataclass(frozen=True)
class DistillReport:
    """A finished run: its folder and the content of its summary.json."""

    run: Path
    """Of a run elsewhere, this node's copy."""
    summary: dict[str, Any]
    finished_before: bool
    """True if the run was finished before and nothing was trained now."""
    where: str
    """Path or URL of the run."""

    @property
    def top1(self) -> float | None:
        """Test accuracy of the last epoch, %; None without test images."""
        return self.summary.get("top1")


def run(
    config: Config,
    *,
    folder: RunFolder | None = None,
    restart: bool = False,
    report: Report | None = None,
    progress: OpenProgress = silent_progress,
    title: str = "distill",
) -> DistillReport:
    """Train the student that `config.distill` describes.

    The run folder follows from the configuration, unless another `folder` is given: an interrupted
    run continues, a finished one is returned as it is unless `restart`. `report(epoch, metrics)` is
    called after each epoch, with Ray Train workers in a thread, else when the epoch's checkpoint is
    written. A run that has learned from other features than those that are there now is refused.
    progress, title: where it is shown, and as what. Raises UsageError, StoreError or TrainingError,
    each one line.
    """
    folder = training_folder(config) if folder is None else folder
    if folder.finished and not restart:
        require_current(folder, config)
        return _report(folder, folder.summary(), finished_before=True)
    started = time.perf_counter()
    # Everything is checked before anything is written, the lock included.
    job = prepare(config, World.alone(_own_device(config.distill)))
    with folder.exclusive() as folder:
        if folder.finished and not restart:
            return _report(folder, folder.summary(), finished_before=True)
        if restart:
            folder.clear()
        links = job.sources.links
        record = features_record(
            job.sources.stores,
            job.test_images,
            job.test_store,
            None if links is None else links.digest,
        )
        require_features(folder, record)
        folder.begin(config, record)
        folder.write_json(MODEL, job.spec.model_dump(mode="json"))
        with tracked_run(config, folder, report) as told:
            with shown(job, folder, title, progress, told) as view:
                if config.distill.workers == 0:
                    results = train_inline(job, folder, view)
                else:
                    results = train_on_ray(config, folder, view)
                    folder.fetch()
            summary = summarise(
                job, folder, identity_part(record), results, time.perf_counter() - started
            )
            folder.write_json("summary.json", summary)
    return _report(folder, summary, finished_before=False)


def _report(folder: RunFolder, summary: dict[str, Any], *, finished_before: bool) -> DistillReport:
    return DistillReport(folder.path, summary, finished_before, folder.where)


def _own_device(distill: DistillConfig) -> torch.device:
    """Where this process checks a training, and makes it if no workers do: those have devices of
    their own, and this machine need not have any like them."""
    return torch.device("cpu") if distill.workers else pick_device(distill.device)


def summarise(
    job: Job,
    folder: RunFolder,
    store: Mapping[str, Any],
    results: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The content of summary.json. store: what identifies the features."""
    config = job.config
    metrics = read_metrics(folder)
    epochs = max(1, len(metrics))
    backbone = job.model.student.backbone
    return {
        "name": config.name,
        "student": config.distill.student.name,
        "objective": config.distill.objective.model_dump(mode="json", exclude_none=True),
        "seed": config.distill.seed,
        **results,
        "chosen_on": chosen_on(config),
        "epochs": config.distill.epochs,
        "seconds": seconds,
        "rows_per_s": sum(m["train/rows_per_s"] for m in metrics) / epochs,
        "data_wait": sum(m["train/data_wait"] for m in metrics) / epochs,
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "train_rows": len(job.loader.rows),
        "labelled_rows": int((job.loader.labels >= 0).sum()),
        "workers": config.distill.workers,
        "device": results.get("device", str(job.world.device)),
        "platform": platform.platform(),
        "commit": source_commit(),
        "store": dict(store),
        "versions": installed(_VERSIONED),
        "checkpoint": str(_last_checkpoint(folder)),
    }


def _last_checkpoint(folder: RunFolder) -> str:
    last = Checkpoints(folder.checkpoints).find("last")
    return "" if last is None else str(last.relative_to(folder.path))
