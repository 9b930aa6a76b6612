"""Each sampler's order keeps its promise for any labels, any neighbours, any pass."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.links import Links
from egapipe.stages.distill.data.rows.order import Plain
from egapipe.stages.distill.data.rows.samplers import ONCE, SAMPLERS, Pool
from egapipe.stages.distill.data.rows.samplers import search as searching
from egapipe.stages.distill.data.rows.samplers.neighbours import grouped
from egapipe.stages.distill.data.rows.samplers.search import all_pairs, by_index, nearest_rows

CPU = torch.device("cpu")


def directions(rows: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=1)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Some rows of a training, all labelled, with real neighbours in a small space."""
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=1, max_size=120)))
    chosen = draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    rows = np.flatnonzero(chosen) if any(chosen) else np.arange(len(labels))
    seed, k = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 12))
    near = nearest_rows(directions(len(labels), 3, seed % 1000), k, CPU)
    number = st.integers(0, len(labels) - 1)
    joined = draw(st.lists(st.tuples(number, number), max_size=150))
    batch = draw(st.none() | st.integers(1, 40))
    size = draw(st.integers(2, 8))
    return Pool(rows, labels, seed, size, lambda: near, batch, links(len(labels), joined))


def links(rows: int, joined: Sequence[tuple[int, int]]) -> Links:
    """Edges between rows, none twice and none of a row with itself."""
    edges = np.array(sorted({(a, b) for a, b in joined if a != b}), dtype=np.int64).reshape(-1, 2)
    starts = np.searchsorted(edges[:, 0], np.arange(rows + 1))
    return Links(starts, edges[:, 1], np.ones(len(edges), np.float32), "")


def test_the_configuration_names_every_sampler_and_no_other() -> None:
    names, _ = get_args(DistillConfig.model_fields["sampler"].annotation)
    assert set(SAMPLERS) == set(get_args(names))


@settings(deadline=None)
@given(pool=pools(), number=st.integers(0, 50), name=st.sampled_from(ONCE))
def test_a_pass_has_every_row_once(pool: Pool, number: int, name: str) -> None:
    order = SAMPLERS[name](pool)(pool.rows, number)
    assert order.dtype == np.int64
    assert sorted(order) == sorted(pool.rows)


@settings(deadline=None)
@given(pool=pools(), number=st.integers(0, 50), name=st.sampled_from([*SAMPLERS]))
def test_an_order_is_a_function_of_seed_and_pass(pool: Pool, number: int, name: str) -> None:
    one = SAMPLERS[name](pool)(pool.rows, number)
    two = SAMPLERS[name](replace(pool))(pool.rows, number)
    assert (one == two).all()


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_passes_and_seeds_have_orders_of_their_own(name: str) -> None:
    near = nearest_rows(directions(90, 4, 0), 8, CPU)
    joined = links(90, [(row, row + 1) for row in range(0, 90, 2)])
    pool = Pool(np.arange(90), np.arange(90) % 5, 0, 4, lambda: near, 16, joined)
    orders = {
        tuple(SAMPLERS[name](replace(pool, seed=seed))(pool.rows, number))
        for seed in range(3)
        for number in range(3)
    }
    assert len(orders) == 9


@settings(deadline=None)
@given(pool=pools(), number=st.integers(0, 9), size=st.integers(1, 40))
def test_class_balanced_batches_differ_by_one_row_a_class(
    pool: Pool, number: int, size: int
) -> None:
    order = SAMPLERS["class-balanced"](pool)
    classes = np.unique(pool.labels[pool.rows])
    for batch in Plain(pool.rows, size, order).epoch(number):
        assert np.isin(batch, pool.rows).all()
        counts = [(pool.labels[batch] == label).sum() for label in classes]
        assert max(counts) - min(counts) <= 1


@settings(deadline=None)
@given(pool=pools(), number=st.integers(0, 9))
def test_within_a_class_all_rows_come_equally_often(pool: Pool, number: int) -> None:
    order = SAMPLERS["class-balanced"](pool)(pool.rows, number)
    assert len(order) == len(pool.rows)
    for label in np.unique(pool.labels[pool.rows]):
        mine = pool.rows[pool.labels[pool.rows] == label]
        counts = [(order == row).sum() for row in mine]
        assert max(counts) - min(counts) <= 1


