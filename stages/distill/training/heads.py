"""The teacher's head, trained first and frozen (`head.mode: sequential`)."""

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.store import Features
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.order import epoch_batches
from egapipe.stages.distill.model.student import TeacherHead, masked_cross_entropy
from egapipe.stages.distill.training.evaluation import Accuracy, as_accuracy, count_hits
from egapipe.stages.distill.training.learner import Learner
from egapipe.stages.distill.training.schedule import make_optimizer


def train_teacher_head(head: TeacherHead, loader: Loader) -> None:
    """Train on the labelled rows' features, without images or student, then freeze.

    Of the views that the student meets in so many epochs, the clean ones with `student_view` clean.
    Every worker does the same whole computation, so that the heads agree without communication.
    """
    config, device = loader.config, loader.world.device
    rows = np.flatnonzero(loader.labels >= 0)
    head.requires_grad_(True)
    optimizer = make_optimizer([(head, config.head.lr)], config)
    for epoch in range(config.head.epochs):
        for batch in epoch_batches(rows, config.batch_size, config.seed, epoch):
            views = loader.teacher_views(batch, epoch)
            features = loader.features.take(batch, views).to(device).float()
            labels = torch.from_numpy(loader.labels[batch]).to(device)
            loss = masked_cross_entropy(head(features)[1], labels) / len(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    head.requires_grad_(False)


def reuse_classifier(learner: Learner) -> None:
    """Let the student, and its average, classify as the teacher's head does (SimKD)."""
    model = learner.model
    model.student.head.classifier.load_state_dict(model.teacher_head.classifier.state_dict())
    if learner.average is not None:
        learner.average.restart()


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
