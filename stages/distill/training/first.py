"""What is learned from cached features before the student starts."""

from collections.abc import Iterator
from functools import partial
from typing import cast

import torch

from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.model.student import TeacherHead
from egapipe.stages.distill.objectives import Cached, Objective, Start
from egapipe.stages.distill.training.heads import train_teacher_head
from egapipe.stages.distill.training.learner import Learner, head_first


def fit_first(learner: Learner, loader: Loader) -> None:
    """Train the teacher's head, where it is learned first, give the student's head what an
    objective reuses of it, and let the objectives fit their own parts."""
    model = learner.model
    if head_first(model, loader.config) and (loader.labels >= 0).any():
        train_teacher_head(model.teacher_head, loader)
    start = Start(partial(_cached, model.teacher_head, loader))
    for student, objective in model.learning.values():
        for part in objective.reused:
            known = model.teacher_head.get_submodule(part).state_dict()
            student.head.get_submodule(part).load_state_dict(known)
        for one in objective.objectives.values():
            cast(Objective, one).fit(start)
        loader.world.broadcast(parameter.data for parameter in objective.parameters())
    if learner.average is not None:
        learner.average.restart()


@torch.no_grad()
def _cached(head: TeacherHead, loader: Loader, epoch: int) -> Iterator[Cached]:
    for entries in loader.whole(epoch):
        features = loader.features.take(entries.rows, entries.views).to(loader.world.device)
        numbers = (loader.labels_of(entries), entries.rows, entries.views)
        there = (torch.from_numpy(one).to(loader.world.device) for one in numbers)
        yield Cached(head.standardized(features), *there)
