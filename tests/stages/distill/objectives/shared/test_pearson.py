import numpy as np
import pytest
import torch

from egapipe.stages.distill.objectives import correlation
from egapipe.stages.distill.objectives.shared.pearson import unit_rows


def rows(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_is_numpys_correlation_of_teacher_over_student():
    student, teacher = rows(5, 9), rows(5, 9, seed=1)
    expected = np.corrcoef(np.vstack([teacher, student]))
    np.testing.assert_allclose(correlation(student, teacher), expected, atol=1e-14)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_row_correlates_with_nothing_and_gets_no_gradient(value, dtype):
    student, teacher = rows(3, 7, dtype=dtype), rows(3, 7, dtype=dtype, seed=1)
    student[1] = value
    student.requires_grad_()
    matrix = correlation(student, teacher)
    matrix.square().sum().backward()
    constant = 3 + 1
    assert not matrix[constant].any()
    assert not matrix[:, constant].any()
    others = torch.arange(6) != constant
    torch.testing.assert_close(matrix.diagonal()[others], torch.ones(5, dtype=dtype))
    assert student.grad.isfinite().all()
    assert not student.grad[1].any()


def test_a_row_constant_up_to_rounding_is_constant():
    row = torch.full((1, 11), 0.3)
    row[0, 4] += 2**-25
    assert row.unique().numel() == 2
    assert not unit_rows(row).any()


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e25, 3e37])
def test_any_float32_scale_gives_the_same_correlation(scale):
    plain = rows(4, 16, dtype=torch.float32)
    torch.testing.assert_close(unit_rows(plain * scale), unit_rows(plain))


def test_shift_and_scale_of_a_row_change_nothing():
    plain = rows(4, 16)
    torch.testing.assert_close(unit_rows(plain * 3 + 5), unit_rows(plain))


def test_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(unit_rows, rows(3, 5).requires_grad_())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_entries_are_not_hidden(bad):
    values = rows(3, 5)
    values[1, 2] = bad
    result = unit_rows(values)
    assert result[1].isnan().any()
    assert result[[0, 2]].isfinite().all()
