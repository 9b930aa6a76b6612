"""The objectives against the authors' public implementations (float64, on fixed inputs)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.stages.distill.objectives import correlation, ega_loss
from tests.shared import GOLDENS, needs_goldens

pytestmark = needs_goldens


def goldens(name):
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDENS.glob(f"{name}_*.npz"))]


def tensor(golden, name):
    return torch.from_numpy(golden[name]).requires_grad_()


def assert_gradient(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-7 * abs(expected).max())


@pytest.mark.parametrize("form", ["direct", "factored", "auto"])
@pytest.mark.parametrize("path", goldens("ega"))
def test_ega_loss_and_gradients(path: Path, form):
    golden = np.load(path)
    student, teacher = tensor(golden, "in_student"), tensor(golden, "in_teacher")
    weights = {name: float(golden[f"in_{name}"]) for name in ("node_weight", "edge_weight")}
    loss = ega_loss(student, teacher, form=form, **weights)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-9)
    assert_gradient(student.grad, golden["grad_student"])
    assert_gradient(teacher.grad, golden["grad_teacher"])


@pytest.mark.parametrize("path", goldens("pcc"))
def test_correlation_of_stacked_rows(path: Path):
    golden = np.load(path)
    student, teacher = (torch.from_numpy(golden[f"in_{name}"]) for name in ("student", "teacher"))
    matrix = correlation(student, teacher).numpy()
    np.testing.assert_allclose(matrix, golden["out_correlation"], rtol=0, atol=1e-12)


def test_there_are_goldens():
    assert len(goldens("ega")) == 24
    assert len(goldens("pcc")) == 6
