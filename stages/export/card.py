"""The model card of an exported student, in the layout of the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

import yaml

from egapipe.pipeline.terminal.markdown import code, markdown, sentence, table
from egapipe.stages.distill import TrainedStudent
from egapipe.stages.export.agreement import Agreement, in_words
from egapipe.stages.export.folder import ONNX
from egapipe.stages.export.hub_names import data_set_id, known_on_hub
from egapipe.stages.export.preprocessing import KEY, snippet

_WHICH = {"last": "last epoch", "best": "best epoch", "ema": "moving average of the weights"}
_TAGS = ["knowledge-distillation", "embedding-graph-alignment", "egapipe"]


def model_card(
    student: TrainedStudent, summary: Mapping[str, Any], record: Mapping[str, Any], licence: str
) -> str:
    """README.md: what the student is, what it learned from, how good and how fast it is.

    summary: of the run, empty while it is not finished; where it comes from, not how good it is.
    record: the content of export.json.
    """
    parts = [
        "---",
        yaml.safe_dump(_front(student, record, licence), sort_keys=False).rstrip(),
        "---",
        "",
        f"# {markdown(_title(student))}",
        "",
        _what(student),
        "",
        *_provenance(student, summary, record),
        *_results(summary, record),
        *_files(record),
        *_use(record),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front(student: TrainedStudent, record: Mapping[str, Any], licence: str) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": licence,
        "library_name": record.get("native") or "egapipe",
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS, student.spec.student.name],
        **known_on_hub(student.config),
    }
    if "top1" in record["accuracy"]:
        index = _index(student, record["accuracy"])
        front |= {"metrics": ["accuracy"], "model-index": [index]}
    return front


def _index(student: TrainedStudent, accuracy: Mapping[str, Any]) -> dict[str, Any]:
    test = student.config.dataset.test
    metrics = [
        {"type": "accuracy", "name": name, "value": round(float(accuracy[key]), 2)}
        for key, name in (("top1", "top-1, %"), ("top5", "top-5, %"))
        if accuracy[key] is not None
    ]
    kind = data_set_id(test) or (test.kind if test else "none")
    dataset = {"type": kind, "name": student.config.name, "split": accuracy["split"]}
    if accuracy["images"] is not None:
        # The hub's schema has no number of images of a metric; these are free for anything.
        dataset["args"] = {"labelled_images": accuracy["images"]}
    result = {
        "task": {"type": "image-classification", "name": "image classification"},
        "dataset": dataset,
        "metrics": metrics,
    }
    return {"name": _title(student), "results": [result]}


def _title(student: TrainedStudent) -> str:
    return f"{student.config.name}-{student.spec.student.name}".replace(":", ".")


def _what(student: TrainedStudent) -> str:
    height, width = student.spec.frame.size
    teacher, name = student.config.teacher, markdown(student.spec.student.name)
    return (
        f"A {name} for {student.spec.classes} classes, distilled from the stored embeddings of "
        f"{code(teacher.backend)} teacher {code(_teacher_name(student))}. It takes RGB images of "
        f"{height} x {width} pixels as bytes (uint8, 0 to 255); the normalisation is part of the "
        "model."
    )


def _teacher_name(student: TrainedStudent) -> str:
    return str(getattr(student.config.teacher, "model", student.config.teacher.backend))


def _provenance(
    student: TrainedStudent, summary: Mapping[str, Any], record: Mapping[str, Any]
) -> list[str]:
    distill = student.config.distill
    terms = distill.objective.model_dump(mode="json", exclude_none=True)
    objective = ", ".join(f"{name} {_weight(options)}" for name, options in terms.items())
    rows = {
        "objective": f"cross-entropy {distill.ce_weight:g}" + (objective and f", {objective}"),
        "lambda_EGA": _weight(terms["ega"]) if "ega" in terms else None,
        "epochs, batch, seed": f"{distill.epochs}, {distill.batch_size}, {distill.seed}",
        "checkpoint": f"{_WHICH[record['which']]}, {code(student.checkpoint.name)}",
    }
    store = summary.get("store", {})
    if store:
        rows["store, manifest"] = code(store["manifest_hash"])
        rows["store, content"] = code(store["content_hash"])
    if "train_rows" in summary:
        rows["training images"] = (
            f"{summary['train_rows']:,}, {summary['labelled_rows']:,} labelled"
        )
    if "versions" in summary:
        rows["software"] = markdown(", ".join(f"{k} {v}" for k, v in summary["versions"].items()))
    return ["## Made from", "", *table(["", ""], [[k, v] for k, v in rows.items() if v]), ""]


def _weight(options: Mapping[str, Any]) -> str:
    """Of an objective, in words."""
    weight, ratio = options["weight"], options["ratio"]
    if weight != "auto":
        return f"{weight:g}"
    return "auto" if ratio == "auto" else f"auto, ratio {ratio:g}"


def _results(summary: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Of the exported weights and no others."""
    found = record["accuracy"]
    if "left_out" in found:
        return ["## Results", "", f"The accuracy is not known: {sentence(found['left_out'])}", ""]
    names = {
        "top1": "top-1, %",
        "top5": "top-5, %",
        "calibration_error": "expected calibration error, %",
        "teacher_top1": "the teacher's head on the same labels, top-1, %",
    }
    rows = [[text, _number(found[key])] for key, text in names.items() if found[key] is not None]
    if "parameters" in summary:
        rows.append(["parameters without the head", _number(summary["parameters"])])
    many = "the" if found["images"] is None else f"{found['images']:,}"
    weights = f"{_WHICH[found['which']]}, {code(found['checkpoint'])}"
    about = f"These weights ({weights}) on {many} labelled images of the {found['split']} split"
    about += f": {sentence(found['note'])}" if found["note"] else "."
    return ["## Results", "", about, "", *table(["", ""], rows), ""]


