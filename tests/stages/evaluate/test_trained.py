"""What a trained student makes of images, and the teacher's head beside it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.stages import distill
from tests.stages.evaluate.conftest import CopyRun
from tests.stages.evaluate.photos import write_digits


def test_outputs_are_those_of_the_student_in_the_order_that_is_asked_for(finished: Path) -> None:
    student = distill.load_student(finished)
    digits = open_dataset(student.config.dataset.train)
    rows = np.random.default_rng(0).permutation(len(digits))[:600]
    found = list(student.outputs(digits, rows))
    assert [len(out.rows) for out in found] == [512, 88]
    np.testing.assert_array_equal(np.concatenate([out.rows for out in found]), rows)
    pixels = np.stack([np.asarray(digits.image(int(row))) for row in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = student.student.features(images)
        nodes, logits = student.student.head(features)
    for name, expected in {"features": features, "nodes": nodes, "logits": logits}.items():
        values = torch.cat([getattr(out, name) for out in found])
        assert not values.requires_grad
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_streamed_images_give_the_same(copy_run: CopyRun, finished: Path) -> None:
    resident, streamed = (
        distill.load_student(run) for run in (finished, copy_run(distill__data="stream"))
    )
    digits = open_dataset(resident.config.dataset.test)
    rows = np.arange(len(digits))
    for one, other in zip(
        resident.outputs(digits, rows), streamed.outputs(digits, rows), strict=True
    ):
        assert torch.equal(one.logits, other.logits)


@pytest.mark.parametrize("data", ["resident", "stream"])
def test_unreadable_images_are_left_out(copy_run: CopyRun, tmp_path: Path, data: str) -> None:
    path = write_digits(tmp_path / "photos", range(90), classes=range(10), broken=[3, 40, 41])
    student = distill.load_student(copy_run(distill__data=data, distill__image_size=8))
    photos = open_dataset(FolderSource(kind="folder", path=path))
    rows = np.arange(len(photos))
    found = np.concatenate([out.rows for out in student.outputs(photos, rows)])
    np.testing.assert_array_equal(found, np.delete(rows, [3, 40, 41]))
    assert list(student.outputs(photos, np.array([40, 41]))) == []


def test_the_teacher_head_is_the_one_that_training_measured(finished: Path) -> None:
    student = distill.load_student(finished)
    head = student.teacher_head()
    assert head is not None
    digits = open_dataset(student.config.dataset.test)
    features = Features.open(FeatureStore.open(student.config.store_url("test")))
    with torch.no_grad():
        logits = head(features.take(np.arange(len(digits)), 0).float())[1]
    accuracy = 100 * float((logits.argmax(1).numpy() == digits.labels).mean())
    assert accuracy == pytest.approx(RunFolder(finished).summary()["teacher_top1"])


def test_a_checkpoint_may_have_no_teacher_head(copy_run: CopyRun) -> None:
    student = distill.load_student(copy_run())
    heads = load_file(student.checkpoint / "heads.safetensors")
    own = {name: value for name, value in heads.items() if name.startswith("student.")}
    assert 0 < len(own) < len(heads)
    save_file(own, student.checkpoint / "heads.safetensors")
    assert distill.load_student(student.checkpoint.parents[1]).teacher_head() is None


def test_a_damaged_teacher_head_says_where(copy_run: CopyRun) -> None:
    student = distill.load_student(copy_run())
    heads = student.checkpoint / "heads.safetensors"
    heads.write_bytes(heads.read_bytes()[:100])
    with pytest.raises(UsageError, match=rf"{student.checkpoint.name} does not load") as raised:
        student.teacher_head()
    assert "\n" not in str(raised.value)
    shutil.rmtree(student.checkpoint)
    with pytest.raises(UsageError, match="does not load"):
        student.teacher_head()
