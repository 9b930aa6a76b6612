"""CRD's state over the steps; its first step is in test_goldens."""

from copy import deepcopy

import pytest
import torch

from egapipe.pipeline.config.objectives import CrdOptions
from egapipe.stages.distill.objectives import Crd, CrdState, Pair, crd, crd_loss
from tests.stages.distill.objectives.samples import DIM, ROWS, facts, labels_of, pair

OPTIONS = CrdOptions(dim=8, negatives=40)


def fresh(options=OPTIONS, **changes):
    torch.manual_seed(0)
    return Crd(options, facts(**changes)).double()


def batches(count):
    return [pair(12, seed=seed) for seed in range(count)]


def train(objective, pairs):
    """Losses of some steps, and the gradients by the student of the last."""
    losses = []
    for batch in pairs:
        batch.student.grad = None
        loss = objective(batch)
        loss.backward()
        losses.append(loss.item())
    return losses, pairs[-1].student.grad


def state_of(objective):
    return CrdState(
        objective.embed_student.weight.detach(),
        objective.embed_student.bias.detach(),
        objective.embed_teacher.weight.detach(),
        objective.embed_teacher.bias.detach(),
        objective.bank_student.clone(),
        objective.bank_teacher.clone(),
        torch.cat([torch.zeros(2), objective.log_z.exp().nan_to_num(-1), torch.zeros(1)]).double(),
    )


def test_the_module_takes_the_steps_of_the_function():
    """Banks that move, Z that stays."""
    objective, pairs = fresh(), batches(3)
    state = state_of(objective)
    for number, batch in enumerate(pairs):
        negatives = objective.negatives(batch.rows, torch.tensor(number), OPTIONS.negatives)
        index = torch.cat([batch.rows[:, None], negatives], dim=1)
        expected, state = crd_loss(batch.student, batch.teacher, batch.rows, index, state=state)
        torch.testing.assert_close(objective(batch), expected)
        torch.testing.assert_close(objective.bank_student, state.contrast_memory_v1)
        torch.testing.assert_close(objective.bank_teacher, state.contrast_memory_v2)
        torch.testing.assert_close(objective.log_z.exp(), state.contrast_params[2:4])
    assert objective.step == 3


def test_the_rows_of_a_step_move_in_the_banks_and_no_others():
    objective = fresh()
    before = objective.bank_student.clone()
    (batch,) = batches(1)
    train(objective, [batch])
    moved = (objective.bank_student != before).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == sorted(batch.rows.tolist())
    norms = objective.bank_student[moved].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_z_is_measured_once():
    objective = fresh()
    train(objective, batches(1))
    z = objective.log_z.clone()
    train(objective, batches(4)[1:])
    assert torch.equal(objective.log_z, z)
    assert z.isfinite().all()


def test_training_resumes_exactly():
    """State, negatives and all, through nothing but the state_dict."""
    pairs = batches(6)
    whole = fresh()
    losses, gradient = train(whole, pairs)
    first = fresh()
    early, _ = train(first, pairs[:2])
    second = fresh(seed=7)
    train(second, pairs[3:4])  # what it has seen before it is loaded must not matter
    second.load_state_dict(deepcopy(first.state_dict()))
    late, resumed = train(second, pairs[2:])
    assert early + late == losses
    assert torch.equal(resumed, gradient)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_a_fresh_state_loaded_over_a_trained_one_measures_again():
    objective = fresh()
    state = deepcopy(objective.state_dict())
    losses, _ = train(objective, batches(2))
    objective.load_state_dict(state)
    assert train(objective, batches(2))[0] == losses


def test_evaluation_leaves_the_state_as_it_is():
    objective = fresh()
    train(objective, batches(1))
    before = deepcopy(objective.state_dict())
    with torch.no_grad():
        loss = objective.eval()(pair(5, seed=8))
    assert loss.isfinite()
    assert not loss.requires_grad
    for name, value in before.items():
        assert torch.equal(objective.state_dict()[name], value)


