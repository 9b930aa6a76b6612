"""A worker's host must have the software, the model and the images that the manifest is about."""

import dataclasses
import socket
from pathlib import Path

import pytest

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import TeacherError, UsageError
from egapipe.stages.extract import prepare
from egapipe.stages.extract.planning.host import check_images, check_teacher, named_host, sample
from egapipe.stages.extract.planning.manifest import software
from tests.stages.extract.conftest import MakeConfig


@pytest.fixture
def images(tmp_path: Path, quick: MakeConfig) -> Path:
    digits = open_dataset(quick().dataset.train)
    (tmp_path / "images").mkdir()
    for row in range(9):
        digits.image(row).save(tmp_path / "images" / f"{row}.png")
    return tmp_path / "images"


def test_samples_span_the_data_set_and_leave_out_unreadable_rows(
    images: Path, quick: MakeConfig
) -> None:
    dataset = open_dataset(FolderSource(kind="folder", path=str(images)))
    assert list(sample(dataset)) == list(range(9))
    (images / "4.png").unlink()
    assert list(sample(dataset)) == [0, 1, 2, 3, 5, 6, 7, 8]
    check_images(dataset, sample(dataset))
    many = open_dataset(quick().dataset.train.model_copy(update={"limit": None}))
    rows = list(sample(many))
    assert {0, len(many) // 2, len(many) - 1} <= set(rows)
    assert 40 < len(rows) <= 3 * 17


def test_a_host_where_most_images_were_exchanged_is_refused(
    tmp_path: Path, quick: MakeConfig
) -> None:
    """The first, the middle and the last one are what they were."""
    digits = open_dataset(quick().dataset.train.model_copy(update={"limit": None}))
    folder = tmp_path / "many"
    folder.mkdir()
    for row in range(101):
        digits.image(row).save(folder / f"{row:03d}.png")
    dataset = open_dataset(FolderSource(kind="folder", path=str(folder)))
    samples = sample(dataset)
    content = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    paths = [path for row, path in enumerate(content) if row not in (0, 50, 100)]
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        path.write_bytes(content[other])
    with pytest.raises(UsageError, match="of data set folder/many is missing or another one"):
        check_images(dataset, samples)


@pytest.mark.parametrize("spoil", ["missing", "another"])
def test_images_that_are_not_here_are_refused_instead_of_recorded_as_unreadable(
    images: Path, spoil: str
) -> None:
    dataset = open_dataset(FolderSource(kind="folder", path=str(images)))
    samples = sample(dataset)
    if spoil == "missing":
        (images / "8.png").unlink()
    else:
        (images / "8.png").write_bytes((images / "7.png").read_bytes())
    with pytest.raises(UsageError, match=r"image 8\.png of data set folder/images is missing or"):
        check_images(dataset, samples)


def test_another_teacher_software_or_preprocessing_is_refused(quick: MakeConfig) -> None:
    [extraction] = prepare(quick(), ["test"])
    manifest, teacher = extraction.job.store.manifest, extraction.teacher
    check_teacher(teacher, manifest, software())
    others = {
        "teacher.sha256": {"teacher": {**manifest.teacher, "sha256": "0" * 64}},
        "preprocessing.mean": {"preprocessing": {**manifest.preprocessing, "mean": [0, 0, 0]}},
    }
    for key, update in others.items():
        with pytest.raises(TeacherError, match=f"^{key} is .* the extraction has"):
            check_teacher(teacher, manifest.model_copy(update=update), software())


def test_software_is_that_of_the_host_which_hands_out_work(quick: MakeConfig) -> None:
    """Not that which began the store: its shards say what made them."""
    [extraction] = prepare(quick(), ["test"])
    manifest, teacher = extraction.job.store.manifest, extraction.teacher
    older = manifest.model_copy(update={"versions": {**software(), "torch": "0.1"}})
    check_teacher(teacher, older, extraction.job.software)
    with pytest.raises(TeacherError, match=r"^versions\.torch is '.*' there, the extraction has"):
        check_teacher(teacher, manifest, {**software(), "torch": "0.1"})


def test_refusals_name_the_host_and_keep_their_kind() -> None:
    for kind in (TeacherError, UsageError):
        with pytest.raises(kind) as error, named_host():
            raise kind("no")
        assert str(error.value) == f"worker on {socket.gethostname()}: no"


def test_a_job_for_a_worker_carries_no_pixels_and_no_weights(quick: MakeConfig) -> None:
    import pickle

    [extraction] = prepare(quick(), ["train"])
    job = extraction.job
    sent = pickle.dumps(job)
    assert len(sent) < 10_000
    received = pickle.loads(sent)  # noqa: S301
    assert received.store.manifest == job.store.manifest
    assert dataclasses.replace(received, dataset=job.dataset, store=job.store) == job
    assert received.dataset.fingerprint() == job.dataset.fingerprint()
