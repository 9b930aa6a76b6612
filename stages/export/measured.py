"""How good the exported weights are: measured on those very weights, never on another epoch's."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.progress import OpenProgress
from egapipe.stages.distill import TrainedStudent
from egapipe.stages.distill.data.rows.choice import ON_TEST
from egapipe.stages.distill.setup import pick_device
from egapipe.stages.evaluate import predictions_of

SPLIT = "test"
# Of a finished run's summary: what was measured of which weights when training ended.
_RECORDED = {"last": "", "best": "best_", "ema": "ema_"}


@dataclass(frozen=True)
class Accuracy:
    """Of one checkpoint's weights on the images of `split`.

    which: `last`, `best` or `ema`. checkpoint: the folder of the weights. images: how many count;
    None where only training's record is left, which does not say. top1, top5, calibration_error: %.
    teacher_top1: of the teacher's head of the same checkpoint, on the stored embeddings, %. note:
    what has to be known beside the numbers, such as that they chose the epoch.
    """

    which: str
    checkpoint: str
    split: str
    images: int | None
    top1: float
    top5: float | None = None
    calibration_error: float | None = None
    teacher_top1: float | None = None
    note: str = ""


def measured(
    folder: RunFolder, student: TrainedStudent, which: str, progress: OpenProgress
) -> Accuracy | str:
    """The accuracy of a run's checkpoint, or why there is none.

    What `egapipe evaluate` wrote of the same weights is taken, else they are measured. Without the
    test images, what training recorded of them is.
    """
    summary = folder.summary() if folder.finished else {}
    known = _evaluated(summary, student, which)
    reason = ""
    if known is None:
        try:
            known = _now(student, progress)
        except UsageError as error:
            known, reason = _recorded(summary, which), str(error)
    if known is None:
        return reason
    return Accuracy(
        which=which,
        checkpoint=student.checkpoint.name,
        split=SPLIT,
        **known,
        teacher_top1=_teacher(summary, student),
        note=". ".join(_notes(summary, which, reason)),
    )


def _evaluated(
    summary: Mapping[str, Any], student: TrainedStudent, which: str
) -> dict[str, Any] | None:
    """Predictions that `egapipe evaluate` wrote of these weights."""
    for found in summary.get("evaluation", {}).values():
        same = found.get("checkpoint") == student.checkpoint.name
        if same and (found.get("which") == "ema") == (which == "ema") and found.get("predictions"):
            return dict(found["predictions"])
    return None


def _now(student: TrainedStudent, progress: OpenProgress) -> dict[str, Any]:
    """Raises UsageError if there are no labelled test images."""
    device = pick_device("auto")
    copied = copy.deepcopy(student.student).to(device)
    of = predictions_of(replace(student, student=copied, device=device), progress)
    return {
        "top1": of.top1,
        "top5": of.top5,
        "calibration_error": of.calibration_error,
        "images": of.images,
    }


def _recorded(summary: Mapping[str, Any], which: str) -> dict[str, Any] | None:
    prefix = _RECORDED[which]
    if f"{prefix}top1" not in summary:
        return None
    top5 = summary.get(f"{prefix}top5")
    return {"top1": summary[f"{prefix}top1"], "top5": top5, "images": None}


def _teacher(summary: Mapping[str, Any], student: TrainedStudent) -> float | None:
    """Training measures the teacher's head once, as it is at the end."""
    same = str(summary.get("checkpoint", "")).endswith(student.checkpoint.name)
    return summary.get("teacher_top1") if same else None


def _notes(summary: Mapping[str, Any], which: str, reason: str) -> Iterable[str]:
    if which == "best" and summary.get("chosen_on", SPLIT) == SPLIT:
        yield f"the epoch was {ON_TEST}"
    elif which == "best":
        yield "the epoch was chosen on validation images, which are others"
    if reason:
        yield f"as training recorded it, for it cannot be measured now: {reason}"
