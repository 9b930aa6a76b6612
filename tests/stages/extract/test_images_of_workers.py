"""What a worker is sent of a data set: how to read images, and no list of all rows."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import Dataset, Images, open_split, webdataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store import index as index_module
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from tests.pipeline.datasets.samples import images as made
from tests.pipeline.datasets.samples import write_tar

IMAGES = made(30)
ORIGIN = Origin({"model": "any"}, {}, {"embedding": (2,)})


def job_of(folder: Path, source: dict[str, Any], shard_rows: int = 4) -> Job:
    config = Config.model_validate(
        {
            "name": "sent",
            "dataset": {"train": source},
            "teacher": {
                "backend": "python",
                "model": "egapipe.stages.bench.scale:teacher",
                "preprocessing": {"size": 8},
            },
            "views": {"count": 0},
            "store": {
                "url": str(folder / "stores"),
                "shard_rows": shard_rows,
                "cache_dir": str(folder / "cache"),
            },
        }
    )
    dataset = open_split(config, "train")
    manifest = manifest_for(config, "train", ORIGIN, dataset)
    store = FeatureStore.create(config.store_url("train"), manifest, index_of(dataset))
    return Job(config, "train", dataset, store)


def sent(job: Job) -> Images:
    arrived: Job = pickle.loads(pickle.dumps(job))  # noqa: S301
    return arrived.images


def require_same(images: Images, dataset: Dataset) -> None:
    assert len(images) == len(dataset)
    assert images.name == dataset.name
    assert list(images.keys) == list(dataset.keys)
    for row in range(len(dataset)):
        assert images.keys[row] == dataset.keys[row]
        assert images.encoded(row) == dataset.encoded(row)
        assert images.image(row).tobytes() == dataset.image(row).tobytes()
    with pytest.raises(IndexError):
        images.encoded(len(dataset))


def folder_of(path: Path, rows: int) -> dict[str, Any]:
    for row in range(rows):
        file = path / "images" / f"class{row % 3}" / f"{row:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(IMAGES[row % len(IMAGES)])
    return {"kind": "folder", "path": str(path / "images")}


def tars_of(path: Path, tars: int, limit: int | None = None) -> dict[str, Any]:
    (path / "tars").mkdir(parents=True)
    for tar in range(tars):
        members = {}
        for row in range(3):
            members[f"{tar}-{row}.png"] = IMAGES[(3 * tar + row) % len(IMAGES)]
            members[f"{tar}-{row}.cls"] = str(row).encode()
        write_tar(path / "tars" / f"{tar:02d}.tar", members)
    return {"kind": "webdataset", "files": [str(path / "tars" / "*.tar")], "limit": limit}


@pytest.mark.parametrize("small", [True, False])
def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    if not small:
        monkeypatch.setattr(index_module, "_SMALL", 16)
    job = job_of(tmp_path, folder_of(tmp_path, 11))
    require_same(sent(job), job.dataset)


def test_what_is_sent_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    few, many = (
        job_of(tmp_path / str(rows), folder_of(tmp_path / str(rows), rows), shard_rows=1)
        for rows in (10, 300)
    )
    assert len(pickle.dumps(many)) < len(pickle.dumps(few)) + 50


@pytest.mark.parametrize("limit", [None, 7])
def test_tars(tmp_path: Path, limit: int | None) -> None:
    job = job_of(tmp_path, tars_of(tmp_path, 4, limit))
    require_same(sent(job), job.dataset)


def test_a_worker_looks_into_the_tars_of_its_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, tars_of(tmp_path, 5))
    looked: list[str] = []

    def tar_index(tar: str, **named: Any) -> pa.Table:
        looked.append(Path(tar).name)
        return plain(tar, **named)

    plain = webdataset.tar_index
    monkeypatch.setattr(webdataset, "tar_index", tar_index)
    images = sent(job)
    for row in (4, 3, 5, 6):
        assert images.encoded(row) == job.dataset.encoded(row)
    assert looked == ["01.tar", "02.tar"]


def test_other_tars_on_a_host_are_noticed(tmp_path: Path) -> None:
    """Where an offset would else lead into another image."""
    job = job_of(tmp_path, tars_of(tmp_path, 2))
    images = sent(job)
    write_tar(tmp_path / "tars" / "01.tar", {"1-0.png": IMAGES[0]})
    assert images.encoded(0) == IMAGES[0]
    with pytest.raises(UsageError, match=r"01\.tar has 1 samples here, 3 where the extraction"):
        images.encoded(3)


def test_keys_are_looked_up_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path, folder_of(tmp_path, 40))
    asked: list[int] = []
    plain = job.store.listing.slice

    def slice_of(offset: int, length: int) -> pa.Table:
        asked.append(offset)
        return plain(offset, length)

    monkeypatch.setattr(job.store.listing, "slice", slice_of)
    images = job.images
    for row in (8, 9, 10, 11, 12, 9, 8):
        assert images.keys[row] == job.dataset.keys[row]
    assert asked == [8, 12]
