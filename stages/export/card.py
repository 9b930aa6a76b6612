"""The model card of an exported student, in the layout of the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

import yaml

from egapipe.stages.distill import TrainedStudent
from egapipe.stages.export.folder import ONNX

_TAGS = ["knowledge-distillation", "embedding-graph-alignment", "egapipe"]


def model_card(
    student: TrainedStudent, summary: Mapping[str, Any], record: Mapping[str, Any], licence: str
) -> str:
    """README.md: what the student is, what it learned from, how good and how fast it is.

    summary: of the run, empty while it is not finished. record: the content of export.json.
    """
    parts = [
        "---",
        yaml.safe_dump(_front(student, summary, licence), sort_keys=False).rstrip(),
        "---",
        "",
        f"# {_title(student)}",
        "",
        _what(student),
        "",
        *_provenance(student, summary),
        *_results(summary),
        *_files(record),
        *_use(student, record),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front(student: TrainedStudent, summary: Mapping[str, Any], licence: str) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": licence,
        "library_name": "egapipe",
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS, student.spec.student.name],
    }
    if "top1" in summary:
        front |= {"metrics": ["accuracy"], "model-index": [_index(student, summary)]}
    return front


def _index(student: TrainedStudent, summary: Mapping[str, Any]) -> dict[str, Any]:
    test = student.config.dataset.test
    metrics = [
        {"type": "accuracy", "name": name, "value": round(float(summary[key]), 2)}
        for key, name in (("top1", "top-1, %"), ("top5", "top-5, %"))
        if key in summary
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": test.kind if test else "none", "name": student.config.name},
        "metrics": metrics,
    }
    return {"name": _title(student), "results": [result]}


def _title(student: TrainedStudent) -> str:
    return f"{student.config.name}-{student.spec.student.name}".replace(":", ".")


def _what(student: TrainedStudent) -> str:
    height, width = student.spec.size
    teacher = student.config.teacher
    return (
        f"A {student.spec.student.name} for {student.spec.classes} classes, distilled from the "
        f"stored embeddings of {_code(teacher.backend)} teacher {_code(_teacher_name(student))}. "
        f"It takes RGB images of {height} x {width} pixels as bytes (uint8, 0 to 255); the "
        "normalisation is part of the model."
    )


def _teacher_name(student: TrainedStudent) -> str:
    return str(getattr(student.config.teacher, "model", student.config.teacher.backend))


def _provenance(student: TrainedStudent, summary: Mapping[str, Any]) -> list[str]:
    distill = student.config.distill
    terms = distill.objective.model_dump(mode="json", exclude_none=True)
    objective = ", ".join(f"{name} {options['weight']:g}" for name, options in terms.items())
    rows = {
        "objective": f"cross-entropy {distill.ce_weight:g}" + (objective and f", {objective}"),
        "lambda_EGA": f"{terms['ega']['weight']:g}" if "ega" in terms else None,
        "epochs, batch, seed": f"{distill.epochs}, {distill.batch_size}, {distill.seed}",
        "checkpoint": _code(student.checkpoint.name),
    }
    store = summary.get("store", {})
    if store:
        rows["store, manifest"] = _code(store["manifest_hash"])
        rows["store, content"] = _code(store["content_hash"])
    if "train_rows" in summary:
        rows["training images"] = (
            f"{summary['train_rows']:,}, {summary['labelled_rows']:,} labelled"
        )
    if "versions" in summary:
        rows["software"] = ", ".join(f"{k} {v}" for k, v in summary["versions"].items())
    return ["## Made from", "", *_table(["", ""], [[k, v] for k, v in rows.items() if v]), ""]


def _results(summary: Mapping[str, Any]) -> list[str]:
    names = {
        "top1": "top-1 on the test images, %",
        "top5": "top-5, %",
        "teacher_top1": "the teacher's head on the same labels, top-1, %",
        "parameters": "parameters without the head",
    }
    rows = [[text, _number(summary[key])] for key, text in names.items() if key in summary]
    predictions = summary.get("evaluation", {}).get("last", {}).get("predictions")
    if predictions:
        error = f"{predictions['calibration_error']:.2f}"
        rows.append(["expected calibration error, %", error])
    return ["## Results", "", *_table(["", ""], rows), ""] if rows else []


def _files(record: Mapping[str, Any]) -> list[str]:
    batches = list(record["reference_milliseconds"])
    rows = [["the student in torch", "", "", *_times(record["reference_milliseconds"], batches)]]
    rows += [
        [
            _code(file["file"]),
            f"{file['bytes'] / 1e6:.2f}",
            f"{file['error']:.1e}",
            *_times(file["milliseconds"], batches),
        ]
        for file in record["files"]
    ]
    heading = ["file", "MB", "largest error", *(f"ms, batch {batch}" for batch in batches)]
    about = (
        f"Each was read back and compared with the student on {record['images']} real images; "
        "the error is a share of the largest output. Times are medians on one CPU thread."
    )
    return ["## Files", "", about, "", *_table(heading, rows), ""]


def _times(milliseconds: Mapping[Any, float], batches: list[Any]) -> list[str]:
    return [f"{milliseconds[batch]:.2f}" for batch in batches]


def _use(student: TrainedStudent, record: Mapping[str, Any]) -> list[str]:
    height, width = student.spec.size
    lines = ["## Use", "", "```sh", "egapipe predict FOLDER_OF_THIS_FILE images/*.jpg", "```", ""]
    if any(file["file"] == ONNX for file in record["files"]):
        lines += [
            "```python",
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image",
            "",
            f'session = onnxruntime.InferenceSession("{ONNX}")',
            'image = Image.open("photo.jpg").convert("RGB")',
            f"image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)",
            "batch = np.asarray(image).transpose(2, 0, 1)[None]",
            'logits, nodes, features = session.run(None, {"images": batch})',
            "```",
            "",
        ]
    return lines


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _code(text: str) -> str:
    return f"`{text}`"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
