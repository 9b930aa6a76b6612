"""The page of one run."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.data.inputs.blank import drawn_inputs, shape_words
from egapipe.stages.distill.data.rows.choice import ON_TEST
from egapipe.stages.evaluate.cost import count_macs, count_parameters
from egapipe.stages.report.charts.classes import (
    class_figure,
    class_rows,
    confused_pairs,
    confusion_figure,
)
from egapipe.stages.report.charts.maps import edge_figure, map_figure, map_places
from egapipe.stages.report.charts.reliability import reliability_figure
from egapipe.stages.report.charts.timing import measure, timing_figure
from egapipe.stages.report.pages.document import Section
from egapipe.stages.report.pages.dynamics import add_curves
from egapipe.stages.report.pages.evaluated import add_evaluation
from egapipe.stages.report.parts import left_out
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.sample import Sample, take_sample
from egapipe.stages.report.thumbnails import thumbnail

# Of summary.json: the name on the page, and how the value is written.
_RESULTS = {
    "top1": ("top-1 on the test images", "{:.2f} %"),
    "top5": ("top-5", "{:.2f} %"),
    "best_top1": ("top-1 of the best epoch", "{:.2f} %"),
    "ema_top1": ("top-1 of the weights' average", "{:.2f} %"),
    "validation_top1": ("top-1 on the validation images", "{:.2f} %"),
    "best_validation_top1": ("of the best epoch on them", "{:.2f} %"),
    "validation_ema_top1": ("of the weights' average on them", "{:.2f} %"),
    "teacher_top1": ("top-1 of the teacher's head", "{:.2f} %"),
    "parameters": ("parameters of the backbone", "{:,}"),
    "train_rows": ("training images", "{:,}"),
    "labelled_rows": ("of them with a label", "{:,}"),
    "train_seconds": ("training", "{:,.1f} s"),
    "rows_per_s": ("images a second", "{:,.0f}"),
    "data_wait": ("of the time waiting for data", "{:.1%}"),
}
# Classes in the table of all, and images among the worst.
_CLASSES, _WORST = 200, 24


def run_sections(run: RunFolder, *, trust_remote_code: bool = False) -> list[Section]:
    """Results, curves, embeddings, classes, timing and provenance of a run.

    A student that cannot be loaded is left out with all that is drawn of it. Raises UsageError if
    the folder is no run.
    """
    config, student = run.config(), None
    results, summary = Section("Results"), {}
    with left_out(results, "summary.json"):
        summary = run.summary() if run.finished else {}
    _add_results(results, run, summary)
    sections = [results]
    with left_out(results, "what needs the student"):
        student = load_student(run, trust_remote_code=trust_remote_code)
    if student is not None:
        _add_cost(results, student)
        sections += _pictures(results, student)
    time = Section("Time")
    with left_out(time, "the time of a training"):
        costs = measure(config, summary.get("train_seconds"))
        if costs is not None:
            time.figure(timing_figure(costs))
    if time.parts:
        sections.append(time)
    last = Section("Provenance")
    with left_out(last, "the provenance"):
        last = provenance(config, summary)
    return [*sections, last]


def _pictures(results: Section, student: TrainedStudent) -> list[Section]:
    """The sections that are drawn from what the student makes of the test images."""
    with left_out(results, "what needs the test images"):
        sample = take_sample(student)
        if sample is not None:
            aligned = student.config.distill.objective.ega is not None
            return [embeddings_section(sample, aligned=aligned), classes_section(sample)]
        results.text("There are no labelled test images, so there are no pictures of any.")
    return []


def title(run: RunFolder) -> tuple[str, str]:
    """Heading and the line below it."""
    config = run.config()
    terms = config.distill.objective.model_dump(exclude_none=True)
    objective = " + ".join(["cross-entropy", *terms])
    return config.name, f"{config.distill.student.name}, {objective}, seed {config.distill.seed}"


def _add_results(section: Section, run: RunFolder, summary: Mapping[str, Any]) -> None:
    if not summary:
        section.text("This run is not finished: figures show its last checkpoint.")
    with left_out(section, "the numbers of summary.json"):
        shown = {
            text: form.format(summary[name])
            for name, (text, form) in _RESULTS.items()
            if summary.get(name) is not None
        }
        if shown:
            section.tiles(shown)
    # Before there were others to choose by, the choice was made on test images without a word.
    if summary.get("chosen_on", "test") == "test" and "best_top1" in summary:
        section.text(f"The best epoch was {ON_TEST}.")
    with left_out(section, "the evaluation"):
        for which, evaluation in summary.get("evaluation", {}).items():
            add_evaluation(section, which, evaluation)
    with left_out(section, "the curves"):
        add_curves(section, read_metrics(run))


def _add_cost(section: Section, student: TrainedStudent) -> None:
    """What can be counted of a student, without a measurement of time."""
    with left_out(section, "the cost"):
        whole = student.student
        macs = count_macs(copy.deepcopy(whole).cpu().eval(), drawn_inputs(student.spec.seen, 1))
        section.tiles(
            {
                "parameters, head included": f"{count_parameters(whole):,}",
                f"multiply-accumulates of a {shape_words(student.spec.seen)}": f"{macs:,}",
                "weights, as float32": f"{4 * count_parameters(whole) / 1e6:,.1f} MB",
            }
        )


def embeddings_section(sample: Sample, *, aligned: bool = True) -> Section:
    """Where images lie and how they relate, for the student and its teacher.

    aligned: whether the student was trained with EGA.
    """
    section = Section("Embeddings")
    section.text(_of_checkpoint(sample))
    if sample.why:
        section.text(f"Without the teacher's embeddings: {sample.why}")
    with left_out(section, "the map of embeddings"):
        where = map_figure(sample, map_places(sample))
        if where is not None:
            section.figure(where)
    with left_out(section, "the edges"):
        edges = edge_figure(sample, aligned=aligned)
        if edges is not None:
            section.figure(edges)
        else:
            section.text("No test image has finite embeddings of both student and teacher.")
    return section


def classes_section(sample: Sample) -> Section:
    """Accuracy by class, confusions, calibration, and the worst images."""
    section = Section("Classes")
    section.text(_of_checkpoint(sample))
    with left_out(section, "accuracy and confusions by class"):
        figures = [class_figure(sample), confusion_figure(sample)]
        # Beside each other, unless one needs the page's width.
        rows = [[figure] for figure in figures] if figures[0].wide else [figures]
        for row in rows:
            section.figure(*row)
        _add_classes(section, sample)
    section.heading("Calibration")
    with left_out(section, "the reliability diagram"):
        section.figure(reliability_figure(sample))
    if sample.dataset.arrays is not None:
        return section
    section.heading("Worst images")
    with left_out(section, "the worst images"):
        shown = worst_images(sample)
        section.text("The test images with the largest cross-entropy.")
        section.pictures(shown)
    return section


def _add_classes(section: Section, sample: Sample) -> None:
    pairs = confused_pairs(sample)
    if pairs:
        section.heading("Most frequent mistakes")
        section.table(["label", "taken for", "images", "of the label"], pairs, texts=(0, 1))
    rows = class_rows(sample, _CLASSES)
    section.heading("Every class" if len(rows) < _CLASSES else f"The {_CLASSES} worst classes")
    section.table(["class", "taken most for", "n", "top-1 %", "95% interval"], rows, texts=(0, 1))


def worst_images(sample: Sample) -> list[tuple[str, str]]:
    """The test images with the largest cross-entropy, as URLs that hold them, with what the student
    took them for."""
    images = []
    for place in np.argsort(-sample.losses, kind="stable")[:_WORST]:
        image = sample.dataset.image(int(sample.rows[place]))
        text = f"{sample.described(int(place))} (loss {sample.losses[place]:.2f})"
        images.append((thumbnail(image), text))
    return images


def _of_checkpoint(sample: Sample) -> str:
    """Which weights, on which images: the best epoch's may be others."""
    name = f", {sample.checkpoint}" if sample.checkpoint else ""
    return f"The student of the last checkpoint{name}, on {len(sample.rows):,} test images."