@given(classes=st.integers(1, 8), each=st.integers(1, 20), number=st.integers(0, 9))
def test_with_classes_of_one_size_every_row_comes_once(
    classes: int, each: int, number: int
) -> None:
    rows = np.arange(classes * each)
    pool = Pool(rows, rows % classes, 3, 2, lambda: np.empty((0, 1), np.int32))
    assert sorted(SAMPLERS["class-balanced"](pool)(rows, number)) == list(rows)


def test_class_balanced_rows_need_labels() -> None:
    pool = Pool(np.arange(3), np.array([0, -1, -1]), 0, 2, lambda: np.empty((0, 1), np.int32))
    with pytest.raises(UsageError, match=r"2 rows have no label: set distill\.unlabelled_ratio"):
        SAMPLERS["class-balanced"](pool)


def test_neighbours_meet_in_a_batch() -> None:
    """Ten tight clusters of eight: each group is a cluster, so a batch of 16 holds two."""
    centres = directions(10, 16, 0)
    rows = F.normalize(centres.repeat_interleave(8, 0) + 0.01 * directions(80, 16, 1), dim=1)
    mixed = np.random.default_rng(0).permutation(80)
    cluster = mixed // 8
    near = nearest_rows(rows[torch.from_numpy(mixed)], 7, CPU)
    for number in range(5):
        order = grouped(np.arange(80), number, near, 8, seed=0)
        assert all(len(set(group)) == 1 for group in cluster[order].reshape(10, 8))


def met(pool: Pool, batch: int, name: str, number: int = 0) -> float:
    """The share of the pairs that meet in a batch."""
    assert pool.links is not None
    order = SAMPLERS[name](pool)
    place = np.full(len(pool.labels), -1)
    for step, found in enumerate(Plain(pool.rows, batch, order).epoch(number)):
        place[found] = step
    one, two = place[pool.links.sources], place[pool.links.targets]
    return float(((one == two) & (one >= 0)).mean())


def joined_pool(rows: int, joined: Sequence[tuple[int, int]], batch: int, size: int = 8) -> Pool:
    shuffled = np.random.default_rng(1).permutation(rows)
    given = links(rows, [(int(shuffled[a]), int(shuffled[b])) for a, b in joined])
    labels = np.full(rows, -1)
    return Pool(np.arange(rows), labels, 0, size, lambda: np.empty((0, 1), np.int32), batch, given)


QUERIES = [(row, row + 1) for row in range(0, 1920, 2)]
SEVERAL = [(row, row + other) for row in range(0, 1920, 5) for other in range(1, 5)]
HUBS = [(row, row + other) for row in range(0, 1920, 32) for other in range(1, 32)]
RING = [(row, (row + 1) % 1920) for row in range(1920)]


@pytest.mark.parametrize(
    ("joined", "shuffled", "least"),
    [
        (QUERIES, 0.04, 1.0),  # a question and its answer
        (SEVERAL, 0.04, 0.95),  # four answers each, in batches that five does not divide
        (HUBS, 0.04, 7 / 31),  # more than a group holds: those that are in one with the hub
        (RING, 0.04, 0.75),  # chains of a ring
    ],
    ids=["pairs", "several", "hubs", "ring"],
)
def test_pairs_meet_in_a_batch(
    joined: list[tuple[int, int]], shuffled: float, least: float
) -> None:
    """Of 1,920 rows in batches of 64, of which all are taken: at random one pair in 30 meets."""
    pool = joined_pool(1920, joined, 64)
    for number in range(3):
        assert met(pool, 64, "random", number) < shuffled + 0.02
        assert met(pool, 64, "pairs", number) >= least


