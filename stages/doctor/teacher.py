"""Checks of the teacher, of its embeddings and of the graph they make."""

from pathlib import Path

import numpy as np
import torch

from egapipe.pipeline.config.teachers import RunTeacher
from egapipe.pipeline.store.format.dtypes import is_finite, to_stored
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.objectives import ega_loss
from egapipe.stages.doctor.parts import MissingError, Parts
from egapipe.stages.doctor.report import Result, fail, ok, warn
from egapipe.stages.extract.teachers import check_distinct
from egapipe.stages.extract.teachers.weights import weights_sha256

# Of float32 sums over a few images; a graph that differs is many times as far off.
_ROUNDING = 1e-3
_ALIKE = 0.999
# A few images may well be alike; of two the graph has one edge, whatever their order.
_FEW, _FEWEST = 8, 3


def check_teacher(parts: Parts) -> Result:
    """Its embeddings of real images are finite, in the stored type too, and not constant."""
    teacher, dtype = parts.teacher.get(), parts.config.store.dtype
    embeddings = parts.embeddings.get().numpy()
    images, width = embeddings.shape
    bad = int((~np.isfinite(embeddings)).any(axis=1).sum())
    if bad:
        return fail(
            f"embeddings of {bad} of {images} images are not finite: check the weights, or set "
            "teacher.precision=float32"
        )
    check_distinct(teacher, parts.pixels.get(), {"embedding": embeddings})
    if not is_finite(to_stored(embeddings, dtype), dtype).all():
        return fail(f"embeddings are too large for {dtype}: set store.dtype=bfloat16 or float32")
    said = f"{teacher.spec['model']}: {images} x {width} on {parts.device().type}, finite"
    alike = float(np.corrcoef(embeddings)[np.triu_indices(images, 1)].min()) if width > 1 else 0.0
    if alike > _ALIKE and images >= _FEW:
        return warn(
            f"{said}, but all images correlate above {alike:.4f}: check teacher.pooling and the "
            "teacher's weights, there is little graph to learn"
        )
    return ok(f"{said}, not constant")


def check_ega(parts: Parts) -> Result:
    """The graph of a batch equals itself: its edges are 0 apart, and not those of a shuffled one.

    The nodes are not at 0: N_st - I keeps the correlations between different images. They are
    compared with numpy's.
    """
    batch = parts.embeddings.get()
    if len(batch) < _FEWEST:
        raise MissingError(
            f"a graph that can be shuffled needs {_FEWEST} images, {len(batch)} are here"
        )
    edges = float(ega_loss(batch, batch, node_weight=0, edge_weight=1))
    others = float(ega_loss(batch.roll(1, 0), batch, node_weight=0, edge_weight=1))
    nodes = float(ega_loss(batch, batch, node_weight=1, edge_weight=0))
    expected = _node_distance(batch)
    if not edges <= _ROUNDING:
        return fail(f"the edges of a batch are {edges:.3g} from themselves: install torch again")
    if not abs(nodes - expected) <= _ROUNDING * max(1.0, expected):
        return fail(f"the nodes of a batch are at {nodes:.4g}, numpy finds {expected:.4g}")
    if not others > _ROUNDING and len(batch) >= _FEW:
        return fail(
            "all pairs of images correlate alike, the graph says nothing: check teacher.pooling "
            "and the teacher's weights"
        )
    return ok(f"edges of a batch and itself {edges:.2g} apart, of a shuffled one {others:.2g}")


def _node_distance(batch: torch.Tensor) -> float:
    """||N - I||_F of a batch and itself in float64; a row without variance correlates with none."""
    rows = batch.numpy().astype(np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms == 0, 1, norms)
    return float(np.linalg.norm(unit @ unit.T - np.eye(len(unit))))


def check_not_student(parts: Parts) -> Result:
    """The teacher is not the student: neither its run folder nor its weights."""
    config, settings = parts.config, parts.config.teacher
    own = training_folder(config).path
    # A link that follows the newest run ends there.
    if isinstance(settings, RunTeacher) and Path(settings.model).resolve() == own.resolve():
        return fail(f"teacher.model is {own}, the run of this very configuration: name another run")
    teacher, backbone = parts.teacher.get(), parts.backbone.get()
    if weights_sha256(backbone) == teacher.spec.get("sha256"):
        return fail(
            f"student {config.distill.student.name} starts with the teacher's weights: choose "
            "another distill.student, or one without pretrained weights"
        )
    return ok(f"{teacher.spec['model']} and {config.distill.student.name} differ in their weights")