def test_the_backward_pass_does_not_mind_that_the_banks_have_moved():
    """Two steps before the first backward pass, as in gradient accumulation."""
    objective, pairs = fresh(), batches(2)
    losses = [objective(batch) for batch in pairs]
    sum(losses).backward()
    apart, others = fresh(), batches(2)
    for batch in others:
        apart(batch).backward()
    for a, b in zip(pairs, others, strict=True):
        assert torch.equal(a.student.grad, b.student.grad)
    assert torch.equal(objective.embed_teacher.weight.grad, apart.embed_teacher.weight.grad)


def test_reading_rows_or_multiplying_the_whole_bank_is_the_same(monkeypatch):
    dense, (pairs, others) = fresh(), (batches(2), batches(2))
    losses, gradient = train(dense, pairs)
    monkeypatch.setattr(crd, "DENSE", 0)
    same, read = train(fresh(), others)
    assert same == pytest.approx(losses, rel=1e-13)
    torch.testing.assert_close(read, gradient)


def test_a_row_given_twice_keeps_its_last():
    objective, batch = fresh(), pair(4)
    rows = batch.rows.clone()
    rows[0] = rows[3]
    train(objective, [Pair(batch.student, batch.teacher, rows=rows)])
    once = fresh()
    last = [Pair(batch.student[1:], batch.teacher[1:], rows=rows[1:])]
    once(last[0])
    torch.testing.assert_close(objective.bank_student, once.bank_student)
    # The moves of one row are the same, so that the order of writing, which a GPU chooses, is not
    # seen in the bank.
    moved = crd._moved(once.bank_student, rows, torch.eye(4, 8).double(), 0.5)
    assert torch.equal(moved[0], moved[3])
    assert not torch.equal(moved[0], moved[1])


def test_negatives_are_of_other_classes_or_any():
    labels = labels_of(ROWS)
    rows = torch.arange(ROWS)[labels >= 0]
    step = torch.tensor(0)
    other = fresh().negatives(rows, step, 300)
    assert not (labels[other] == labels[rows, None]).any()
    options = OPTIONS.model_copy(update={"other_classes": False})
    anyone = fresh(options).negatives(rows, step, 300)
    assert (labels[anyone] == labels[rows, None]).any()
    assert not (anyone == rows[:, None]).any()


def test_the_seed_decides_banks_and_negatives():
    """And the random state of the process does not: workers agree without a word."""
    a, b = (Crd(OPTIONS, facts()) for _ in range(2))
    assert torch.equal(a.bank_student, b.bank_student)
    assert not torch.equal(a.embed_student.weight, b.embed_student.weight)
    other = Crd(OPTIONS, facts(seed=8))
    assert not torch.equal(a.bank_student, other.bank_student)
    rows, step = torch.arange(5), torch.tensor(1)
    assert not torch.equal(a.negatives(rows, step, 20), other.negatives(rows, step, 20))


def test_a_cold_contrast_does_not_overflow():
    """exp(1 / 0.01) is no float32."""
    options = OPTIONS.model_copy(update={"temperature": 0.01})
    objective, batch = Crd(options, facts()), pair(12, torch.float32)
    losses, gradient = train(objective, [batch])
    assert 0 < losses[0] < 1e4
    assert gradient.isfinite().all()


def test_what_is_saved_and_what_workers_need_not_send():
    objective = Crd(OPTIONS, facts())
    saved = {name: tuple(value.shape) for name, value in objective.state_dict().items()}
    assert saved == {
        "embed_student.weight": (8, DIM),
        "embed_student.bias": (8,),
        "embed_teacher.weight": (8, DIM),
        "embed_teacher.bias": (8,),
        "bank_student": (ROWS, 8),
        "bank_teacher": (ROWS, 8),
        "log_z": (2,),
        "step": (),
    }
    assert objective.replicated == {name for name, _ in objective.named_buffers()}
