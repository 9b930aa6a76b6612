"""What the goldens do not show: the papers' formulas on small cases, and what each loss ignores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.stages.distill.objectives import (
    cc_loss,
    ccl_loss,
    cka_loss,
    dist_loss,
    dkd_loss,
    fitnet_loss,
    gram_loss,
    irg_loss,
    itrd_loss,
    kd_loss,
    lskd_loss,
    nce_loss,
    pkt_loss,
    rkd,
    rkd_loss,
    rrd_loss,
    sp_loss,
)


def rows(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def test_kd_is_cross_entropy_with_soft_targets_less_their_entropy():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    p = (teacher / 3).softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    expected = torch.nn.functional.cross_entropy(student / 3, p) - entropy
    torch.testing.assert_close(kd_loss(student, teacher, temperature=3.0), 9 * expected)


def test_kd_of_sure_predictions():
    """A softmax that is 0 in float32 has no logarithm."""
    sure = torch.tensor([[300.0, -300.0], [-300.0, 300.0]])
    other = -sure.clone().requires_grad_()
    assert kd_loss(sure, sure, temperature=1.0) == 0
    assert kd_loss(other, sure, temperature=1.0) == 600


def test_gram_by_its_definition():
    """arXiv 2508.10104: ||X_S X_S' - X_G X_G'||_F^2 of an image's unit patches, as a mean."""
    student, teacher = rows(3, 4, 2, 5), rows(3, 6, 2, 5, seed=1)
    total = 0
    for s, t in zip(student, teacher, strict=True):
        x_s, x_t = s.reshape(4, 10).T, t.reshape(6, 10).T
        x_s, x_t = (x / x.norm(dim=1, keepdim=True) for x in (x_s, x_t))
        total = total + (x_s @ x_s.T - x_t @ x_t.T).square().sum() / 100
    loss = gram_loss(student, teacher)
    torch.testing.assert_close(loss, total / 3)
    (found,), (expected,) = gradients(loss, student), gradients(total / 3, student)
    torch.testing.assert_close(found, expected)
    assert gram_loss(student, 2 * student).abs() < 1e-20
    dark = torch.zeros_like(student).requires_grad_()
    assert gradients(gram_loss(dark, teacher), dark)[0].abs().max() == 0
    with pytest.raises(ValueError, match="of as many rows"):
        gram_loss(student, teacher.flatten(1))


def test_irg_by_its_definition():
    student, teacher = rows(5, 3), rows(5, 3, seed=1)
    edges_s = (student[:, None] - student[None]).square().sum(2)
    edges_t = (teacher[:, None] - teacher[None]).square().sum(2)
    vertices = (student - teacher).square().mean()
    raw = 0.3 * vertices + 2 * (edges_s - edges_t).square().mean()
    relative = edges_s / edges_s.max() - edges_t / edges_t.max()
    weights = {"vertex_weight": 0.3, "edge_weight": 2.0}
    torch.testing.assert_close(irg_loss(student, teacher, normalize=False, **weights), raw)
    torch.testing.assert_close(
        irg_loss(student, teacher, **weights), 0.3 * vertices + 2 * relative.square().mean()
    )


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 40),
    widths=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    zero=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_forms_of_sp_agree(batch, widths, zero, seed):
    student, teacher = rows(batch, widths[0], seed=seed), rows(batch, widths[1], seed=seed + 1)
    if zero:
        student.data[0] = 0
    direct = sp_loss(student, teacher, form="direct")
    factored = sp_loss(student, teacher, form="factored")
    torch.testing.assert_close(factored, direct, rtol=1e-9, atol=1e-13)
    for a, b in zip(
        gradients(direct, student, teacher), gradients(factored, student, teacher), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-12)


def test_sp_in_float32():
    student, teacher = rows(2000, 64), rows(2000, 32, seed=1)
    exact = sp_loss(student, teacher, form="factored")
    small = [x.detach().float().requires_grad_() for x in (student, teacher)]
    loss = sp_loss(*small, form="factored")
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    for a, b in zip(gradients(loss, *small), gradients(exact, student, teacher), strict=True):
        assert (a - b).norm() < 1e-5 * b.norm()


def test_sp_takes_the_smaller_matrices():
    """The direct form would need 14 GB a matrix."""
    student, teacher = rows(60_000, 4, dtype=torch.float32), rows(60_000, 3, dtype=torch.float32)
    (gradient,) = gradients(sp_loss(student, teacher), student)
    assert gradient.isfinite().all()
    with pytest.raises(ValueError, match="'fast' is none of auto, direct, factored"):
        sp_loss(student, teacher, form="fast")


