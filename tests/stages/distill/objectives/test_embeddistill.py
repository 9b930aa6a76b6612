"""EmbedDistill by its definition, on graphs of queries and documents of every kind."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config.objectives import EmbeddistillOptions, ObjectiveConfig
from egapipe.stages.distill.objectives import build_objective, embeddistill_loss
from egapipe.stages.distill.objectives.embeddistill import Embeddistill
from egapipe.stages.distill.objectives.shared.edges import Edges
from tests.stages.distill.objectives.samples import DIM, FEATURES, facts, pair

Graph = dict[tuple[int, int], float]
NODES = 7
WEIGHTS = {"query_weight": 0.3, "document_weight": 0.7, "label_weight": 1.1, "score_weight": 1.9}
EVERY = dict.fromkeys(WEIGHTS, 0.0)


def rows(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64).requires_grad_()


def edges_of(graph: Graph) -> Edges:
    places = torch.tensor([*graph], dtype=torch.int64).reshape(-1, 2)
    return Edges(places[:, 0], places[:, 1], torch.tensor([*graph.values()], dtype=torch.float32))


def by_definition(s, t, graph, names, documents, temperature):
    """Row by row, as the docstring has it."""
    queries = sorted({i for i, _ in graph})
    targets = sorted({j for _, j in graph})
    d = t if documents == "teacher" else s
    matched = [(t[i] - s[i]).norm() for i in queries]
    read = [(t[j] - s[j]).norm() for j in targets] if documents == "student" else []
    labels, total, divergences = [], 0.0, []
    for i in queries:
        candidates = [j for j in targets if names[j] != names[i]]
        own = {j for j in candidates if graph.get((i, j), 0) > 0}
        seen = {j: (s[i] @ d[j]) / temperature for j in candidates}
        known = {j: (t[i] @ t[j]) / temperature for j in candidates}
        for j in own:
            others = [seen[k] for k in candidates if k not in own or k == j]
            weight = float(torch.tensor(graph[i, j], dtype=torch.float32))
            labels.append(weight * (torch.stack(others).logsumexp(0) - seen[j]))
            total += weight
        if candidates:
            p = torch.stack([known[j] for j in candidates]).log_softmax(0)
            q = torch.stack([seen[j] for j in candidates]).log_softmax(0)
            divergences.append((p.exp() * (p - q)).sum())
        else:
            divergences.append(torch.zeros((), dtype=torch.float64))

    def mean(values, count):
        return sum(values) / count if count else 0.0

    return (
        WEIGHTS["query_weight"] * mean(matched, len(matched))
        + WEIGHTS["document_weight"] * mean(read, len(read))
        + WEIGHTS["label_weight"] * mean(labels, total)
        + WEIGHTS["score_weight"] * temperature**2 * mean(divergences, len(divergences))
    )


ENDS = st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)).filter(
    lambda ends: ends[0] != ends[1]
)
GRAPHS = st.dictionaries(ENDS, st.sampled_from([1.0, 0.25, 3.0, 0.0, -1.0]), max_size=14)


@given(GRAPHS, st.sampled_from(["student", "teacher"]), st.sampled_from([1.0, 0.3]))
def test_the_loss_by_its_definition(graph: Graph, documents: str, temperature: float) -> None:
    """Rows of several documents, documents of several queries, rows that are both, and pairs that
    do not belong together."""
    s, t = rows(NODES, 5), rows(NODES, 5, seed=1)
    names = list(range(NODES))
    found = embeddistill_loss(
        s, t, edges_of(graph), documents=documents, temperature=temperature, **WEIGHTS
    )
    expected = by_definition(s, t.detach(), graph, names, documents, temperature)
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64))
    found.backward()
    assert s.grad.isfinite().all()
    assert t.grad is None
    taking_part = {row for ends in graph for row in ends}
    assert not s.grad[[row for row in range(NODES) if row not in taking_part]].any()


@given(GRAPHS)
def test_a_row_that_is_there_twice_is_no_document_of_itself(graph: Graph) -> None:
    s, t = rows(NODES, 5), rows(NODES, 5, seed=1)
    # Two places of one row are joined to no other ones than the row is.
    names = [0, 1, 2, 3, 4, 5, 5]
    graph = {ends: score for ends, score in graph.items() if set(ends) != {5, 6}}
    found = embeddistill_loss(s, t, edges_of(graph), rows=torch.tensor(names), **WEIGHTS)
    expected = by_definition(s, t.detach(), graph, names, "student", 1.0)
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64))


def test_a_batch_without_a_pair_is_zero_and_stays_in_the_graph() -> None:
    s, t = rows(4, 3), rows(4, 3, seed=1)
    loss = embeddistill_loss(s, t, edges_of({}))
    assert loss == 0
    loss.backward()
    assert not s.grad.any()


def test_a_student_that_is_the_teacher_has_nothing_to_match() -> None:
    """Not even a gradient, where a norm has none."""
    s = rows(6, 4)
    graph = {(0, 3): 1.0, (1, 4): 1.0, (2, 5): 1.0}
    loss = embeddistill_loss(s, s.detach().clone(), edges_of(graph), label_weight=0.0)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    torch.testing.assert_close(s.grad, torch.zeros_like(s.grad), atol=1e-12, rtol=0)


def test_scores_weigh_pairs_and_set_others_apart() -> None:
    s, t = rows(4, 3), rows(4, 3, seed=1)
    only = {**EVERY, "label_weight": 1.0}
    apart = [
        embeddistill_loss(s, t, edges_of({(0, 2): a, (0, 3): b}), **only)
        for a, b in ((1.0, 0.0), (5.0, -2.0), (0.0, 1.0))
    ]
    torch.testing.assert_close(apart[0], apart[1])
    both = embeddistill_loss(s, t, edges_of({(0, 2): 1.0, (1, 3): 3.0}), **only)
    one, other = (
        embeddistill_loss(s, t, edges_of({(0, 2): a, (1, 3): b}), **only)
        for a, b in ((1.0, 0.0), (0.0, 1.0))
    )
    torch.testing.assert_close(both, (one + 3 * other) / 4)
    assert embeddistill_loss(s, t, edges_of({(0, 2): -1.0}), **only) == 0


def test_edges_without_scores_all_belong_together() -> None:
    s, t = rows(4, 3), rows(4, 3, seed=1)
    scored = edges_of({(0, 2): 1.0, (1, 3): 1.0})
    plain = Edges(scored.source, scored.target)
    assert embeddistill_loss(s, t, plain) == embeddistill_loss(s, t, scored)


@pytest.mark.parametrize("size", [1e-12, 1e4])
def test_scores_of_any_size_are_finite_in_float32(size: float) -> None:
    s = (rows(6, 4).detach().float() * size).requires_grad_()
    t = rows(6, 4, seed=1).detach().float() * size
    graph = {(0, 3): 1.0, (1, 4): 1.0, (2, 5): 1.0}
    loss = embeddistill_loss(s, t, edges_of(graph), temperature=0.05)
    loss.backward()
    assert loss.isfinite()
    assert s.grad.isfinite().all()


def test_a_sure_answer_keeps_its_loss() -> None:
    """log(1 + exp(-x)), of which float64 keeps all digits."""
    s = torch.tensor([[30.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    only = {**EVERY, "label_weight": 1.0}
    loss = embeddistill_loss(s, s, edges_of({(0, 1): 1.0, (0, 2): 0.0}), **only)
    assert loss.item() == pytest.approx(
        torch.tensor(-30.0).double().exp().log1p().item(), rel=1e-12
    )


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3), (5, 3)), ((4,), (4,))])
def test_rows_that_do_not_fit_are_refused(shapes) -> None:
    with pytest.raises(ValueError, match=r"EmbedDistill needs .* student \[4"):
        embeddistill_loss(*(torch.zeros(shape) for shape in shapes), edges_of({}))


def test_a_layer_leads_to_another_width_and_to_the_same_none() -> None:
    config = ObjectiveConfig(embeddistill=EmbeddistillOptions())
    names = {
        width: [
            name for name, _ in build_objective(config, facts(student_dim=width)).named_parameters()
        ]
        for width in (DIM, FEATURES)
    }
    assert names == {DIM: ["objectives.embeddistill.projector.weight"], FEATURES: []}


def test_queries_and_documents_are_projected_alike() -> None:
    objective = build_objective(ObjectiveConfig(embeddistill=EmbeddistillOptions()), facts())
    objective = objective.double()
    batch = pair(12)
    found, _ = objective(batch)
    [one] = objective.objectives.values()
    assert isinstance(one, Embeddistill)
    expected = embeddistill_loss(
        one.projector(batch.student), batch.teacher_features, batch.edges, rows=batch.rows
    )
    torch.testing.assert_close(found, expected)
    found.backward()
    assert one.projector.weight.grad.any()
