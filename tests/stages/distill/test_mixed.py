"""Mixed views: the student sees the pixels that the teacher saw, and learns both labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import to_yaml
from egapipe.pipeline.errors import ImageError, TrainingError, UsageError
from egapipe.pipeline.store import Failure
from egapipe.pipeline.views import WHOLE, own_shares
from egapipe.stages import distill
from egapipe.stages.distill.data.agreement import check_agreement
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.inputs.images import ResidentImages
from egapipe.stages.distill.data.rows.partners import without_image
from egapipe.stages.distill.model.cross_entropy import batch_cross_entropy
from egapipe.stages.distill.objectives import kd_loss
from egapipe.stages.distill.setup import make_batches, prepare
from egapipe.stages.distill.workers.world import World
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.teachers import Preprocessing
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig, configured, extracted
from tests.stages.distill.objectives.goldens import cases, golden
from tests.stages.distill.test_entries import batches_of
from tests.stages.distill.test_step import watched
from tests.stages.distill.test_training import weights

CPU = torch.device("cpu")
AS_IT_IS = Preprocessing((8, 8), None, "bilinear", 1 / 255, (0, 0, 0), (1, 1, 1))
SMALL = (
    "dataset.train={kind: digits, split: train, limit: 200}",
    "dataset.unlabelled={kind: digits, split: test, limit: 60}",
    "views={count: 2, crop: pad, padding: 0.125, flip: 0.5, mix: {probability: 0.8}}",
)

ALONE = "dataset.unlabelled=[]"
"""Without the others, all lies on the device."""


@pytest.fixture(scope="module")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the stores of some labelled digits and some others, in two mixed views each."""
    return extracted(tmp_path_factory.mktemp("mixed"), *SMALL)


@pytest.fixture
def mixed(mixed_store: str, tmp_path: Path) -> MakeConfig:
    """A configuration over those stores, of STKD: KD and cross-entropy of the mixtures."""
    few = ["epochs=2", "threads=1", "student_view=paired", "batch_size=48", "objective={kd: 1.0}"]
    return configured(mixed_store, tmp_path, *SMALL, *(f"distill.{one}" for one in few))


@pytest.mark.parametrize("sets", [[], [ALONE], ["distill.data=stream"]])
def test_the_student_sees_the_teachers_pixels(mixed: MakeConfig, sets: list[str]) -> None:
    """Of every entry, labelled or not, to the number; and knows what is in them."""
    job = prepare(mixed(*sets), World.alone(CPU))
    assert make_batches(job).resident == (sets == [ALONE])
    plans = [store.manifest.plan for store in job.sources.stores]
    readers = [
        Reader(dataset, AS_IT_IS, plan)
        for dataset, plan in zip(job.sources.datasets, plans, strict=True)
    ]
    [first, *_] = batches_of(job)
    assert first.views is not None
    assert first.share is not None
    assert first.others is not None
    for place, (row, view) in enumerate(
        zip(first.rows.tolist(), first.views.tolist(), strict=True)
    ):
        part = int(row >= 200)
        seen = readers[part].views(row - 200 * part)[view]
        assert np.array_equal(first.images[place].numpy(), seen)
    partners = job.loader.partners
    assert partners is not None
    rows = first.rows.numpy()
    shares = own_shares(plans[0], job.loader.hashes[rows], first.views.numpy())
    assert np.array_equal(first.share.numpy() * WHOLE, shares)
    assert 0 < (first.share < 1).float().mean() < 1
    assert np.array_equal(first.others.numpy(), job.sources.labels[partners[rows]])
    assert ((partners < 200) == (np.arange(len(partners)) < 200)).all()


def test_both_ways_to_a_batch_give_the_same(mixed: MakeConfig) -> None:
    for sets in ([ALONE], [ALONE, "distill.views_per_row=2", "distill.jitter={}"]):
        resident, streamed = (
            batches_of(prepare(mixed(f"distill.data={data}", *sets), World.alone(CPU)))
            for data in ("resident", "stream")
        )
        for one, other in zip(resident, streamed, strict=True):
            for column, same in zip(one.tensors(), other.tensors(), strict=True):
                assert torch.equal(column, same)


