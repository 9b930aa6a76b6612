"""Checks of the student."""

import numpy as np
import torch

from egapipe.pipeline.config.data import ArrayType, Normalize, holds_arrays
from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill.data.inputs.images import Frame, StreamedImages
from egapipe.stages.distill.data.sources import student_frame
from egapipe.stages.distill.model.student import Student
from egapipe.stages.distill.setup import number_of_classes, student_spec
from egapipe.stages.distill.training.schedule import check_milestones
from egapipe.stages.doctor.parts import MissingError, Parts
from egapipe.stages.doctor.report import Result, fail, ok, warn


@torch.no_grad()
def check_student(parts: Parts) -> Result:
    """It is built, and its fresh weights give finite, different logits for real images."""
    config, dataset = parts.config, parts.dataset("train")
    check_milestones(config.distill)
    backbone, seen = parts.backbone.get(), _seen(parts)
    classes = max(1, number_of_classes(dataset, dataset.labels))
    normalize = _normalize(parts) if isinstance(seen, Frame) else None
    spec = student_spec(config, backbone, dataset.classes, classes, seen, normalize)
    student = spec.build(backbone).eval()
    nodes, logits = student(_images(parts, seen))
    for name, output in {"nodes": nodes, "logits": logits}.items():
        if not bool(torch.isfinite(output).all()):
            return fail(f"{name} of the untrained student are not finite: check its architecture")
    if bool((logits == logits[:1]).all()):
        return fail("the untrained student gives the same logits for different images")
    return ok(_described(student, config.distill.student.name, nodes.shape[1], classes, seen))


def _normalize(parts: Parts) -> Normalize:
    """Of the student's images; where nobody knows it, any: only finite numbers are asked for."""
    try:
        return parts.config.distill.normalize or teacher_normalize(parts)
    except MissingError:
        return Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def check_student_normalisation(parts: Parts) -> Result:
    """Images are normalised for the student as they are for the teacher."""
    if holds_arrays(parts.config.dataset.train):
        return ok("arrays are seen as they are")
    own = parts.config.distill.normalize
    theirs = teacher_normalize(parts)
    if own is None or own == theirs:
        source = "the teacher's" if own is None else "distill.normalize, as the teacher's"
        return ok(f"mean {list(theirs.mean)}, std {list(theirs.std)}: {source}")
    return warn(
        f"distill.normalize has mean {list(own.mean)}, std {list(own.std)}, the teacher mean "
        f"{list(theirs.mean)}, std {list(theirs.std)}: set it to null unless that is meant"
    )


def teacher_normalize(parts: Parts) -> Normalize:
    """The teacher's input normalisation, which is the student's default."""
    if isinstance(parts.config.teacher, ImportedTeacher):
        return parts.config.teacher.normalize
    used = parts.teacher.get().preprocessing.to_json()
    return Normalize(mean=used["mean"], std=used["std"])


def _seen(parts: Parts) -> Frame | ArrayType:
    """What the student sees; where there is no store yet, as the configuration says."""
    try:
        plan = parts.store("train").manifest.plan
    except MissingError:
        plan = parts.config.views
    return student_frame(parts.config, parts.dataset("train"), plan)


def _images(parts: Parts, seen: Frame | ArrayType) -> torch.Tensor:
    """The clean views of the sampled rows at the student's size, uint8 [B, 3, H, W], or arrays."""
    dataset, rows = parts.dataset("train"), parts.rows.get()
    if not isinstance(seen, Frame):
        return torch.from_numpy(np.stack([dataset.array(int(row))[0] for row in rows]))
    images = StreamedImages(dataset, key_hashes(dataset.keys), seen, torch.device("cpu"), 1)
    return images.clean(rows)


def _described(
    student: Student, name: str, nodes: int, classes: int, seen: Frame | ArrayType
) -> str:
    millions = sum(p.numel() for p in student.backbone.parameters()) / 1e6
    sides = " x ".join(map(str, seen.size if isinstance(seen, Frame) else seen.shape))
    of = f"{'images' if isinstance(seen, Frame) else 'arrays'} of {sides}"
    return (
        f"{name}: {millions:.2f} M parameters, {of} to {nodes} nodes and {classes} classes, finite"
    )
