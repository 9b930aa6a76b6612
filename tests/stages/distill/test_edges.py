"""Edges between the rows of a batch, and what is learned of them."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.objectives.shared.edges import edges_among, log_softmax_into
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig

ROWS = 12


@given(
    st.lists(st.integers(0, ROWS - 1), max_size=20),
    st.lists(st.lists(st.integers(-1, ROWS - 1), min_size=3, max_size=3), min_size=12, max_size=12),
)
def test_edges_join_each_row_and_its_neighbours_in_the_batch(
    rows: list[int], neighbours: list[list[int]]
) -> None:
    """As often as a neighbour is named, and as rows come up."""
    found = edges_among(torch.tensor(rows, dtype=torch.int64), torch.tensor(neighbours))
    expected = [
        (source, target)
        for target, row in enumerate(rows)
        for other in neighbours[row]
        for source, there in enumerate(rows)
        if there == other
    ]
    pairs = zip(found.source.tolist(), found.target.tolist(), strict=True)
    assert Counter(pairs) == Counter(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-300, 300)), max_size=20))
def test_scores_into_a_node_are_a_distribution(edges: list[tuple[int, float]]) -> None:
    target = torch.tensor([node for node, _ in edges], dtype=torch.int64)
    scores = torch.tensor([score for _, score in edges], dtype=torch.float64)
    found = log_softmax_into(scores, target, 6)
    for node in set(target.tolist()):
        own = target == node
        torch.testing.assert_close(found[own], scores[own].log_softmax(dim=0))


def test_neighbours_come_to_be_as_near_as_the_teacher_has_them(quick: MakeConfig) -> None:
    """The local divergence falls; beside it cross-entropy, which moves the nodes too, does less."""
    few = ["sampler=neighbours", "epochs=6", "edges.nearest=6", "ema_decay=null"]
    ends = {}
    for name, weight in (("alone", 0.0), ("lsp", 3000.0)):
        sets = [*few, f"objective={{lsp: {{weight: {weight}, kernel: cosine}}}}"]
        report = distill.run(quick(*(f"distill.{one}" for one in sets)))
        lines = [line["train/lsp"] for line in read_metrics(RunFolder(report.run))]
        ends[name] = lines[-1]
    assert ends["lsp"] < ends["alone"] / 2


def test_a_batch_of_turned_views_has_no_edges(quick: MakeConfig) -> None:
    config = quick("distill.objective={lsp: 1}")
    job = prepare(config, World.alone(torch.device("cpu")))
    assert job.model.neighbours is not None
    assert "neighbours" not in job.model.state_dict()
    with pytest.raises(UsageError, match=r"edges\.near"):
        quick("distill.objective={lsp: 1}", "distill.edges.near=3")
