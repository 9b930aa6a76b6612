import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config.objectives import EgaOptions
from egapipe.stages.distill.objectives import Ega, Pair, ega_loss

FORMS = ["direct", "factored"]
both_forms = pytest.mark.parametrize("form", FORMS)


def pair(batch, dim, dtype=torch.float64, *, near=None, seed=0):
    """Independent rows, or a student at distance `near` from the teacher; both want gradients."""
    generator = torch.Generator().manual_seed(seed)
    teacher, student = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    if near is not None:
        student = teacher + near * student
    return student.to(dtype).requires_grad_(), teacher.to(dtype).requires_grad_()


def loss_and_gradients(student, teacher, **options):
    student = student.detach().clone().requires_grad_()
    teacher = teacher.detach().clone().requires_grad_()
    loss = ega_loss(student, teacher, **options)
    loss.backward()
    return loss.detach(), student.grad, teacher.grad


def assert_all_finite(tensors):
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_is_the_papers_formula():
    student, teacher = pair(6, 10)
    stacked = torch.corrcoef(torch.cat([teacher, student]))
    edges = (stacked[:6, :6] - stacked[6:, 6:]).norm()
    nodes = (stacked[:6, 6:] - torch.eye(6)).norm()
    torch.testing.assert_close(ega_loss(student, teacher), 0.8 * nodes + 0.24 * edges)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 40),
    dim=st.integers(2, 40),
    near=st.sampled_from([None, 1.0, 1e-2]),
    seed=st.integers(0, 2**31),
)
def test_the_forms_agree(batch, dim, near, seed):
    student, teacher = pair(batch, dim, near=near, seed=seed)
    direct = loss_and_gradients(student, teacher, form="direct")
    factored = loss_and_gradients(student, teacher, form="factored")
    # One row's distance is a difference of ones: half the digits of the squared norm are left.
    for a, b in zip(direct, factored, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(a.abs().max()) + 3e-8)


@both_forms
def test_gradient_is_that_of_finite_differences(form):
    assert torch.autograd.gradcheck(lambda s, t: ega_loss(s, t, form=form), pair(5, 6))


@both_forms
def test_order_of_the_rows_does_not_matter(form):
    student, teacher = pair(8, 5)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = ega_loss(student[order], teacher[order], form=form)
    torch.testing.assert_close(shuffled, ega_loss(student, teacher, form=form))


@both_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
def test_a_row_without_variance_counts_as_uncorrelated(side, dtype, form):
    student, teacher = (x.detach() for x in pair(5, 8, dtype))
    if side != "teacher":
        student[2] = 0.1
    if side != "student":
        teacher[2] = -4.0
    loss, *gradients = loss_and_gradients(student, teacher, form=form, node_weight=1, edge_weight=0)
    assert_all_finite([loss, *gradients])
    rest = [i for i in range(5) if i != 2]
    if side == "both":  # it matches nothing, itself included: exactly 1 more in the square
        others = ega_loss(student[rest], teacher[rest], form=form, node_weight=1, edge_weight=0)
        torch.testing.assert_close(loss**2, others**2 + 1)
    for tensor, gradient in zip((student, teacher), gradients, strict=True):
        if tensor[2].unique().numel() == 1:
            assert not gradient[2].any()
        assert gradient[rest].any()


@both_forms
def test_no_row_with_variance(form):
    student, teacher = torch.ones(4, 6), torch.zeros(4, 6)
    loss, *gradients = loss_and_gradients(student, teacher, form=form)
    assert loss.item() == pytest.approx(0.8 * math.sqrt(4))
    assert not any(gradient.any() for gradient in gradients)


@both_forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coinciding_graphs_have_no_edge_loss_and_no_gradient(dtype, form):
    student, _ = pair(20, 6, dtype)
    loss, *gradients = loss_and_gradients(student, student, form=form, node_weight=0, edge_weight=1)
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)


@both_forms
@pytest.mark.parametrize("seed", range(5))
def test_graphs_that_coincide_up_to_a_rotation_keep_the_gradient_bounded(form, seed):
    """Then the squared distance is rounding error alone, of either sign."""
    _, teacher = pair(40, 8, torch.float32, seed=seed)
    # Reversed columns: other rows with the same correlations between them.
    student = teacher.flip(1)
    loss, *gradients = loss_and_gradients(student, teacher, form=form, node_weight=0, edge_weight=1)
    assert loss < 2e-2
    _, *typical = loss_and_gradients(*pair(40, 8, torch.float32), node_weight=0, edge_weight=1)
    for gradient, usual in zip(gradients, typical, strict=True):
        assert gradient.isfinite().all()
        assert gradient.norm() <= 3 * usual.norm()


@both_forms
def test_perfect_nodes_have_no_loss(form):
    """N_st = I needs orthonormal rows: centred columns of an orthogonal matrix are."""
    hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    rows = hadamard[1:]
    loss, *gradients = loss_and_gradients(rows, 2 * rows + 1, form=form)
    assert loss == pytest.approx(0, abs=1e-6)
    assert_all_finite(gradients)


@pytest.mark.parametrize("form", [*FORMS, "auto"])
def test_an_empty_batch_is_zero_and_stays_in_the_graph(form):
    loss, *gradients = loss_and_gradients(torch.zeros(0, 8), torch.zeros(0, 8), form=form)
    assert loss == 0
    assert [list(gradient.shape) for gradient in gradients] == [[0, 8], [0, 8]]


