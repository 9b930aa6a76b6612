"""`run`: everything about one trained student, into evaluation.json of its run folder."""

import time
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np

from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.evaluate import PROBE_IMAGES
from egapipe.stages.evaluate.calibration import calibration_error
from egapipe.stages.evaluate.compare import compare_graphs, probe_all
from egapipe.stages.evaluate.cost import measure_cost
from egapipe.stages.evaluate.embeddings import Embeddings, collect
from egapipe.stages.evaluate.evaluation import Evaluation, Predictions
from egapipe.stages.evaluate.images import Images, open_images, open_training_images
from egapipe.stages.evaluate.left_out import LeftOut, UnavailableError

EVALUATION = "evaluation.json"


def run(
    run_folder: RunFolder | str | Path,
    *,
    checkpoint: str = "last",
    device: str = "auto",
    probe_images: int = PROBE_IMAGES,
    progress: OpenProgress = silent_progress,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Measure a student, of a run's `last` or `best` checkpoint or its average, `ema`.

    Writes evaluation.json; the summary.json of a finished run gets it too, as `evaluation.last`,
    `evaluation.best` or `evaluation.ema`. device: where the student embeds images (`auto`, `cpu` or
    `cuda`). probe_images: most labelled training images that neighbours and linear probe learn
    from; 0 leaves both out. What the run has no data for (no test images, no store) is left out,
    with the reason. trust_remote_code: see `load_student`. Raises UsageError if the folder is no
    run, has no such checkpoint, or its test images are not where its config says.
    """
    if probe_images < 0:
        raise UsageError(f"probe_images is {probe_images}: give a number of images, or 0 for none")
    started = time.perf_counter()
    folder = open_run(run_folder)
    student = load_student(folder, checkpoint, device, trust_remote_code=trust_remote_code)
    bare = Evaluation(
        run=folder.url or folder.path,
        which=checkpoint,
        checkpoint=student.checkpoint.name,
        student=student.spec.student.name,
        # First, before anything else has started threads in this process.
        cost=measure_cost(student.student, student.student.backbone, student.spec.seen),
    )
    images = bare.left_out.attempt(
        lambda: _test_images(student), "predictions", "embeddings", "graphs"
    )
    found = bare if images is None else on_images(bare, student, images, probe_images, progress)
    evaluation = replace(found, seconds=time.perf_counter() - started)
    _record(folder, evaluation)
    return evaluation


def predictions_of(
    student: TrainedStudent, progress: OpenProgress = silent_progress
) -> Predictions:
    """Accuracy and calibration of a student on its labelled test images, and nothing else.

    Raises UsageError if there are none, or they are not where the run's configuration says.
    """
    source = student.config.dataset.test
    if source is None:
        raise UsageError(f"{student.config.name} has no dataset.test")
    try:
        dataset = student.numbered(open_dataset(source))
        images = Images(dataset, np.flatnonzero(dataset.labels >= 0), None)
        with progress("test", len(images.rows), unit="images") as shown:
            return predictions(collect(student, images, shown.update), LeftOut())
    except UnavailableError as error:
        raise UsageError(str(error)) from None


def _record(folder: RunFolder, evaluation: Evaluation) -> None:
    content = evaluation.as_json()
    folder.write_json(EVALUATION, content)
    if folder.finished:
        summary = folder.summary()
        known = {**summary.get("evaluation", {}), evaluation.which: content}
        folder.write_json("summary.json", {**summary, "evaluation": known})


def on_images(
    bare: Evaluation,
    student: TrainedStudent,
    images: Images,
    probe_images: int,
    progress: OpenProgress,
) -> Evaluation:
    """What test images, and training images beside them, add to an evaluation."""
    left_out = bare.left_out
    examples = left_out.attempt(lambda: examples_for(images, student, probe_images), "embeddings")
    extra = 0 if examples is None else len(examples.rows)
    with progress("evaluate", len(images.rows) + extra, unit="images") as shown:
        test = collect(student, images, shown.update)

        def after(done: int) -> None:
            shown.update(len(test.rows) + done)

        train = None if examples is None else collect(student, examples, after)
    both = test.with_teacher()
    return replace(
        bare,
        predictions=left_out.attempt(lambda: predictions(test, left_out), "predictions"),
        embeddings={} if train is None else probe_all(train, both.labelled(), left_out),
        graphs=compare_graphs(student, both, left_out),
        test_images=len(test.rows),
        probe_images=0 if train is None else len(train.rows),
    )


def _test_images(student: TrainedStudent) -> Images:
    images = open_images(student.config, "test")
    return replace(images, dataset=student.numbered(images.dataset))


def examples_for(images: Images, student: TrainedStudent, limit: int) -> Images:
    """Training images to probe with. Raises UnavailableError if the test images have no label."""
    if not (images.dataset.labels[images.rows] >= 0).any():
        raise UnavailableError(f"{images.dataset.name} has no labelled test image")
    return open_training_images(student.config, limit)


def predictions(test: Embeddings, left_out: LeftOut) -> Predictions:
    """Accuracy and calibration on labelled images. Raises UnavailableError if there are none."""
    known = test.labelled()
    if len(known.rows) == 0:
        raise UnavailableError("no test image that can be read has a label")
    error = calibration_error(known.confidence, known.top1)
    if isnan(error):
        left_out["predictions.calibration_error"] = "the student's outputs are not finite"
    top1, top5 = float(known.top1.mean()), float(known.top5.mean())
    return Predictions(100 * top1, 100 * top5, 100 * error, len(known.rows))