@pytest.mark.parametrize("case", [case for case in cases() if case.startswith("stkd")])
def test_cross_entropy_and_kd_of_mixtures_are_stkd(case: str) -> None:
    """By definition; nobody published code."""
    arrays = {name: torch.from_numpy(array) for name, array in golden(case).items()}
    logits = arrays["in_student_logits"].requires_grad_()
    labels, others = arrays["in_labels"], arrays["in_partner_labels"]
    images = torch.zeros(len(labels), 3, 1, 1)
    batch = Batch(images, logits, labels, labels, others=others, share=arrays["in_share"])
    temperature = float(arrays["in_temperature"])
    with_float64 = torch.nn.functional.cross_entropy
    share = arrays["in_share"]
    exact = share * with_float64(logits, labels, reduction="none")
    exact = exact + (1 - share) * with_float64(logits, others, reduction="none")
    ce = batch_cross_entropy(logits, batch) / len(labels)
    # The cross-entropy of a training is computed in float32.
    torch.testing.assert_close(ce.double(), exact.mean(), rtol=1e-6, atol=0)
    kd = kd_loss(logits, arrays["in_teacher_logits"], temperature=temperature)
    loss = exact.mean() + kd
    loss.backward()
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-9)
    expected = arrays["grad_student_logits"]
    largest = float(expected.abs().max())
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-7 * largest)


def test_a_training_ends_with_the_same_bits_after_an_interruption(
    mixed: MakeConfig, tmp_path: Path
) -> None:
    """And finds its rows to be what they were made of, which it looks at in each epoch."""
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(mixed("distill.checkpoint_steps=2")))
    runs = [tmp_path / "whole", tmp_path / "parts"]
    for run, stops in zip(runs, ((None,), (3, None)), strict=True):
        for stop in stops:
            workers.train(str(file), str(run), World.alone(CPU), stop)
    one, other = (weights(run) for run in runs)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert distill.run(mixed("distill.head.mode=sequential")).top1 is not None


def test_another_share_is_seen(mixed: MakeConfig) -> None:
    job = prepare(mixed(), World.alone(CPU))
    [batch, *_] = batches_of(job)
    check_agreement(batch, 1, job.sources, job.config.distill)
    wrong = Batch(**{**vars(batch), "images": batch.images.flip(0)})
    with pytest.raises(TrainingError, match="not that of"):
        check_agreement(wrong, 1, job.sources, job.config.distill)


def test_a_partner_without_an_image_is_in_no_mixture(
    mixed: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of which the teacher made no number is."""
    job = prepare(mixed(), World.alone(CPU))
    store = job.sources.stores[0]
    reasons = ["the file is damaged", "teacher output is not finite in float16"]
    failures = [Failure(row, str(row), reason) for row, reason in enumerate(reasons)]
    monkeypatch.setattr(type(store), "failures", lambda self: failures)
    assert np.flatnonzero(without_image(store)).tolist() == [0]
    before = job.loader.partners
    after = prepare(mixed(), World.alone(CPU)).loader.partners
    assert before is not None
    assert after is not None
    alone = before == 0
    assert alone.any()
    assert np.array_equal(after[alone], np.flatnonzero(alone))
    assert np.array_equal(after[:200][~alone[:200]], before[:200][~alone[:200]])


def test_a_partner_that_cannot_be_read_any_more_stops_the_training(mixed: MakeConfig) -> None:
    """Its pixels are zeros, which nobody must take for an image."""
    job = prepare(mixed(ALONE), World.alone(CPU))
    loader = job.loader
    assert loader.partners is not None
    assert isinstance(loader.images, ResidentImages)
    few = replace(job, loader=replace(loader, rows=np.array([7])))
    partner = int(loader.partners[7])
    loader.images._unreadable = {partner: "the file is damaged"}
    with pytest.raises(ImageError, match="damaged"):
        make_batches(few)
    other = next(row for row in range(200) if row not in (7, partner))
    loader.images._unreadable = {other: "the file is damaged"}
    assert make_batches(few).resident


def test_a_step_looks_at_no_value(mixed: MakeConfig) -> None:
    assert watched(mixed, ALONE).found == {}


def test_what_would_show_other_pixels_is_refused(mixed: MakeConfig) -> None:
    for sets, match in (
        (["distill.student_view=independent"], "views are mixed"),
        (["distill.mix={}"], "leave out distill.mix"),
        (["dataset.validation={fraction: 0.2}"], "set dataset.validation.source"),
    ):
        with pytest.raises(UsageError, match=match):
            prepare(mixed(*sets), World.alone(CPU))
    clean = prepare(mixed("distill.student_view=clean", "distill.mix={}"), World.alone(CPU))
    assert clean.loader.steps > 0
