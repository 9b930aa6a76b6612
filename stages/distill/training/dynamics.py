"""What an epoch's evaluation records beside the accuracy, for the learning dynamics of a report."""

import math

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import CLEAN
from egapipe.stages.distill.data.inputs.images import readable
from egapipe.stages.distill.model.precision import PRECISIONS, autocast
from egapipe.stages.distill.setup import Job
from egapipe.stages.distill.training.evaluation import Accuracy, Evaluation

# Nodes of the graphs: all pairs of them are edges.
_IMAGES = 256
_EQUAL = 1e-9


def learning_dynamics(
    job: Job, images: Evaluation | None, split: str, accuracy: Accuracy | None
) -> dict[str, float]:
    """The loss on images that are not learned from, and the agreement of student and teacher.

    All workers call it; the first alone looks at the graphs, and its record is the run's. What is
    not finite, or cannot be measured, is left out. images: those of `accuracy`.
    """
    if images is None or accuracy is None:
        return {}
    found = {f"{split}/loss": accuracy.loss}
    features = _features(job, split)
    if features is not None:

        def measure() -> None:
            found[f"{split}/graph"] = graph_agreement(job, images, features)

        job.world.agree(measure if job.world.is_main else lambda: None)
    return {name: value for name, value in found.items() if math.isfinite(value)}


@torch.no_grad()
def graph_agreement(job: Job, images: Evaluation, features: Features) -> float:
    """Pearson correlation between the edges of student and teacher, over pairs of some images.

    Edges as EGA has them (arXiv 2211.13264, section 3): correlations between nodes, behind the node
    layers of both. Of at most 256 images, always the same. NaN for fewer than three of them, or
    edges that are all equal.
    """
    rows = images.rows[features.valid[images.rows]]
    rows = rows[np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).round().astype(int)]
    rows, pixels = readable(images.images, rows) if len(rows) else (rows, torch.empty(0))
    if len(rows) < 3:
        return math.nan
    device, student = job.world.device, job.model.student
    with autocast(device, PRECISIONS[job.config.distill.precision]):
        nodes = student.forward(pixels.to(device))[0].float()
    teacher = job.model.teacher_head(features.take(rows, CLEAN).to(device).float())[0].float()
    return _edge_correlation(*(one.cpu().numpy() for one in (nodes, teacher)))


def _edge_correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """one: [n, D], other: [n, E]."""
    upper = np.triu_indices(len(one), 1)
    pair = np.array([correlations(rows)[upper] for rows in (one, other)])
    if not np.isfinite(pair).all() or (np.ptp(pair, axis=1) < _EQUAL).any():
        return math.nan
    agreed: npt.NDArray[np.float64] = np.corrcoef(pair)
    return float(agreed[0, 1])


def _features(job: Job, split: str) -> Features | None:
    """The teacher's, of the images that choices are made on; None where they are in no store."""
    if split == "test":
        return None if job.teacher_test is None else job.teacher_test[0]
    held_out = len(job.sources.held_out) > 0
    return job.sources.features[0] if held_out else None
