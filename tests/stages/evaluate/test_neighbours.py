"""Neighbours and their vote against brute force and scikit-learn."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from egapipe.pipeline.mathematics.nearest import nearest, unit_directions
from egapipe.stages.evaluate.neighbours import knn_accuracy, vote

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def random_rows(rows: int, width: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def digits() -> tuple[Floats, Ints, Floats, Ints]:
    pixels, labels = load_digits(return_X_y=True)
    centred = (pixels - pixels.mean(axis=0)).astype(np.float32)
    labels = labels.astype(np.int64)
    return centred[:1400], labels[:1400], centred[1400:], labels[1400:]


@pytest.mark.parametrize(("base", "queries", "k"), [(50, 7, 5), (500, 300, 20), (3, 40, 3)])
def test_nearest_is_a_sorted_brute_force(base: int, queries: int, k: int) -> None:
    known, asked = random_rows(base, 12), random_rows(queries, 12, seed=1)
    similarity, rows = nearest(known, asked, k)
    products = asked.astype(np.float64) @ known.T.astype(np.float64)
    np.testing.assert_array_equal(rows, np.argsort(-products, axis=1)[:, :k])
    np.testing.assert_allclose(similarity, np.take_along_axis(products, rows, 1), rtol=1e-4)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_accuracy_is_that_of_scikit_learn(k: int, temperature: float) -> None:
    train, train_labels, test, test_labels = digits()
    reference = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    reference.fit(train.astype(np.float64), train_labels)
    expected = reference.score(test.astype(np.float64), test_labels)
    found = knn_accuracy(train, train_labels, test, test_labels, k=k, temperature=temperature)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found > 0.9


@given(
    votes=st.lists(
        st.tuples(st.floats(-1, 1, width=32), st.integers(0, 3)), min_size=1, max_size=12
    ),
    temperature=st.sampled_from([0.01, 0.07, 1.0]),
)
def test_the_vote_is_the_sum_of_weights(votes: list[tuple[float, int]], temperature: float) -> None:
    similarity, labels = (np.array([column]) for column in zip(*votes, strict=True))
    winner = int(vote(similarity.astype(np.float32), labels, 4, temperature)[0])
    nearest_one = float(similarity.max())
    total = [
        sum(math.exp((s - nearest_one) / temperature) for s, label in votes if label == c)
        for c in range(4)
    ]
    assert total[winner] == pytest.approx(max(total), rel=1e-9)


def test_temperature_turns_the_nearest_into_the_majority() -> None:
    similarity = np.array([[0.9, 0.8, 0.7]], dtype=np.float32)
    labels = np.array([[2, 1, 1]])
    assert vote(similarity, labels, 3, 1e-4).tolist() == [2]
    assert vote(similarity, labels, 3, 10.0).tolist() == [1]


def test_lengths_of_rows_do_not_matter_even_huge_ones() -> None:
    train, train_labels, test, test_labels = digits()
    plain = knn_accuracy(train, train_labels, test, test_labels)
    stretch = np.logspace(-15, 30, len(train), dtype=np.float32)[:, None]
    scaled = unit_directions(train) * stretch
    assert knn_accuracy(scaled, train_labels, test * 1e-9, test_labels) == plain
    np.testing.assert_allclose(np.linalg.norm(unit_directions(scaled), axis=1), 1, rtol=1e-6)


def test_fewer_rows_than_neighbours_all_vote() -> None:
    train = np.eye(3, dtype=np.float32)
    assert knn_accuracy(train, np.array([0, 1, 2]), train, np.array([0, 1, 2]), k=20) == 1


def test_one_class_is_the_answer_to_everything() -> None:
    train, test = random_rows(30, 4), random_rows(10, 4, seed=1)
    labels = np.array([3] * 6 + [0] * 4)
    assert knn_accuracy(train, np.full(30, 3), test, labels) == 0.6


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_embeddings_tell_nothing(value: float) -> None:
    train, test = np.full((40, 8), value, np.float32), np.full((30, 8), value, np.float32)
    labels = np.arange(30) % 3
    assert knn_accuracy(train, np.arange(40) % 3, test, labels) == pytest.approx(1 / 3)


def test_no_rows_have_no_accuracy() -> None:
    none, some = random_rows(0, 4), random_rows(5, 4)
    labels = np.zeros(5, dtype=np.int64)
    assert math.isnan(knn_accuracy(none, labels[:0], some, labels))
    assert math.isnan(knn_accuracy(some, labels, none, labels[:0]))


def test_queries_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = knn_accuracy(*digits())
    monkeypatch.setattr("egapipe.stages.evaluate.neighbours._CHUNK", 50)
    assert knn_accuracy(*digits()) == whole
