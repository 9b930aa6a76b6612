"""The page of one run."""

from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.runs import RunFolder
from egapipe.pipeline.tracking import read_metrics
from egapipe.stages.distill import load_student
from egapipe.stages.distill.choice import ON_TEST
from egapipe.stages.report.classes import (
    class_figure,
    confused_pairs,
    confusion_figure,
    worst_html,
)
from egapipe.stages.report.curves import run_curves
from egapipe.stages.report.embedding import (
    edge_figure,
    map_figure,
    map_places,
)
from egapipe.stages.report.page import Section
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.sample import Sample, take_sample
from egapipe.stages.report.thumbnails import sheet_html
from egapipe.stages.report.timing import measure, timing_figure

# Of summary.json: the name on the page, and how the value is written.
_RESULTS = {
    "top1": ("top-1 on the test images", "{:.2f} %"),
    "top5": ("top-5", "{:.2f} %"),
    "best_top1": ("top-1 of the best epoch", "{:.2f} %"),
    "validation_top1": ("top-1 on the validation images", "{:.2f} %"),
    "best_validation_top1": ("of the best epoch on them", "{:.2f} %"),
    "teacher_top1": ("top-1 of the teacher's head", "{:.2f} %"),
    "parameters": ("parameters of the backbone", "{:,}"),
    "train_rows": ("training images", "{:,}"),
    "labelled_rows": ("of them with a label", "{:,}"),
    "train_seconds": ("training", "{:,.1f} s"),
    "rows_per_s": ("images a second", "{:,.0f}"),
    "data_wait": ("of the time waiting for data", "{:.1%}"),
}
# What `egapipe evaluate` measured, by its names.
_SPACES = {
    "nodes": "student's nodes",
    "features": "student's features",
    "teacher": "teacher's embeddings",
}
_GRAPHS = {
    "nodes": "student's nodes, teacher's embeddings",
    "features": "student's features, teacher's embeddings",
    "node_layers": "node layers of both",
}


def run_sections(run: RunFolder, *, trust_remote_code: bool = False) -> list[Section]:
    """Results, curves, embeddings, classes, timing and provenance of a run.

    Raises UsageError if the folder is no run or has no checkpoint.
    """
    student = load_student(run, trust_remote_code=trust_remote_code)
    summary = run.summary() if run.finished else {}
    sections = [_results(run, summary)]
    sample = take_sample(student)
    if sample is None:
        sections[0].text("There are no labelled test images, so there are no pictures of any.")
    else:
        sections += [embeddings_section(sample), classes_section(sample)]
    costs = measure(student.config, summary.get("train_seconds"))
    if costs is not None:
        section = Section("Time")
        section.figure(timing_figure(costs))
        sections.append(section)
    return [*sections, provenance(student.config, summary)]


def title(run: RunFolder) -> tuple[str, str]:
    """Heading and the line below it."""
    config = run.config()
    terms = config.distill.objective.model_dump(exclude_none=True)
    objective = " + ".join(["cross-entropy", *terms])
    return config.name, f"{config.distill.student.name}, {objective}, seed {config.distill.seed}"


def _results(run: RunFolder, summary: Mapping[str, Any]) -> Section:
    section = Section("Results")
    if not summary:
        section.text("This run is not finished: figures show its last checkpoint.")
    shown = {
        text: form.format(summary[name])
        for name, (text, form) in _RESULTS.items()
        if summary.get(name) is not None
    }
    if shown:
        section.tiles(shown)
    if summary.get("chosen_on") == "test":
        section.text(f"The best epoch was {ON_TEST}.")
    evaluation = summary.get("evaluation", {}).get("last")
    if evaluation:
        _add_evaluation(section, evaluation)
    metrics = read_metrics(run)
    if metrics:
        section.figure(*run_curves(metrics))
    return section


def _add_evaluation(section: Section, evaluation: Mapping[str, Any]) -> None:
    rows = [
        (
            _SPACES.get(name, name),
            of["width"],
            _shown(of["knn"], ".2f"),
            _shown(of["linear"], ".2f"),
        )
        for name, of in evaluation["embeddings"].items()
    ]
    if rows:
        section.table(["embeddings", "width", "20-NN %", "linear probe %"], rows)
    edges = [
        (
            _GRAPHS.get(name, name),
            _shown(of["edge_correlation"], ".3f"),
            _shown(of["neighbour_recall"], ".3f"),
        )
        for name, of in evaluation["graphs"].items()
    ]
    if edges:
        section.table(["graphs that are compared", "edge r", "recall@10"], edges)


def embeddings_section(sample: Sample) -> Section:
    """Where images lie and how they relate, for the student and its teacher."""
    section = Section("Embeddings")
    if sample.why:
        section.text(f"Without the teacher's embeddings: {sample.why}")
    places = map_places(sample)
    where = map_figure(sample, places)
    if where is not None:
        labels = [sample.described(int(place)) for place in places]
        section.figure(
            where, sheet=sheet_html(sample.dataset, sample.rows[places].tolist(), labels)
        )
    edges = edge_figure(sample)
    if edges is not None:
        section.figure(edges)
    else:
        section.text("No test image has finite embeddings of both student and teacher.")
    return section


def classes_section(sample: Sample) -> Section:
    """Accuracy by class, confusions, and the worst images."""
    section = Section("Classes")
    section.figure(class_figure(sample), confusion_figure(sample))
    pairs = confused_pairs(sample)
    if pairs:
        section.table(["label", "taken for", "images", "of the label"], pairs, texts=2)
    section.heading("Worst images")
    section.text("The test images with the largest cross-entropy.")
    section.parts.append(worst_html(sample))
    return section


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
