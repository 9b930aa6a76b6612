"""Stored numbers: rounded as torch rounds them, and the same bytes on every machine."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from egapipe.pipeline.store.format.dtypes import NUMPY, is_finite, not_a_number, to_stored

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
FLOATS = st.one_of(
    st.floats(width=32),
    # Every pattern of bits: NaN of all kinds, and halves that round to even.
    st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(np.float32)),
    st.integers(0, 2**16 - 1).map(lambda bits: np.uint32(bits << 16 | 0x8000).view(np.float32)),
)
VALUES = arrays.arrays(np.float32, (4, 3), elements=FLOATS)


@pytest.mark.parametrize("dtype", TORCH)
@settings(deadline=None)
@given(values=VALUES)
def test_rounding_is_torchs(dtype: str, values: np.ndarray) -> None:
    stored = to_stored(values, dtype)
    assert stored.dtype == NUMPY[dtype]
    assert stored.dtype.byteorder in "<="
    ours = torch.from_numpy(stored).view(TORCH[dtype])
    theirs = torch.from_numpy(values).to(TORCH[dtype])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(is_finite(stored, dtype), theirs.isfinite().numpy())


@pytest.mark.parametrize("dtype", TORCH)
def test_a_number_too_large_is_not_finite(dtype: str) -> None:
    largest = torch.finfo(TORCH[dtype]).max
    beyond = np.inf if dtype == "float32" else largest * 1.003
    values = np.array([largest, -largest, beyond, -beyond], np.float64).astype(np.float32)
    assert is_finite(to_stored(values, dtype), dtype).tolist() == [True, True, False, False]


@pytest.mark.parametrize("dtype", TORCH)
def test_what_is_stored_is_a_copy(dtype: str) -> None:
    values = np.zeros((2, 3), np.float32)
    to_stored(values, dtype)[:] = not_a_number(dtype)
    assert not values.any()


@pytest.mark.parametrize("dtype", TORCH)
def test_not_a_number_is_not_finite(dtype: str) -> None:
    nan = np.full(3, not_a_number(dtype), NUMPY[dtype])
    assert torch.from_numpy(nan).view(TORCH[dtype]).isnan().all()
    assert not is_finite(nan, dtype).any()
