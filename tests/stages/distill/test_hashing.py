"""Codes of bits: what becomes of them behind the training."""

import numpy as np
import pytest
import torch

from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.stages import distill
from egapipe.stages.distill.objectives import Hashing
from tests.stages.distill.conftest import MakeConfig


def test_the_codes_of_both_sides_are_had_behind_the_training(quick: MakeConfig) -> None:
    every = ("distill.labels_per_class=null", "distill.epochs=8", "distill.lr=0.05")
    config = quick(*every, "distill.ce_weight=0", "distill.objective={hashing: {bits: 16}}")
    student = distill.load_student(distill.run(config).run)
    hashing = Hashing.trained(config.distill.objective.hashing, student.learned("hashing"))
    head = student.teacher_head()
    digits = open_dataset(config.dataset.test)
    features = Features.open(FeatureStore.open(config.store_url("test")))
    with torch.no_grad():
        [out] = student.outputs(digits, np.arange(len(digits)))
        own = hashing.student_bits(out.nodes)
        stored = features.take(out.rows, 0)
        other = hashing.teacher_bits(head.standardized(stored))
    assert own.dtype == other.dtype == torch.bool
    assert own.shape == other.shape == (len(digits), 16)
    apart = (own[:, None] != other).float().mean(dim=2)
    alike = torch.from_numpy(digits.labels[:, None] == digits.labels)
    assert apart[alike].mean() < apart[~alike].mean() - 0.1


def test_what_an_objective_learned_is_there_by_its_name(quick: MakeConfig) -> None:
    done = distill.run(quick("distill.epochs=1", "distill.objective={ega: 1, hashing: 0.1}"))
    student = distill.load_student(done.run)
    assert set(student.learned("hashing")) == {
        f"{side}_code.{name}" for side in ("student", "teacher") for name in ("weight", "bias")
    }
    assert student.learned("ega") == student.learned("kd") == {}
    (student.checkpoint / "heads.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=rf"{student.checkpoint.name} does not load"):
        student.learned("hashing")
