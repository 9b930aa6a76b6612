"""The linear probe finds the optimum of a convex problem, whatever the scale of its features."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info
from torch.nn import functional as F

from egapipe.stages.evaluate.probe import column_scale, probe_accuracy

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Split = tuple[Floats, Ints, Floats, Ints]


def digits() -> Split:
    """The first 12 of 64 pixels' rows: hard enough that an optimum can be told from others."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[:, 16:28].astype(np.float32), labels.astype(np.int64)
    return pixels[:1000], labels[:1000], pixels[1000:], labels[1000:]


def optimum(split: Split, weight_decay: float) -> float:
    """Accuracy at the minimum that torch finds in float64: another solver, the loss spelled out."""
    train, labels, test, test_labels = (torch.from_numpy(array) for array in split)
    mean, spread = train.double().mean(0), train.double().std(0, correction=0)
    spread[spread == 0] = 1
    rows = (train - mean) / spread
    weight = torch.zeros(10, rows.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(rows @ weight.T + bias, labels)
        loss = loss + weight_decay / 2 * (weight**2).sum()
        loss.backward()
        return loss

    solver.step(closure)
    logits = (test - mean) / spread @ weight.detach().T + bias.detach()
    return float((logits.argmax(1) == test_labels).double().mean())


@pytest.mark.parametrize("weight_decay", [1.0, 0.1, 0.01])
def test_it_is_the_regularised_optimum(weight_decay: float) -> None:
    found = probe_accuracy(*digits(), weight_decay=weight_decay)
    # Three of 797 rows may lie within the tolerances of two solvers.
    assert found == pytest.approx(optimum(digits(), weight_decay), abs=3.5 / 797)


def test_weight_decay_matters_so_the_comparison_means_something() -> None:
    strong, weak = (probe_accuracy(*digits(), weight_decay=w) for w in (10.0, 0.01))
    assert weak > strong + 0.02


def test_scale_and_shift_of_the_features_do_not_matter() -> None:
    train, labels, test, test_labels = digits()
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(0, 3, train.shape[1])).astype(np.float32)
    shift = rng.normal(0, 5, train.shape[1]).astype(np.float32) * scale  # type: ignore[attr-defined]
    moved = probe_accuracy(train * scale + shift, labels, test * scale + shift, test_labels)
    plain = probe_accuracy(train, labels, test, test_labels)
    assert moved == pytest.approx(plain, abs=3.5 / 797)


def test_a_column_that_is_constant_up_to_rounding_changes_nothing() -> None:
    train, labels, test, test_labels = digits()
    plain = probe_accuracy(train, labels, test, test_labels)
    rng = np.random.default_rng(0)

    def widened(rows: Floats) -> Floats:
        noise = 1 + 1e-7 * rng.standard_normal((len(rows), 1))
        return np.hstack([rows, (1e3 * noise).astype(np.float32)])

    # The test column is off by what the noise would be if it were scaled to unit variance.
    assert probe_accuracy(widened(train), labels, widened(test), test_labels) == plain
    constant = np.full((50, 1), 0.1, np.float32)
    assert column_scale(constant - constant.mean(axis=0), constant.mean(axis=0)).tolist() == [1]


def test_separable_classes_are_told_apart_and_shuffled_labels_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    rows = (8 * np.eye(4)[labels] + rng.standard_normal((400, 4))).astype(np.float32)
    assert probe_accuracy(rows[:200], labels[:200], rows[200:], labels[200:]) == 1
    shuffled = rng.permutation(labels)
    chance = probe_accuracy(rows[:200], shuffled[:200], rows[200:], shuffled[200:])
    assert 0.1 < chance < 0.4


def test_one_class_is_the_answer_to_everything() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    test_labels = np.array([7] * 5 + [1] * 15)
    assert probe_accuracy(rows, np.full(20, 7), rows, test_labels) == 0.25
    assert probe_accuracy(rows[:1], np.array([7]), rows, test_labels) == 0.25


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_embeddings_leave_the_commonest_class(value: float) -> None:
    rows = np.full((30, 5), value, np.float32)
    labels = np.array([2] * 20 + [0] * 10)
    assert probe_accuracy(rows, labels, rows, labels) == pytest.approx(2 / 3)


def test_no_rows_have_no_accuracy() -> None:
    train, labels, test, test_labels = digits()
    assert math.isnan(probe_accuracy(train[:0], labels[:0], test, test_labels))
    assert math.isnan(probe_accuracy(train, labels, test[:0], test_labels[:0]))


def test_its_inputs_and_the_threads_of_the_process_stay_as_they_were() -> None:
    split = digits()
    before = [array.copy() for array in split]
    torch.set_num_threads(2)
    try:
        threads = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
        probe_accuracy(*split)
        after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
        assert {path: after[path] for path in threads} == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    for array, kept in zip(split, before, strict=True):
        np.testing.assert_array_equal(array, kept)
