"""The teacher's classifier, learned first, is the student's too."""

import torch

from egapipe.stages import distill
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_training import weights

SIMKD = "distill.objective={simkd: 1.0}"


def test_the_student_classifies_as_the_teacher_does(quick: MakeConfig) -> None:
    few = ("distill.epochs=1", "distill.head.epochs=2", "distill.ema_decay=0.9")
    saved = weights(distill.run(quick(SIMKD, *few)).run)
    for part in ("weight", "bias"):
        own = saved[f"heads:student.head.classifier.{part}"]
        assert torch.equal(own, saved[f"heads:teacher_head.classifier.{part}"])
        assert torch.equal(own, saved[f"ema:head.classifier.{part}"])
    assert own.abs().sum() > 0
