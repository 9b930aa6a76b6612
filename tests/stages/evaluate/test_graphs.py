"""Agreement of embedding graphs against full correlation matrices and brute-force neighbours."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.stages.distill.objectives.shared import pearson
from egapipe.stages.evaluate.graphs import (
    Graph,
    agreement,
    edge_correlation,
    neighbour_recall,
    strongest_edges,
    unit_rows,
)

Floats = npt.NDArray[np.float32]


def random_rows(rows: int, width: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def full_matrix(embeddings: Floats) -> npt.NDArray[np.float64]:
    """N x N Pearson correlations in float64; rows without variance are zero."""
    centred = embeddings.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    units = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-6)
    return np.asarray(units @ units.T)


def off_diagonal(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return matrix[~np.eye(len(matrix), dtype=bool)]


def correlated(one: Floats, other: Floats) -> float:
    return edge_correlation(unit_rows(one), unit_rows(other))


def test_edges_are_those_that_the_objective_aligns() -> None:
    embeddings = random_rows(40, 9) + 3
    embeddings[[3, 7]] = 2.5
    units = unit_rows(embeddings)
    theirs = pearson.unit_rows(torch.from_numpy(embeddings)).numpy()
    np.testing.assert_allclose(units, theirs, atol=1e-6)
    varied = np.delete(np.arange(40), [3, 7])
    edges = (units @ units.T)[np.ix_(varied, varied)]
    np.testing.assert_allclose(edges, np.corrcoef(embeddings[varied]), atol=1e-5)


@settings(deadline=None)
@given(
    rows=st.integers(3, 30),
    widths=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    constant=st.integers(0, 2),
    mean=st.sampled_from([0.0, 5.0]),
    seed=st.integers(0, 10_000),
)
def test_edge_correlation_is_that_of_the_full_matrices(
    rows: int, widths: tuple[int, int], constant: int, mean: float, seed: int
) -> None:
    one = random_rows(rows, widths[0], seed) + mean * np.arange(widths[0], dtype=np.float32)
    other = random_rows(rows, widths[1], seed + 1)
    one[:constant] = 1
    edges = [off_diagonal(full_matrix(rows)) for rows in (one, other)]
    if min(edge.std() for edge in edges) > 1e-2:
        assert correlated(one, other) == pytest.approx(np.corrcoef(*edges)[0, 1], abs=1e-4)


def test_edge_correlation_keeps_its_digits_where_all_edges_are_nearly_equal() -> None:
    common = 30 * random_rows(1, 64)
    one, other = (common + random_rows(200, 64, seed) for seed in (1, 2))
    other = ((one + other) / 2).astype(np.float32)
    edges = [off_diagonal(full_matrix(rows)) for rows in (one, other)]
    assert min(edge.mean() for edge in edges) > 0.99
    assert correlated(one, other) == pytest.approx(np.corrcoef(*edges)[0, 1], abs=1e-4)


def test_a_graph_agrees_with_itself_however_it_is_scaled_shifted_or_ordered() -> None:
    embeddings = random_rows(60, 16)
    graph = Graph.of(embeddings)
    factor = np.exp(random_rows(60, 1, seed=1))
    moved = Graph.of(factor * embeddings + random_rows(60, 1, seed=2))
    for other in (graph, moved):
        found = agreement(graph, other)
        assert found.edge_correlation == pytest.approx(1, abs=1e-6)
        assert found.neighbour_recall == 1
    order = np.random.default_rng(0).permutation(60)
    others = random_rows(60, 5, seed=3)
    plain = agreement(graph, Graph.of(others))
    turned = agreement(Graph.of(embeddings[order]), Graph.of(others[order]))
    swapped = agreement(Graph.of(others), graph)
    for same in (turned, swapped):
        assert same.edge_correlation == pytest.approx(plain.edge_correlation, abs=1e-9)
        assert same.neighbour_recall == pytest.approx(plain.neighbour_recall, abs=1e-12)


def test_strangers_agree_by_chance() -> None:
    one, other = Graph.of(random_rows(400, 32)), Graph.of(random_rows(400, 32, seed=1))
    found = agreement(one, other)
    assert abs(found.edge_correlation) < 0.03
    assert found.neighbour_recall == pytest.approx(10 / 399, abs=0.01)


def test_opposite_edges_are_correlated_negatively() -> None:
    # Two pairs of images, alike in one graph, opposite in the other, else unrelated.
    a, b = np.array([[1, -1, 0, 0], [0, 0, 1, -1]], dtype=np.float32)
    assert correlated(np.stack([a, a, b, b]), np.stack([a, -a, b, -b])) == pytest.approx(-1)


@pytest.mark.parametrize(("rows", "k"), [(50, 10), (300, 10), (8, 10), (2, 10)])
def test_neighbours_are_a_brute_force_without_self(rows: int, k: int) -> None:
    embeddings = random_rows(rows, 6)
    matrix = full_matrix(embeddings)
    np.fill_diagonal(matrix, -np.inf)
    expected = np.argsort(-matrix, axis=1)[:, : min(k, rows - 1)]
    np.testing.assert_array_equal(strongest_edges(unit_rows(embeddings), k), expected)


def test_recall_is_the_share_of_shared_neighbours() -> None:
    one, other = random_rows(80, 6), random_rows(80, 6, seed=1)
    other += one
    a, b = (strongest_edges(unit_rows(rows), 10) for rows in (one, other))
    by_sets = [len(set(x) & set(y)) / 10 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert neighbour_recall(a, b) == pytest.approx(np.mean(by_sets), abs=1e-12)
    assert 0.1 < neighbour_recall(a, b) < 0.9


def test_no_row_is_its_own_neighbour_among_many_equal_ones() -> None:
    embeddings = np.repeat(random_rows(2, 8), 40, axis=0)
    found = strongest_edges(unit_rows(embeddings), 10)
    assert found.shape == (80, 10)
    assert not (found == np.arange(80)[:, None]).any()
    assert ((found < 40) == (np.arange(80) < 40)[:, None]).all()
    assert all(len(set(row)) == 10 for row in found.tolist())


def test_a_graph_without_variance_has_no_neighbours_and_no_correlation() -> None:
    varied = Graph.of(random_rows(30, 8))
    for value in (0.0, 0.1, 1e6):
        found = agreement(Graph.of(np.full((30, 8), value, np.float32)), varied)
        assert math.isnan(found.edge_correlation)
        assert found.neighbour_recall == 0
    equal = Graph.of(np.repeat(random_rows(1, 8), 30, axis=0))
    assert math.isnan(agreement(equal, varied).edge_correlation)


def test_some_rows_without_variance_have_no_neighbours() -> None:
    embeddings = random_rows(30, 8)
    embeddings[:6] = 1
    graph = Graph.of(embeddings)
    assert (graph.neighbours[:6] == -1).all()
    assert (graph.neighbours[6:] >= 0).all()
    assert agreement(graph, graph).neighbour_recall == pytest.approx(24 / 30)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_nodes_have_no_graph(rows: int) -> None:
    graph = Graph.of(random_rows(rows, 4))
    found = agreement(graph, graph)
    assert math.isnan(found.edge_correlation)
    assert math.isnan(found.neighbour_recall)


def test_rows_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = random_rows(100, 12), random_rows(100, 7, seed=1)
    whole = agreement(Graph.of(one), Graph.of(other))
    monkeypatch.setattr("egapipe.stages.evaluate.graphs._CHUNK", 7)
    parts = agreement(Graph.of(one), Graph.of(other))
    assert parts.edge_correlation == pytest.approx(whole.edge_correlation, abs=1e-12)
    assert parts.neighbour_recall == whole.neighbour_recall
