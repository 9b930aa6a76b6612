"""The teacher's head, trained first and frozen (`head.mode: sequential`)."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.store import Features
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.rows.order import epoch_batches
from egapipe.stages.distill.model.cross_entropy import masked_cross_entropy
from egapipe.stages.distill.model.student import Head, TeacherHead
from egapipe.stages.distill.training.evaluation import Accuracy, as_accuracy, count_hits
from egapipe.stages.distill.training.optimizers import sgd

# Numbers of the features that are solved for at once: 0.5 GB.
_FITTED = 2**27


def train_teacher_head(head: TeacherHead, loader: Loader) -> None:
    """Train on the labelled rows' features, without images or student, then freeze.

    Of the views that the student meets in so many epochs, the clean ones with `student_view` clean.
    Every worker does the same whole computation, and then has the first one's result: another
    machine rounds otherwise.
    """
    head.requires_grad_(True)
    if loader.config.head.solver == "lbfgs":
        _solve(head, loader)
    else:
        _descend(head, loader)
    head.requires_grad_(False)
    loader.world.broadcast(parameter.data for parameter in head.parameters())


def _descend(head: TeacherHead, loader: Loader) -> None:
    config, device = loader.config, loader.world.device
    rows = np.flatnonzero(loader.labels >= 0)
    optimizer = sgd([(head, config.head.lr)], config)
    for epoch in range(config.head.epochs):
        for batch in epoch_batches(rows, config.batch_size, config.seed, epoch):
            views = loader.plain_views(batch, epoch)
            features = loader.features.take(batch, views).to(device).float()
            labels = torch.from_numpy(loader.labels[batch]).to(device)
            loss = masked_cross_entropy(head(features)[1], labels) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _solve(head: TeacherHead, loader: Loader) -> None:
    """L-BFGS (Liu and Nocedal 1989) on the mean cross-entropy of all labelled rows, with half of
    `head.l2` times the squares of the weights."""
    config, device = loader.config.head, loader.world.device
    rows = np.flatnonzero(loader.labels >= 0)
    passes = min(_passes(loader), max(1, _FITTED // (len(rows) * loader.features.dim)))
    with torch.no_grad():
        views = (loader.plain_views(rows, epoch) for epoch in range(passes))
        parts = [loader.features.take(rows, view).to(device) for view in views]
        features = torch.cat([head.standardized(part) for part in parts])
    labels = torch.from_numpy(loader.labels[rows]).to(device).repeat(passes)
    weights = [parameter for parameter in head.parameters() if parameter.dim() > 1]
    optimizer = torch.optim.LBFGS(
        head.parameters(),
        max_iter=config.epochs,
        max_eval=2 * config.epochs,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        squares = torch.stack([weight.square().sum() for weight in weights]).sum()
        _, logits = Head.forward(head, features)
        loss = masked_cross_entropy(logits, labels) / len(labels) + config.l2 / 2 * squares
        loss.backward()
        return loss

    optimizer.step(closure)


def _passes(loader: Loader) -> int:
    """Over the rows until each was met in all of its plain views."""
    plan = loader.teacher_plan
    clean = loader.config.student_view == "clean" or plan.mix is not None
    return 1 if clean else max(1, plan.plain)


@torch.no_grad()
def teacher_accuracy(
    head: TeacherHead, features: Features, labels: npt.NDArray[np.int64], device: torch.device
) -> Accuracy:
    """Accuracy of the teacher's head on the clean views of labelled rows."""
    rows = np.flatnonzero(labels >= 0)
    hits = torch.zeros(2, dtype=torch.int64, device=device)
    for start in range(0, len(rows), 4096):
        chunk = rows[start : start + 4096]
        logits = head(features.take(chunk, 0).to(device).float())[1]
        hits += count_hits(logits, torch.from_numpy(labels[chunk]).to(device))
    return as_accuracy(hits, len(rows))
