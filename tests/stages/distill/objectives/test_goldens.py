"""The objectives against the authors' public implementations (float64, on fixed inputs)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.stages.distill import objectives
from egapipe.stages.distill.objectives import CrdState, correlation, crd_loss
from tests.shared import GOLDENS, needs_goldens

pytestmark = needs_goldens

FILES = {
    "cc": 4,
    "ccl": 4,
    "crd": 1,
    "ega": 24,
    "fitnet": 4,
    "kd": 6,
    "nce": 4,
    "pcc": 6,
    "pkt": 4,
    "rkd": 4,
    "sp": 5,
}
FORMS = {"ega": ["direct", "factored", "auto"], "sp": ["direct", "factored", "auto"]}


def goldens(name):
    return sorted(GOLDENS.glob(f"{name}_*.npz"))


def cases():
    """Each file of a loss of embeddings and logits, in each form there is."""
    for name in FILES:
        for path in goldens(name) if name not in ("pcc", "crd") else ():
            for form in FORMS.get(name, [None]):
                title = path.stem if form is None else f"{path.stem}-{form}"
                yield pytest.param(name, path, form, id=title)


def inputs(golden):
    """The in_* of a file by their names: numbers, and tensors that want a gradient if they can."""
    found = {}
    for name in golden.files:
        if name.startswith("in_"):
            value = torch.from_numpy(golden[name])
            wants = value.dim() > 0 and value.is_floating_point()
            found[name.removeprefix("in_")] = value.requires_grad_(wants) if wants else value
    return {name: value.item() if value.dim() == 0 else value for name, value in found.items()}


def assert_loss_and_gradients(loss, given, golden):
    loss.backward()
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-9)
    for name in golden.files:
        if name.startswith("grad_"):
            expected = golden[name]
            actual = given[name.removeprefix("grad_")].grad.numpy()
            largest = abs(expected).max()
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-7 * largest)


@pytest.mark.parametrize(("name", "path", "form"), list(cases()))
def test_loss_and_gradients(name, path: Path, form):
    golden = np.load(path)
    given = inputs(golden)
    options = {} if form is None else {"form": form}
    loss = getattr(objectives, f"{name}_loss")(**given, **options)
    assert_loss_and_gradients(loss, given, golden)


def test_crd_and_the_state_it_leaves():
    golden = np.load(GOLDENS / "crd_step1.npz")
    given = inputs(golden)
    names = [name for name in given if name.startswith("state_")]
    state = {name.removeprefix("state_"): given.pop(name).detach() for name in names}
    loss, after = crd_loss(**given, state=CrdState(**state))
    assert_loss_and_gradients(loss, given, golden)
    for actual, expected in (
        (after.contrast_memory_v1, "out_memory_v1_after"),
        (after.contrast_memory_v2, "out_memory_v2_after"),
        (after.contrast_params, "out_params_after"),
    ):
        np.testing.assert_allclose(actual.numpy(), golden[expected], rtol=1e-12, atol=1e-14)


def test_rkd_gives_the_teacher_no_gradient():
    """As its files, which have none, say."""
    given = inputs(np.load(goldens("rkd")[0]))
    objectives.rkd_loss(**given).backward()
    assert given["teacher"].grad is None


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in goldens("pcc")])
def test_correlation_of_stacked_rows(path: Path):
    golden = np.load(path)
    student, teacher = (torch.from_numpy(golden[f"in_{name}"]) for name in ("student", "teacher"))
    matrix = correlation(student, teacher).numpy()
    np.testing.assert_allclose(matrix, golden["out_correlation"], rtol=0, atol=1e-12)


def test_there_are_goldens():
    assert {name: len(goldens(name)) for name in FILES} == FILES
    assert sum(FILES.values()) == len(list(GOLDENS.glob("*.npz")))