def test_rkd_in_parts_is_the_same(monkeypatch):
    student, teacher = rows(11, 6), rows(11, 4, seed=1)
    whole = rkd_loss(student, teacher)
    monkeypatch.setattr(rkd, "CHUNK", 11 * 11 * 3)  # three vertices at a time, then the other two
    parts = rkd_loss(student, teacher)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradients(parts, student), gradients(whole, student))


@pytest.mark.parametrize("loss", [rkd_loss, irg_loss, cc_loss, fitnet_loss, sp_loss, pkt_loss])
def test_an_aligned_student_has_no_loss_and_no_gradient(loss):
    student = rows(7, 5)
    value = loss(student, student.detach())
    assert abs(value.item()) < 1e-15
    (gradient,) = gradients(value, student)
    assert gradient.abs().max() < 1e-7


def test_pkt_of_opposite_rows_in_float32():
    """Rounding takes their cosine below -1, in a few of these by more than eps makes up for."""
    for seed in range(400):
        row = 1e3 * rows(1, 64, seed=seed, dtype=torch.float32).detach()
        student = torch.cat([row, -row * (seed % 5 + 1)])
        assert pkt_loss(student, rows(2, 5, dtype=torch.float32)).isfinite()


def nce_by_hand(student, teacher, labels, temperature):
    """Row by row, over the labelled rows alone."""
    known = [i for i in range(len(labels)) if labels[i] >= 0]
    total = 0.0
    for i in known:
        cosines = torch.cosine_similarity(student[i][None], teacher[known])
        p = (cosines / temperature).softmax(0)
        same = labels[known] == labels[i]
        total = total - p[same].log().mean()
        if not same.all():
            total = total - (1 - p[~same]).log().mean()
    return total / len(known)


@pytest.mark.parametrize("labels", [(0, 1, 0, 2, 1, 0), (-1, 1, -1, 2, 1, -1), (3, 3, -1, 3, 3, 3)])
def test_nce_by_its_definition(labels):
    student, teacher, labels = rows(6, 8), rows(6, 8, seed=1), torch.tensor(labels)
    loss = nce_loss(student, teacher, labels, temperature=0.5)
    expected = nce_by_hand(student, teacher, labels, 0.5)
    torch.testing.assert_close(loss, expected)
    for a, b in zip(
        gradients(loss, student, teacher), gradients(expected, student, teacher), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_nce_without_labels_is_zero():
    student = rows(6, 8)
    loss = nce_loss(student, rows(6, 8, seed=1), torch.full((6,), -1))
    assert loss == 0
    assert not gradients(loss, student)[0].any()


def test_nce_of_a_sure_mistake_keeps_its_gradient_in_float32():
    """Where p of a negative rounds to 1, 1 - p is lost, and its logarithm's gradient with it."""
    student = torch.eye(4, 6, dtype=torch.float64).requires_grad_()
    teacher, labels = torch.eye(4, 6, dtype=torch.float64).roll(1, 0), torch.arange(4)
    exact = gradients(nce_loss(student, teacher, labels, temperature=0.06), student)[0]
    small = student.detach().float().requires_grad_()
    loss = nce_loss(small, teacher.float(), labels, temperature=0.06)
    gradient = gradients(loss, small)[0]
    assert exact.norm() > 1
    assert (gradient - exact).norm() < 1e-5 * exact.norm()


def test_ccl_holds_unlabelled_predictions_together():
    student, teacher = rows(6, 8), rows(6, 8, seed=1)
    q, p = rows(6, 3, seed=2), rows(6, 3, seed=3)
    none = torch.full((6,), -1)
    loss = ccl_loss(student, teacher, q, p, none)
    both = kd_loss(q, p, temperature=1.0) + kd_loss(p, q, temperature=1.0)
    torch.testing.assert_close(loss, both / 2)


def test_cc_takes_neighbours():
    student, teacher = rows(4, 3), torch.zeros(4, 3, dtype=torch.float64)
    a, b, c, d = student.abs()
    torch.testing.assert_close(cc_loss(student, teacher), (a @ b + b @ c + c @ d) / 3)
    assert cc_loss(student[:1], teacher[:1]) == 0


LOSSES = {"CC": cc_loss, "FitNet": fitnet_loss, "IRG": irg_loss, "PKT": pkt_loss, "RKD": rkd_loss}


@pytest.mark.parametrize("name", [*LOSSES, "SP"])
@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4,), (4,))])
def test_rows_that_do_not_fit_are_refused(name, shapes):
    loss = {**LOSSES, "SP": sp_loss}[name]
    with pytest.raises(ValueError, match=rf"{name} needs .* student \[4"):
        loss(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("name", ["CC", "FitNet", "IRG"])
def test_widths_that_must_be_one(name):
    with pytest.raises(ValueError, match=r"of one shape.*\[4, 3\], teacher \[4, 2\]"):
        LOSSES[name](torch.zeros(4, 3), torch.zeros(4, 2))


def test_labels_and_logits_that_do_not_fit_are_refused():
    x, labels = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)
    for wrong in (labels[:3], labels.float()):
        with pytest.raises(ValueError, match="NCE needs integer labels"):
            nce_loss(x, x, wrong)
    with pytest.raises(ValueError, match="KD needs two"):
        kd_loss(x, x[:, :2])
    with pytest.raises(ValueError, match="CCL needs two"):
        ccl_loss(x, x, x, x[:, :2], labels)


