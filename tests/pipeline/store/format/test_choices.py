"""`egapipe bench store`: what number types do to embeddings. docs/store.md rests on it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store.format.dtypes import to_floats, to_stored
from egapipe.stages.bench import store as bench


@pytest.fixture
def exact() -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(0).standard_normal((600, 64), dtype=np.float32)
    return rows


def test_int8_is_off_by_half_a_step_of_its_row_at_most(exact: np.ndarray) -> None:
    exact[3] = 0
    exact[4] *= 1e6
    codes, scales = bench.to_int8(exact)
    assert (codes.dtype, scales.shape) == (np.int8, (600, 1))
    assert np.abs(codes).max() == 127
    assert not codes[3].any()
    assert (np.abs(codes * scales - exact) <= scales * 0.501).all()


def test_coarser_types_have_larger_errors_of_every_kind(exact: np.ndarray) -> None:
    codes, scales = bench.to_int8(exact)
    rounded = [to_floats(to_stored(exact, d), d) for d in ("float32", "float16", "bfloat16")]
    found = [bench.errors(exact, values) for values in (*rounded, codes * scales)]
    assert found[0] == bench.Errors(0, 0, 0, 0)
    for finer, coarser in pairwise(found):
        assert coarser.cosine_mean > 2 * finer.cosine_mean
        assert coarser.edges > 2 * finer.edges
    assert found[1].loss < 1e-4


def test_a_rotation_fills_the_digits_and_keeps_the_angles(exact: np.ndarray) -> None:
    rounded = exact.astype(np.float16)
    turned = bench._unrounded(rounded)
    assert turned.dtype == np.float32
    assert (turned != turned.astype(np.float16)).mean() > 0.9
    before, after = (x.astype(np.float64) for x in (rounded, turned))
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-4)
    assert bench._unrounded(exact) is not exact
    np.testing.assert_array_equal(bench._unrounded(exact), exact)


def test_the_report_has_a_line_a_type(
    exact: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "mine.npy", exact)
    monkeypatch.setenv(bench.EMBEDDINGS, str(tmp_path / "mine.npy"))
    monkeypatch.setattr(bench, "REPEATS", 1)
    title, _, *lines = bench.report()
    assert title.startswith("600 x 64 embeddings of mine")
    columns = [line.split() for line in lines]
    assert [(c[0], int(c[1])) for c in columns] == [
        ("float16", 128),
        ("bfloat16", 128),
        ("float32", 256),
        ("int8", 68),
    ]
    assert all(float(speed) > 0 for c in columns for speed in c[-2:])


def test_files_that_are_no_embeddings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "few.npy", np.zeros((10, 4), np.float32))
    (tmp_path / "text.npy").write_text("text")
    for name, said in (("few", "256 rows"), ("text", "cannot be read"), ("none", "cannot be read")):
        monkeypatch.setenv(bench.EMBEDDINGS, str(tmp_path / f"{name}.npy"))
        with pytest.raises(UsageError, match=said):
            bench.report()


def test_the_default_is_the_one_that_the_page_argues_for() -> None:
    assert load_config("quickstart", []).store.dtype == "float16"
