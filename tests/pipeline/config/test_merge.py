"""Plain trees laid over each other."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config.merge import merge

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

NAMES = st.sampled_from("abc")
TREES = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


def leaves(tree: dict[str, Any], way: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        inner = leaves(value, (*way, key)) if isinstance(value, dict) else {(*way, key): value}
        found |= inner
    return found


@given(TREES, TREES)
def test_the_upper_values_are_all_there_and_the_lower_ones_beside_them(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    before = deepcopy((below, above))
    merged = leaves(merge([below, above]))
    assert (below, above) == before
    upper, lower = leaves(above), leaves(below)
    assert {path: merged.get(path) for path in upper} == upper
    for path, value in lower.items():
        covered = any(path[: len(u)] == u or u[: len(path)] == path for u in upper)
        assert covered or merged[path] == value
    assert set(merged) <= set(upper) | set(lower)


@given(st.lists(TREES, max_size=4))
def test_one_tree_after_another_is_all_at_once(trees: list[dict[str, Any]]) -> None:
    result: dict[str, Any] = {}
    for tree in trees:
        result = merge([result, tree])
    assert merge(trees) == result
    assert merge([result, result]) == result


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {}}),
        ({"a": {"x": 1}}, {}, {"a": {"x": 1}}),
        (
            {"s": {"kind": "parquet", "files": ["a"], "split": "t"}},
            {"s": {"kind": "hub", "name": "n"}},
            {"s": {"kind": "hub", "name": "n"}},
        ),
        (
            {"s": {"kind": "hub", "name": "m", "split": "t"}},
            {"s": {"kind": "hub", "name": "n"}},
            {"s": {"kind": "hub", "name": "n", "split": "t"}},
        ),
        (
            {"t": {"backend": "imported", "model": "m", "normalize": 1}},
            {"t": {"backend": "transformers", "model": "n"}},
            {"t": {"backend": "transformers", "model": "n"}},
        ),
    ],
)
def test_sections(below: dict[str, Any], above: dict[str, Any], result: dict[str, Any]) -> None:
    assert merge([below, above]) == result


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        ({"ega": 2.0}, {"ega": {"edge_weight": 1}}, {"ega": {"weight": 2.0, "edge_weight": 1}}),
        ({"ega": {"edge_weight": 1}}, {"ega": 2}, {"ega": {"edge_weight": 1, "weight": 2}}),
        ({"ega": 1}, {"kd": 0.5}, {"ega": 1, "kd": {"weight": 0.5}}),
        ({"ega": 1}, {"ega": None, "kd": True}, {"ega": None, "kd": True}),
    ],
)
def test_an_objective_by_its_weight_alone(
    below: dict[str, Any], above: dict[str, Any], result: dict[str, Any]
) -> None:
    def tree(objective: dict[str, Any]) -> dict[str, Any]:
        return {"distill": {"objective": objective}}

    merged = merge([tree(below), tree(above)])["distill"]["objective"]
    long = {k: {"weight": v} if type(v) in (int, float) else v for k, v in result.items()}
    assert {k: {"weight": v} if type(v) in (int, float) else v for k, v in merged.items()} == long


def test_elsewhere_a_number_is_no_section() -> None:
    assert merge([{"distill": {"lr": {"x": 1}}}, {"distill": {"lr": 2}}]) == {"distill": {"lr": 2}}