@settings(deadline=None)
@given(
    count=st.integers(1, 30),
    width=st.integers(2, 6),
    in_batch=st.integers(1, 5),
    number=st.integers(0, 20),
)
def test_of_groups_that_divide_a_batch_every_pair_meets(
    count: int, width: int, in_batch: int, number: int
) -> None:
    """Whatever joins them, a chain here."""
    rows = count * width * in_batch
    joined = [(row, row + 1) for row in range(rows) if (row + 1) % width]
    pool = joined_pool(rows, joined, width * in_batch, size=width)
    assert met(pool, width * in_batch, "pairs", number) == 1


def test_rows_of_no_pair_fill_batches_up_and_divide_none() -> None:
    """A third of the rows is in no pair, and batches are odd."""
    pool = joined_pool(900, [(row, row + 1) for row in range(0, 600, 2)], 15)
    assert met(pool, 15, "pairs") == 1


def test_other_pairs_of_a_hub_meet_in_another_pass() -> None:
    pool = joined_pool(64, [(0, other) for other in range(1, 64)], 16)
    order = SAMPLERS["pairs"](pool)
    assert pool.links is not None
    [hub] = set(pool.links.sources.tolist())
    seen = set()
    for number in range(40):
        for batch in Plain(pool.rows, 16, order).epoch(number):
            if hub in batch:
                seen |= set(batch.tolist())
    assert len(seen) == 64


def test_pairs_need_a_file_of_them() -> None:
    pool = Pool(np.arange(3), np.arange(3), 0, 2, lambda: np.empty((0, 1), np.int32))
    with pytest.raises(UsageError, match=r"name the file of them in dataset\.pairs"):
        SAMPLERS["pairs"](pool)


@settings(deadline=None)
@given(rows=st.integers(1, 60), dim=st.integers(1, 8), k=st.integers(1, 20), seed=st.integers(0, 9))
def test_nearest_rows_are_those_of_the_largest_inner_product(
    rows: int, dim: int, k: int, seed: int
) -> None:
    base = directions(rows, dim, seed)
    near = nearest_rows(base, k, CPU)
    assert near.shape == (rows, k)
    assert near.dtype == np.int32
    scores = (base @ base.T).numpy()
    for row, found in enumerate(near):
        others = np.delete(scores[row], row)
        real = found[found >= 0]
        assert len(real) == min(k, rows - 1)
        assert row not in real
        assert len(set(real.tolist())) == len(real)
        # Which of two that are as near comes first is rounding.
        np.testing.assert_allclose(scores[row, real], -np.sort(-others)[: len(real)], atol=1e-5)
    assert (near == nearest_rows(base, k, CPU)).all()


def test_a_row_that_comes_twice_is_the_others_neighbour_not_its_own() -> None:
    base = directions(6, 4, 0).repeat(2, 1)
    near = nearest_rows(base, 3, CPU)
    assert (near != np.arange(12)[:, None]).all()
    assert (near >= 0).all()


def test_lists_find_most_of_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = directions(30, 16, 0)
    base = F.normalize(centres.repeat_interleave(100, 0) + 0.2 * directions(3000, 16, 1), dim=1)
    exact = nearest_rows(base, 8, CPU)
    monkeypatch.setattr(searching, "EXACT_ROWS", 1000)
    listed = nearest_rows(base, 8, CPU)
    assert (listed == nearest_rows(base, 8, CPU)).all()
    shared = [len(set(a) & set(b)) for a, b in zip(exact, listed, strict=True)]
    assert np.mean(shared) > 0.8 * 8
    assert (listed != np.arange(3000)[:, None]).all()


def test_matrix_products_find_what_the_index_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    base = directions(500, 16, 0)
    monkeypatch.setattr(searching, "_SCORES", 500 * 64)
    products, index = all_pairs(base, 9, CPU), by_index(base.numpy(), 9)
    assert products.shape == index.shape == (500, 9)
    scores = (base @ base.T).numpy()
    # Which of two that are as near comes first is rounding.
    one, two = (np.take_along_axis(scores, found, axis=1) for found in (products, index))
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert (products == index).mean() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_finds_what_the_cpu_finds() -> None:
    base = directions(2000, 64, 0)
    cpu, gpu = (nearest_rows(base, 8, torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu == gpu).mean() > 0.99
