"""The page of one run."""

from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.data.choice import ON_TEST
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
from egapipe.stages.report.parts import left_out
from egapipe.stages.report.provenance import provenance
from egapipe.stages.report.sample import Sample, take_sample
from egapipe.stages.report.thumbnails import sheet_html
from egapipe.stages.report.timing import measure, timing_figure

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
_WHICH = {"last": "last epoch", "best": "best epoch", "ema": "weights' moving average"}
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
        metrics = read_metrics(run)
        if metrics:
            section.figure(*run_curves(metrics))


def add_evaluation(section: Section, which: str, found: Mapping[str, Any]) -> None:
    """What `egapipe evaluate` measured of one checkpoint: predictions, embeddings, graphs, cost."""
    section.heading(f"Evaluation of the {_WHICH.get(which, which)}")
    predictions, cost = found.get("predictions"), found.get("cost")
    if predictions:
        section.table(
            ["test images", "top-1 %", "top-5 %", "expected calibration error %"],
            [
                [
                    f"{predictions['images']:,}",
                    *(_shown(predictions[k], ".2f") for k in ("top1", "top5", "calibration_error")),
                ]
            ],
            texts=0,
        )
    rows = [
        (
            _SPACES.get(name, name),
            of["width"],
            _shown(of["knn"], ".2f"),
            _shown(of["linear"], ".2f"),
        )
        for name, of in found.get("embeddings", {}).items()
    ]
    if rows:
        section.table(["embeddings", "width", "20-NN %", "linear probe %"], rows)
    edges = [
        (
            _GRAPHS.get(name, name),
            _shown(of["edge_correlation"], ".3f"),
            _shown(of["neighbour_recall"], ".3f"),
        )
        for name, of in found.get("graphs", {}).items()
    ]
    if edges:
        section.table(["graphs that are compared", "edge r", "recall@10"], edges)
    if cost:
        section.table(["cost", ""], _cost(cost))
    reasons = list(found.get("left_out", {}).items())
    if reasons:
        section.long_texts(["left out", "why"], reasons)


def _cost(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{cost['parameters']:,}"),
        ("of them in the backbone", f"{cost['backbone_parameters']:,}"),
        ("multiply-accumulates an image", f"{cost['macs']:,}"),
        *(
            (f"ms on one CPU thread, batch {of['batch']}", f"{of['milliseconds']:.2f}")
            for of in cost["latency"]
        ),
    ]


def embeddings_section(sample: Sample, *, aligned: bool = True) -> Section:
    """Where images lie and how they relate, for the student and its teacher.

    aligned: whether the student was trained with EGA.
    """
    section = Section("Embeddings")
    section.text(_of_checkpoint(sample))
    if sample.why:
        section.text(f"Without the teacher's embeddings: {sample.why}")
    with left_out(section, "the map of embeddings"):
        places = map_places(sample)
        where = map_figure(sample, places)
        if where is not None:
            labels = [sample.described(int(place)) for place in places]
            section.figure(
                where, sheet=sheet_html(sample.dataset, sample.rows[places].tolist(), labels)
            )
    with left_out(section, "the edges"):
        edges = edge_figure(sample, aligned=aligned)
        if edges is not None:
            section.figure(edges)
        else:
            section.text("No test image has finite embeddings of both student and teacher.")
    return section


def classes_section(sample: Sample) -> Section:
    """Accuracy by class, confusions, and the worst images."""
    section = Section("Classes")
    section.text(_of_checkpoint(sample))
    with left_out(section, "accuracy and confusions by class"):
        section.figure(class_figure(sample), confusion_figure(sample))
        pairs = confused_pairs(sample)
        if pairs:
            section.table(["label", "taken for", "images", "of the label"], pairs, texts=2)
    section.heading("Worst images")
    with left_out(section, "the worst images"):
        shown = worst_html(sample)
        section.text("The test images with the largest cross-entropy.")
        section.parts.append(shown)
    return section


def _of_checkpoint(sample: Sample) -> str:
    """Which weights, on which images: the best epoch's may be others."""
    name = f", {sample.checkpoint}" if sample.checkpoint else ""
    return f"The student of the last checkpoint{name}, on {len(sample.rows):,} test images."


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
