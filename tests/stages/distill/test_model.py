"""What each loss sees and where its gradient goes."""

import numpy as np
import pytest
import torch

from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.objectives import EgaOptions, ObjectiveConfig
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.student import Head, Student, TeacherHead
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.students import build_student
from egapipe.stages.distill.workers.world import World

CPU = torch.device("cpu")
HALF = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def distillation(
    *, ega: bool, precision: torch.dtype = torch.float32, smoothing: float = 0.0
) -> Distillation:
    torch.manual_seed(0)
    backbone = build_student("digits_cnn", {})
    student = Student(backbone, Head(backbone.num_features, 16, 3), HALF)
    objective = ObjectiveConfig(ega=EgaOptions() if ega else None)
    return Distillation(
        student,
        TeacherHead(20, 16, 3),
        build_objective(objective),
        ce_weight=1.0,
        label_smoothing=smoothing,
        precision=precision,
        world=World.alone(CPU),
    )


def batch(labels: list[int]) -> Batch:
    rng = np.random.default_rng(0)
    n = len(labels)
    return Batch(
        images=torch.from_numpy(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)),
        features=torch.from_numpy(rng.standard_normal((n, 20)).astype(np.float16)),
        labels=torch.tensor(labels),
        rows=torch.arange(n),
    )


def test_the_student_normalises_uint8_images() -> None:
    student = distillation(ega=False).student
    images = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    student.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    student(images)
    assert torch.equal(seen[0], torch.ones(1, 3, 8, 8))


def test_unlabelled_rows_join_the_graph_and_not_the_cross_entropy() -> None:
    model = distillation(ega=True).eval()
    data = batch([0, 1, -1, 2, -1])
    moved = data.features.clone()
    moved[2] += torch.randn(20, generator=torch.Generator().manual_seed(1)).half()
    other = Batch(data.images, moved, data.labels, data.rows)
    before, after = model(data).parts, model(other).parts
    assert before["ega"] != after["ega"]
    assert before["ce"] == after["ce"]
    assert before["head_ce"] == after["head_ce"]


def test_cross_entropy_is_the_mean_over_labelled_rows() -> None:
    model = distillation(ega=False).eval()
    data = batch([0, 1, -1, 2])
    logits = model.student(data.images)[1]
    labelled = [0, 1, 3]
    wanted = torch.nn.functional.cross_entropy(logits[labelled], data.labels[labelled])
    torch.testing.assert_close(model(data).parts["ce"], wanted.detach())


def test_label_smoothing_is_of_the_students_labels_alone() -> None:
    model, plain = distillation(ega=False, smoothing=0.3).eval(), distillation(ega=False).eval()
    data = batch([0, 1, -1, 2])
    logits = model.student(data.images)[1][[0, 1, 3]].detach()
    target = 0.7 * torch.eye(3) + 0.1
    wanted = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    parts = model(data).parts
    torch.testing.assert_close(parts["ce"], wanted)
    assert parts["head_ce"] == plain(data).parts["head_ce"]


def test_the_objective_sends_no_gradient_to_the_teachers_head() -> None:
    gradients = {}
    for ega in (False, True):
        model = distillation(ega=ega)
        model(batch([0, 1, 2, 0, -1])).total.backward()
        gradients[ega] = [p.grad.clone() for p in model.teacher_head.parameters()]
    for alone, beside in zip(gradients[False], gradients[True], strict=True):
        assert alone.abs().max() > 0
        torch.testing.assert_close(alone, beside)


@pytest.mark.parametrize("ega", [False, True])
def test_a_batch_without_labels_is_harmless(ega: bool) -> None:
    model = distillation(ega=ega)
    losses = model(batch([-1, -1, -1]))
    losses.total.backward()
    assert losses.parts["ce"] == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_bfloat16_stays_close_to_float32() -> None:
    data = batch([0, 1, 2, 0, 1, 2])
    exact = distillation(ega=True)(data).parts
    rough = distillation(ega=True, precision=torch.bfloat16)(data).parts
    for name in ("ce", "ega", "head_ce"):
        torch.testing.assert_close(rough[name].float(), exact[name], rtol=0.05, atol=0.05)


def test_a_student_without_node_layer_classifies_its_features() -> None:
    backbone = build_student("resnet8x4", {})
    student = Student(backbone, Head(256, None, 100), HALF)
    assert sum(p.numel() for p in student.parameters()) == 1_233_540
    node, logits = student.eval()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert node.shape == (2, 256)
    assert logits.shape == (2, 100)
