"""Statistics of the teacher's outputs, and trainings behind them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import Config
from egapipe.pipeline.results.runs import run_identity
from egapipe.stages import distill
from egapipe.stages.distill.data.features.rotation import (
    equal_variances,
    hadamard_matrix,
    levelling,
)
from egapipe.stages.distill.data.features.statistics import (
    Statistics,
    accumulate,
    statistics_file,
    statistics_of,
)
from egapipe.stages.distill.model.standardizer import Standardizer
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig

ALONE = World.alone(torch.device("cpu"))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    far=st.sampled_from([0.0, 1e6]),
    seed=st.integers(0, 9),
)
def test_chunks_give_what_all_rows_at_once_give(lengths: list[int], far: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(far, 1.0, (sum(lengths), 3))
    chunks = np.split(rows, np.cumsum(lengths)[:-1])
    centred = rows - rows.mean(axis=0)
    count, mean, about = accumulate(iter(chunks), squared=True)
    assert count == len(rows)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(about, centred.T @ centred, rtol=1e-6, atol=1e-6)
    _, _, diagonal = accumulate(iter(chunks), squared=False)
    np.testing.assert_allclose(diagonal, about.diagonal(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 12, 20, 24, 64, 384, 768])
def test_hadamard_matrices(order: int) -> None:
    matrix = hadamard_matrix(order)
    assert matrix is not None
    assert set(np.unique(matrix)) <= {-1.0, 1.0}
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order))


def test_an_order_without_such_a_matrix() -> None:
    assert [n for n in (3, 6, 10, 28, 100) if hadamard_matrix(n) is not None] == []


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_levelling_makes_a_diagonal_equal(values: list[float]) -> None:
    rotation = levelling(np.array(values))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(values)), atol=1e-9)
    level = (rotation * values @ rotation.T).diagonal()
    np.testing.assert_allclose(level, np.mean(values), atol=1e-8 * max(1.0, *values))


@pytest.mark.parametrize("width", [1, 3, 8, 10, 12])
def test_after_the_rotation_all_entries_vary_alike(width: int) -> None:
    rng = np.random.default_rng(width)
    mixed = rng.normal(size=(width, width)) * np.logspace(0, -3, width)
    covariance = mixed @ mixed.T
    rotation = equal_variances(covariance)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(width), atol=1e-9)
    diagonal = (rotation @ covariance @ rotation.T).diagonal()
    np.testing.assert_allclose(diagonal, covariance.diagonal().mean(), rtol=1e-9)


def stored(config: Config) -> np.ndarray:
    """float64 [N * V, D]: what all rows that a training learns from have in all views."""
    sources = prepare(config, ALONE).sources
    rows = np.flatnonzero(sources.learned)
    (features,) = sources.features
    views = [features.take(rows, view).double().numpy() for view in range(features.view_count)]
    return np.concatenate(views)


@pytest.mark.parametrize("kind", ["scale", "zscore", "phi-s"])
def test_standardised_features(quick: MakeConfig, kind: str) -> None:
    config = quick(f"distill.standardize={kind}", "dataset.validation={fraction: 0.2}")
    rows, job = stored(config), prepare(config, ALONE)
    seen = job.model.teacher_head.standardized(torch.from_numpy(rows)).double().numpy()
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    variances = seen.var(axis=0)
    assert variances.mean() == pytest.approx(1 if kind != "zscore" else (variances > 0).mean())
    if kind == "scale":
        assert variances.std() > 0.1
        np.testing.assert_allclose(
            seen, (rows - rows.mean(0)) / rows.var(0).mean() ** 0.5, 1e-3, 1e-4
        )
    else:
        np.testing.assert_allclose(variances[variances > 0], 1, rtol=1e-3)
    if kind == "phi-s":
        distance = np.linalg.norm(seen[0] - seen[1]) * rows.var(0).mean() ** 0.5
        assert distance == pytest.approx(np.linalg.norm(rows[0] - rows[1]), rel=1e-4)


def test_an_entry_without_variance_stays_zero() -> None:
    found = Statistics(np.array([2.0, 1.0]), np.array([0.0, 4.0]))
    values = Standardizer.of(found, "zscore")(torch.tensor([[2.0, 5.0], [2.0, 1.0]]))
    assert values.tolist() == [[0.0, 2.0], [0.0, 0.0]]
    nothing = Standardizer.of(Statistics(np.ones(2), np.zeros(2)), "scale")
    assert nothing(torch.ones(1, 2)).tolist() == [[0.0, 0.0]]


def test_grids_are_standardised_by_channel() -> None:
    standard = Standardizer(torch.tensor([1.0, 2.0]), torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    grid = torch.arange(16.0).view(2, 2, 2, 2)
    expected = torch.stack([2 * (grid[:, 1] - 2), grid[:, 0] - 1], dim=1)
    assert torch.equal(standard(grid), expected)


def test_they_are_computed_once_and_again_where_they_are_damaged(quick: MakeConfig) -> None:
    sources = prepare(quick(), ALONE).sources
    rows = sources.learned

    def find() -> Statistics:
        return statistics_of(sources.features, rows, ALONE, rotated=True)

    file = statistics_file(sources.features, rows, channels=False, rotated=True)
    first = find()
    made = file.stat().st_mtime_ns
    second = find()
    assert file.stat().st_mtime_ns == made
    assert second.rotation is not None
    assert np.array_equal(first.rotation, second.rotation)
    for damage in (b"", file.read_bytes()[:-9], b"PK nothing"):
        file.write_bytes(damage)
        assert np.array_equal(find().rotation, first.rotation)
    rows[0] = False
    assert statistics_file(sources.features, rows, channels=False, rotated=True) != file


def test_only_its_use_is_another_run(quick: MakeConfig) -> None:
    plain = quick()
    assert run_identity(quick("distill.standardize=none")) == run_identity(plain)
    kinds = ["scale", "zscore", "phi-s"]
    assert len({run_identity(quick(f"distill.standardize={kind}")) for kind in kinds}) == 3


def test_the_head_of_a_checkpoint_has_the_numbers_it_learned_with(
    quick: MakeConfig,
) -> None:
    config = quick("distill.standardize=phi-s", "distill.epochs=1")
    done = distill.run(config)
    head = distill.load_student(done.run).teacher_head()
    assert head is not None
    job = prepare(config, ALONE)
    assert job.teacher_test is not None
    features, labels = job.teacher_test
    with torch.no_grad():
        predicted = head(features.take(np.arange(len(labels)), 0))[1].argmax(dim=1).numpy()
    assert 100 * (predicted == labels).mean() == pytest.approx(done.summary["teacher_top1"])
