"""Every objective on the batches that break a formula: loss and gradients stay finite."""

import pytest
import torch

from egapipe.stages.distill.objectives import Sides
from tests.stages.distill.objectives.samples import (
    CLASSES,
    CONFIGS,
    DIM,
    SHAPES,
    build,
    gradients,
    pair,
    seen_by,
    tensors,
)

BATCH = 6


def constant(dtype):
    return torch.full((BATCH, DIM), 0.3, dtype=dtype)


def one_zero_row(dtype):
    rows = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(5)).to(dtype)
    rows[2] = 0
    return rows


def with_twins(dtype):
    rows = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(6)).to(dtype)
    rows[1] = rows[3]
    return rows


def logits(value):
    return lambda dtype: torch.full((BATCH, CLASSES), value, dtype=dtype)


def labels(*values):
    return lambda dtype: torch.tensor(values)


def features(value, *, teacher=True):
    """Of every pair, the student's side or both."""

    def make(dtype):
        random = pair(BATCH, dtype).features
        constant = {
            name: Sides(*(torch.full((BATCH, *shape), value, dtype=dtype) for shape in shapes))
            for name, shapes in SHAPES.items()
        }
        return {n: c if teacher else Sides(c[0], random[n][1]) for n, c in constant.items()}

    return make


BATCHES = {
    "constant rows": {"student": constant, "teacher": constant},
    "constant student": {"student": constant, "features": features(1.0, teacher=False)},
    "zero rows": {
        "student": lambda dtype: constant(dtype) * 0,
        "teacher": lambda dtype: constant(dtype) * 0,
        "features": features(0.0),
    },
    "a zero row": {"student": one_zero_row, "teacher": one_zero_row},
    "twins": {"student": with_twins},
    "tiny rows": {"student": lambda dtype: one_zero_row(dtype) * 1e-6},
    "large rows": {"student": lambda dtype: one_zero_row(dtype) * 1e3},
    "certain logits": {"student_logits": logits(0.0), "teacher_logits": logits(500.0)},
    "one class": {"labels": labels(3, 3, 3, 3, 3, 3)},
    "no label": {"labels": labels(-1, -1, -1, -1, -1, -1)},
    "one label": {"labels": labels(-1, -1, 2, -1, -1, -1)},
}


def made(name, dtype):
    fields = {field: make(dtype) for field, make in BATCHES[name].items()}
    if "teacher_logits" in fields:
        fields["teacher_logits"].data[:, 0] = -500
    found = pair(BATCH, dtype, **fields)
    for value in tensors(found).values():
        value.requires_grad_(value.is_floating_point())
    return found


def assert_finite(objective, batch):
    batch = seen_by(objective, batch)
    loss, _ = objective(batch)
    assert loss.isfinite()
    loss.backward()
    for gradient in gradients(batch).values():
        assert gradient.isfinite().all()
        # A spurious division by eps would give 1e7 and more.
        assert gradient.abs().max() < 1e6 * max(1, loss.detach().abs())
    return loss


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", CONFIGS)
def test_degenerate_batches(name, batch):
    """In float32, whose smallest and largest numbers are nearer."""
    assert_finite(build(name, torch.float32), made(batch, torch.float32))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_single_row(name):
    assert_finite(build(name, torch.float32), pair(1, torch.float32))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "crd"])
def test_no_row_is_zero_and_stays_in_the_graph(name):
    objective = build(name)
    batch = seen_by(objective, pair(0))
    loss, _ = objective(batch)
    assert loss == 0
    loss.backward()
    assert gradients(batch)


@pytest.mark.parametrize("name", CONFIGS)
def test_autocast_does_not_lower_the_precision(name):
    objective = build(name, torch.float32)
    plain, cast = (seen_by(objective, pair(BATCH, torch.float32)) for _ in range(2))
    expected, _ = objective(plain)
    expected.backward()
    objective = build(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = objective(cast)
        assert (cast.student @ cast.student.T).dtype == torch.bfloat16
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    for name_, gradient in gradients(plain).items():
        assert torch.equal(gradients(cast)[name_], gradient)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(name, dtype):
    """As the outputs of layers under autocast are."""
    objective = build(name, torch.float32)
    batch = seen_by(objective, pair(BATCH, dtype))
    loss, _ = objective(batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    for gradient in gradients(batch).values():
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", CONFIGS)
def test_nan_is_not_hidden(name):
    objective = build(name)
    batch = seen_by(objective, pair(BATCH, labels=torch.tensor([0, 1, 1, 0, 2, -1])))
    students = (sides.student for sides in batch.features.values())
    for tensor in (batch.student, batch.student_logits, *students):
        tensor.data[3] = float("nan")
    loss, _ = objective(batch)
    assert loss.isnan()


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_is_that_of_finite_differences(name):
    fields = ["student", "student_logits", *(f"{name}.student" for name in SHAPES)]
    objective = build(name)
    batch = seen_by(objective, pair(5, seed=3))
    objective(seen_by(objective, pair(6, seed=4)))
    objective.eval()  # crd has measured its normalisers, and its banks stay where they are
    loss, _ = objective(batch)
    loss.backward()
    for field in fields:
        tensor = tensors(batch)[field]
        if tensor.grad is None:
            continue
        step = torch.randn_like(tensor) * 1e-6
        with torch.no_grad():
            tensor += step
            up, _ = objective(batch)
            tensor -= 2 * step
            down, _ = objective(batch)
            tensor += step
        expected = (tensor.grad * step).sum()
        torch.testing.assert_close((up - down) / 2, expected, rtol=1e-5, atol=1e-14)