def test_lskd_minds_neither_offset_nor_size():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    moved = lskd_loss(3 * student + 7, 0.2 * teacher - 1)
    torch.testing.assert_close(moved, lskd_loss(student, teacher))
    assert lskd_loss(5 * teacher, teacher).item() == pytest.approx(0, abs=1e-12)


def test_dkd_takes_the_teachers_first_class_where_there_is_no_label():
    student, teacher = rows(6, 4), rows(6, 4, seed=1)
    first = teacher.argmax(dim=1)
    labels = torch.where(torch.arange(6) % 2 == 0, -1, first)
    assert dkd_loss(student, teacher, labels) == dkd_loss(student, teacher, first)
    other = (first + 1) % 4
    assert dkd_loss(student, teacher, other) != dkd_loss(student, teacher, first)


def test_dkd_with_weights_of_the_teachers_confidence_is_kd():
    """Zhao et al. 2022, eq. 5: KD weighs the other classes by the teacher's 1 - p(target)."""
    student, teacher, labels = rows(1, 5), rows(1, 5, seed=1), torch.tensor([3])
    others = 1 - teacher.softmax(1)[0, 3].item()
    found = dkd_loss(student, teacher, labels, other_weight=others, temperature=1.0)
    torch.testing.assert_close(found, kd_loss(student, teacher, temperature=1.0))


def test_dist_of_predictions_that_are_the_same_is_zero():
    student = rows(6, 4)
    assert dist_loss(student, student.detach()).item() == pytest.approx(0, abs=1e-6)


def test_cka_is_that_of_the_graphs_and_minds_no_rotation_and_no_scale():
    student, teacher = rows(7, 4), rows(7, 5, seed=1)
    centre = torch.eye(7, dtype=torch.float64) - 1 / 7
    k, m = (centre @ x @ x.T @ centre for x in (student, teacher))
    torch.testing.assert_close(cka_loss(student, teacher), 1 - (k * m).sum() / k.norm() / m.norm())
    turn, _ = torch.linalg.qr(rows(4, 4, seed=2))
    assert cka_loss(3 * student @ turn + 1, student).item() == pytest.approx(0, abs=1e-12)


def test_cka_of_rows_far_from_zero_keeps_what_varies():
    student, teacher = rows(30, 4), rows(30, 4, seed=1)
    near, far = cka_loss(student, teacher), cka_loss(student.float() + 100, teacher.float() - 100)
    torch.testing.assert_close(far.double(), near, rtol=0, atol=1e-3)


def test_itrd_by_its_definition():
    student, teacher = rows(6, 3), rows(6, 3, seed=1)
    s, t = ((x - x.mean(0)) / x.std(0) for x in (student, teacher))
    expected = ((s * t).mean(0) - 1).abs().pow(3).sum().log2()
    zs, zt = (torch.nn.functional.normalize(x) for x in (student, teacher))
    own, both = zs @ zs.T, (zs @ zs.T) * (zt @ zt.T)
    mutual = (own / own.trace()).square().sum() - (both / both.trace()).square().sum()
    found = itrd_loss(student, teacher, correlation_weight=1.0, mutual_weight=2.0)
    torch.testing.assert_close(found, expected + 2 * mutual)


def test_rrd_is_zero_where_both_sides_are_alike_and_minds_no_length():
    student, anchors = rows(5, 3), rows(9, 3, seed=1)
    same = {"student_temperature": 0.1, "teacher_temperature": 0.1}
    assert rrd_loss(2 * student, student.detach(), anchors, **same).item() == pytest.approx(0)
    found = rrd_loss(student, rows(5, 3, seed=2), anchors)
    assert rrd_loss(student, rows(5, 3, seed=2), 7 * anchors).item() == pytest.approx(found.item())