@both_forms
def test_one_row_is_its_own_correlation(form):
    student, teacher = pair(1, 8)
    r = torch.corrcoef(torch.cat([teacher, student]))[0, 1]
    loss, *gradients = loss_and_gradients(student, teacher, form=form)
    assert loss.item() == pytest.approx(0.8 * (1 - r.item()), rel=1e-7)
    assert_all_finite(gradients)
    aligned, *gradients = loss_and_gradients(teacher, teacher, form=form)
    assert aligned.item() == pytest.approx(0, abs=1e-7)
    assert_all_finite(gradients)


@pytest.mark.parametrize("near", [None, 0.1, 1e-2, 1e-4])
@both_forms
def test_float32_is_accurate_in_large_batches(form, near):
    """The factored form at 8192 x 256; the direct one on fewer rows, being slow."""
    batch = 8192 if form == "factored" else 2048
    student, teacher = (x.detach() for x in pair(batch, 256, torch.float32, near=near))
    exact = ega_loss(student.double(), teacher.double(), form="factored")
    assert ega_loss(student, teacher, form=form).item() == pytest.approx(exact.item(), rel=1e-5)


@both_forms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(dtype, form):
    student, teacher = pair(32, 16, dtype)
    loss = ega_loss(student, teacher, form=form)
    loss.backward()
    assert loss.dtype == torch.float32
    assert student.grad.dtype == dtype
    assert torch.equal(loss, ega_loss(student.float(), teacher.float(), form=form))


@both_forms
def test_autocast_does_not_lower_the_precision(form):
    student, teacher = pair(48, 16, torch.float32)
    plain = loss_and_gradients(student, teacher, form=form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ega_loss(student, teacher, form=form)
        assert (student @ student.T).dtype == torch.bfloat16
    loss.backward()
    assert torch.equal(loss, plain[0])
    assert torch.equal(student.grad, plain[1])
    assert torch.equal(teacher.grad, plain[2])


def test_the_wider_of_two_types_is_used():
    student, teacher = pair(6, 8, torch.float32)[0], pair(6, 8)[1]
    assert ega_loss(student, teacher).dtype == torch.float64
    assert ega_loss(student.half(), teacher.float()).dtype == torch.float32


@both_forms
def test_nan_is_not_hidden(form):
    student, teacher = (x.detach() for x in pair(6, 8))
    student[3, 1] = float("nan")
    assert ega_loss(student, teacher, form=form).isnan()


def test_auto_takes_the_smaller_matrices():
    """The factored form squares the batch nowhere: 60,000 rows would need 14 GB a matrix."""
    student, teacher = pair(60_000, 4, torch.float32)
    assert ega_loss(student, teacher).isfinite()
    for batch, form, other in ((12, "direct", "factored"), (13, "factored", "direct")):
        auto, same, not_same = (
            loss_and_gradients(*pair(batch, 8, torch.float32), form=f)[1]
            for f in ("auto", form, other)
        )
        assert torch.equal(auto, same)
        assert not torch.equal(auto, not_same)


@pytest.mark.parametrize(
    ("student", "teacher", "form", "message"),
    [
        ((4, 8), (4, 6), "auto", r"student \[4, 8\], teacher \[4, 6\]"),
        ((4, 8), (3, 8), "auto", r"one shape"),
        ((8,), (8,), "auto", r"\[B, D\]"),
        ((4, 0), (4, 0), "auto", r"D >= 1"),
        ((4, 8), (4, 8), "fast", r"'fast' is none of auto, direct, factored"),
    ],
)
def test_wrong_arguments(student, teacher, form, message):
    with pytest.raises(ValueError, match=message):
        ega_loss(torch.zeros(student), torch.zeros(teacher), form=form)


def test_the_module_applies_its_options():
    student, teacher = pair(10, 4)
    options = EgaOptions(weight=7, node_weight=0.5, edge_weight=2, form="factored")
    loss = Ega(options)(Pair(student=student, teacher=teacher))
    assert torch.equal(
        loss, ega_loss(student, teacher, node_weight=0.5, edge_weight=2, form="factored")
    )


@both_forms
@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    seed=st.integers(0, 2**31),
)
def test_an_image_is_not_asked_to_be_unlike_itself(form, numbers, seed):
    """N_st of rows with their numbers is compared with I, but for pairs of one number."""
    student, teacher = pair(len(numbers), 12, seed=seed)
    rows = torch.tensor(numbers)
    zs, zt = (
        torch.nn.functional.normalize(x - x.mean(1, keepdim=True)) for x in (student, teacher)
    )
    apart = zt @ zs.T - torch.eye(len(rows), dtype=torch.float64)
    counted = (rows[:, None] != rows[None, :]) | torch.eye(len(rows), dtype=torch.bool)
    expected = (apart * counted).norm()
    expected.backward()
    options = {"form": form, "node_weight": 1.0, "edge_weight": 0.0, "rows": rows}
    loss, by_student, _ = loss_and_gradients(student, teacher, **options)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(by_student, student.grad, rtol=1e-4, atol=1e-6)


@both_forms
def test_rows_that_are_all_different_change_nothing(form):
    student, teacher = pair(20, 12)
    plain = loss_and_gradients(student, teacher, form=form)
    numbered = loss_and_gradients(student, teacher, form=form, rows=torch.arange(20))
    for a, b in zip(plain, numbered, strict=True):
        assert torch.equal(a, b)


@both_forms
@pytest.mark.parametrize("known", [True, False])
def test_the_objective_minds_repeats_where_there_may_be_some(form, known):
    student, teacher = pair(20, 12)
    rows = torch.arange(20) // 2
    objective = Ega(EgaOptions(form=form))
    loss = objective(Pair(student=student, teacher=teacher, rows=rows, repeats=known))
    numbers = rows if known else None
    assert torch.equal(loss, ega_loss(student, teacher, form=form, rows=numbers))
    assert torch.equal(loss, ega_loss(student, teacher, form=form)) == (not known)
