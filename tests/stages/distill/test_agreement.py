"""A row in a batch that is not what it should be is found, and the right ones are not."""

from dataclasses import replace

import pytest
import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.results.runs import run_folder
from egapipe.stages import distill
from egapipe.stages.distill.data.agreement import check_agreement
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.setup import Job, prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig


def job_of(config: Config) -> Job:
    return prepare(config, World.alone(torch.device("cpu")))


def first_batch(job: Job, epoch: int) -> Batch:
    return next(job.loader.epoch(epoch))


def check(job: Job, batch: Batch, epoch: int = 0) -> None:
    check_agreement(batch, epoch, job.sources, job.config.distill)


@pytest.mark.parametrize("view", ["independent", "paired", "clean"])
@pytest.mark.parametrize(
    "images", [[], ["distill.data=stream"], ["distill.image_size=12"], ["distill.image_size=5"]]
)
def test_batches_agree_with_their_sources(quick: MakeConfig, view: str, images: list[str]) -> None:
    crop = "distill.augment={crop: scale, flip: 0.5}"
    job = job_of(quick(f"distill.student_view={view}", crop, "distill.batch_size=16", *images))
    for epoch in range(12):
        check(job, first_batch(job, epoch), epoch)


def test_unlabelled_sources_agree_too(quick: MakeConfig) -> None:
    job = job_of(quick("distill.batch_size=16"))
    twice = replace(
        job.sources,
        datasets=[*job.sources.datasets] * 2,
        stores=[*job.sources.stores] * 2,
        features=[*job.sources.features] * 2,
    )
    batch = first_batch(job, 0)
    later = replace(batch, rows=batch.rows + len(job.sources.datasets[0]))
    check_agreement(later, 0, twice, job.config.distill)


@pytest.mark.parametrize(
    ("name", "said"),
    [("images", "the image in the batch"), ("features", "embedding in the batch")],
)
def test_columns_that_came_out_of_step_are_found(quick: MakeConfig, name: str, said: str) -> None:
    """Each row's image, or features, are those of its neighbour."""
    job = job_of(quick())
    batch = first_batch(job, 0)
    moved = replace(batch, **{name: getattr(batch, name).roll(1, 0)})
    with pytest.raises(TrainingError, match=rf"row \d+ .* in epoch 0.*{said}") as caught:
        check(job, moved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("view", ["independent", "paired"])
def test_the_view_of_another_epoch_is_found(quick: MakeConfig, view: str) -> None:
    """Of a few rows: two views of small images may well be the same crop."""
    crop = "distill.augment={crop: scale}"
    job, found = job_of(quick(f"distill.student_view={view}", crop)), 0
    for epoch in range(10):
        try:
            check(job, first_batch(job, epoch + 1), epoch)
        except TrainingError as error:
            assert "in the batch" in str(error)  # noqa: PT017
            found += 1
    assert found >= 5


def test_another_key_in_the_store_is_found(quick: MakeConfig) -> None:
    job = job_of(quick())
    dataset = job.sources.datasets[0]
    dataset.keys = list(dataset.keys)[::-1]  # type: ignore[misc]
    with pytest.raises(TrainingError, match="extract it again"):
        check(job, first_batch(job, 0))


def test_a_training_looks_at_a_row_each_epoch(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged copy of the decoded images, which nothing else would notice, stops a training."""
    from egapipe.stages.distill.data.inputs import drawing

    right = drawing.crop_within  # type: ignore[attr-defined]
    monkeypatch.setattr(drawing, "crop_within", lambda *a: right(*a).flip(3))
    config = quick("distill.augment={crop: pad}")
    with pytest.raises(TrainingError, match="the image in the batch is not that of"):
        distill.run(config)
    assert not run_folder(config).finished


def test_of_the_store_a_look_reads_one_row(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a whole shard, on every worker in every epoch."""
    from egapipe.pipeline.store.objects.local import LocalObjects

    job = job_of(quick())
    read: list[int] = []
    part = LocalObjects.part
    batch = first_batch(job, 0)
    store = job.sources.stores[0]
    store.index()

    def counted(objects: LocalObjects, key: str, start: int, stop: int) -> bytes | None:
        read.append(stop - start)
        return part(objects, key, start, stop)

    monkeypatch.setattr(LocalObjects, "part", counted)
    monkeypatch.setattr(
        LocalObjects, "get", lambda objects, key: pytest.fail(f"reads all of {key}")
    )
    check(job, batch)
    assert read == [2 * store.manifest.outputs["embedding"][0]]