def _files(record: Mapping[str, Any]) -> list[str]:
    batches = list(record["reference_milliseconds"])
    rows = [["the student in torch", "", "", *_times(record["reference_milliseconds"], batches)]]
    rows += [
        [
            code(file["file"]),
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
    reduced = [(file["file"], file["agreement"]) for file in record["files"] if file["agreement"]]
    lines = [f"- {code(file)}: {in_words(Agreement(**found))}" for file, found in reduced]
    return ["## Files", "", about, "", *table(heading, rows), "", *(lines and [*lines, ""])]


def _times(milliseconds: Mapping[Any, float], batches: list[Any]) -> list[str]:
    return [f"{milliseconds[batch]:.2f}" for batch in batches]


def _use(record: Mapping[str, Any]) -> list[str]:
    """How to run it, with pictures as `egapipe predict` reads them."""
    lines = ["## Use", "", "```sh", "egapipe predict FOLDER_OF_THIS_FILE images/*.jpg", "```", ""]
    if record.get("native"):
        lines += loading(str(record["native"]))
    if any(file["file"] == ONNX for file in record["files"]):
        about = (
            "Or without egapipe. How a picture becomes the input is said inside the file, under "
            f"{code(KEY)}:"
        )
        lines += [about, "", "```python", *snippet(ONNX), "```", ""]
    return lines


def loading(library: str, repository: str | None = None) -> list[str]:
    """How a library loads its own checkpoint: out of its folder, or from a repository of the hub,
    where it lies at the top."""
    place = repository or library
    sources = {
        "transformers": f"""from transformers import pipeline

classify = pipeline("image-classification", "{place}")
print(classify("photo.jpg"))""",
        "timm": f"""import timm

network = timm.create_model("{f"hf-hub:{place}" if repository else f"local-dir:{place}"}", \
pretrained=True)
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))""",
        "torchvision": f"""import json

import torchvision
from safetensors.torch import load_file

about = json.load(open("{"DOWNLOADED" if repository else place}/config.json"))
network = torchvision.models.get_model(about["architecture"], **about["args"]).eval()
network.load_state_dict(load_file("{"DOWNLOADED" if repository else place}/model.safetensors"))""",
    }
    about = f"With {library} alone" + ("" if repository else f", from the folder {code(library)}")
    return [f"{about}:", "", "```python", *sources[library].splitlines(), "```", ""]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
