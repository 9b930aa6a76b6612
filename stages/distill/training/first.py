"""What is learned from cached features before the student starts."""

from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.training.heads import train_teacher_head
from egapipe.stages.distill.training.learner import Learner, head_first


def fit_first(learner: Learner, loader: Loader) -> None:
    """Train the teacher's head, where it is learned first, and give the student's head, and its
    average, what an objective reuses of it."""
    model = learner.model
    if head_first(model, loader.config):
        train_teacher_head(model.teacher_head, loader)
    for part in model.objective.reused:
        known = model.teacher_head.get_submodule(part).state_dict()
        model.student.head.get_submodule(part).load_state_dict(known)
    if learner.average is not None:
        learner.average.restart()
