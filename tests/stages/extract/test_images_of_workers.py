"""What a worker is sent of a data set: how to read images, and no list of all rows."""

import os
import pickle
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.datasets import Dataset, Images, open_split
from egapipe.pipeline.datasets.kinds import parquet, webdataset
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format import index as index_module
from egapipe.stages.bench.synthetic import MEAN, STD
from egapipe.stages.extract.decoding.decode import Decoder
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from egapipe.stages.extract.teachers.preprocessing import Preprocessing
from tests.pipeline.datasets.samples import images as made
from tests.pipeline.datasets.samples import write_parquet, write_tar

IMAGES = made(30)
ORIGIN = Origin({"model": "any"}, {}, {"embedding": (2,)})


def job_of(
    folder: Path, source: dict[str, Any], shard_rows: int = 4, views: dict[str, Any] | None = None
) -> Job:
    config = Config.model_validate(
        {
            "name": "sent",
            "dataset": {"train": source},
            "teacher": {
                "backend": "python",
                "model": "egapipe.stages.bench.scale:teacher",
                "preprocessing": {"size": 8},
            },
            "views": views or {"count": 0},
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


def passed(given: object) -> Any:
    """As through a connection."""
    return pickle.loads(pickle.dumps(given))  # noqa: S301


def sent(job: Job, shards: Sequence[int] | None = None) -> Images:
    """What a worker has, told of some shards, by default of all."""
    images: Images = passed(job).images
    rows = [
        row for shard in shards or range(len(job.store.shards)) for row in job.store.shards[shard]
    ]
    images.learn(passed(job.dataset.extents(rows)))
    return images


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


def test_a_tar_without_an_image_for_every_sample(tmp_path: Path) -> None:
    source = tars_of(tmp_path, 1)
    write_tar(tmp_path / "tars" / "00.tar", {"a.png": IMAGES[0], "b.cls": b"1", "c.png": b"x"})
    job = job_of(tmp_path, source)
    images = sent(job)
    assert images.encoded(0) == IMAGES[0]
    with pytest.raises(ImageError, match=r"no image among its members \(cls\)"):
        images.encoded(1)
    with pytest.raises(ImageError, match="not an image"):
        images.image(2)


@pytest.mark.parametrize("limit", [None, 9])
def test_parquet_files(tmp_path: Path, limit: int | None) -> None:
    table = pq.read_table(write_parquet(tmp_path / "all.parquet", IMAGES, label=range(30)))
    for number in range(3):
        part = table.slice(10 * number, 10)
        pq.write_table(part, tmp_path / f"part{number}.parquet", row_group_size=4)
    source = {
        "kind": "parquet",
        "files": [str(tmp_path / "part*.parquet")],
        "split": "train[3:17]+train[21:]",
        "limit": limit,
    }
    job = job_of(tmp_path, source)
    require_same(sent(job), job.dataset)
    # What a decoding process gets of it.
    require_same(passed(sent(job)), job.dataset)


@pytest.mark.parametrize("limit", [None, 13])
def test_several(tmp_path: Path, limit: int | None) -> None:
    write_parquet(tmp_path / "a.parquet", IMAGES[:4], label=["class0", "class1"] * 2)
    parts = [
        folder_of(tmp_path, 5),
        tars_of(tmp_path, 2),
        {"kind": "digits", "limit": {"rows": 5, "choose": "first"}},
        {"kind": "parquet", "files": [str(tmp_path / "a.parquet")], "label_column": "none"},
    ]
    for part in parts[1:2]:
        part["class_names"] = ["class0", "class1", "class2"]
    source = {"kind": "several", "sources": parts, "limit": limit}
    job = job_of(tmp_path, source)
    require_same(sent(job), job.dataset)


def test_a_worker_scans_no_tar_and_reads_no_footer_of_files_that_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "a.parquet", IMAGES[:4], label=range(4))
    write_parquet(tmp_path / "b.parquet", IMAGES[4:8], label=range(4))
    tars = job_of(tmp_path / "t", tars_of(tmp_path, 5))
    tables = job_of(tmp_path / "p", {"kind": "parquet", "files": [str(tmp_path / "[ab].parquet")]})
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "tars" / "00.tar").unlink()

    def scanned(*given: Any, **named: Any) -> None:
        raise AssertionError("what the driver has listed is looked for again")

    for module, name in ((webdataset, "tar_index"), (parquet, "parquet_files")):
        monkeypatch.setattr(module, name, scanned)
    assert sent(tars, [1]).encoded(4) == IMAGES[4]
    assert sent(tables).encoded(4) == IMAGES[4]


@pytest.mark.parametrize("change", ["gone", "shorter", "moved"])
def test_other_tars_on_a_host_are_noticed(tmp_path: Path, change: str) -> None:
    """Where an offset would else lead into another image, or an absent one be recorded as bad."""
    job = job_of(tmp_path, tars_of(tmp_path, 2))
    images, tar = sent(job), tmp_path / "tars" / "01.tar"
    match change:
        case "gone":
            tar.unlink()
        case "shorter":
            os.truncate(tar, 512)
        case "moved":
            write_tar(tar, {"0.txt": b"a", "1-0.png": IMAGES[3], "z.png": bytes(10**4)})
    assert images.encoded(0) == IMAGES[0]
    with pytest.raises(UsageError, match=r"01\.tar is not here what it was where the extraction"):
        images.encoded(3)


def test_other_parquet_files_on_a_host_are_noticed(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", IMAGES[:6], label=range(6))
    images = sent(job_of(tmp_path, {"kind": "parquet", "files": [str(file)]}))
    write_parquet(file, IMAGES[:5], label=range(5))
    with pytest.raises(
        UsageError, match=r"a\.parquet is not here what it was where the extraction"
    ):
        images.encoded(0)
    file.unlink()
    with pytest.raises(UsageError, match=r"\(it is not there\): make the same files visible"):
        images.encoded(0)


def test_a_row_that_nobody_told_of_is_no_bad_image(tmp_path: Path) -> None:
    images = sent(job_of(tmp_path, tars_of(tmp_path, 5)), [0])
    with pytest.raises(LookupError, match="nobody has told where row 4"):
        images.encoded(4)


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


def test_decoding_processes_are_told_too(tmp_path: Path) -> None:
    """They have no list of the samples either, and what a worker learns later reaches them."""
    job = job_of(tmp_path, tars_of(tmp_path, 4))
    images: Images = passed(job).images
    reader = Reader(
        images, Preprocessing((8, 8), None, "bicubic", 1, MEAN, STD), ViewsConfig(count=0)
    )
    with closing(Decoder(reader, 4, 2, pinned=False, by="processes")) as decoder:
        for shard in range(3):
            rows = job.store.shards[shard]
            images.learn(passed(job.dataset.extents(rows)))
            [batch] = decoder.batches(decoder.open(rows))
            for pixels, row in zip(batch.pixels, rows, strict=True):
                np.testing.assert_array_equal(
                    pixels, reader.preprocessing.clean(job.dataset.image(row))
                )


def test_where_partners_of_mixed_views_lie_is_told_with_a_shard(tmp_path: Path) -> None:
    """They are in other shards, of which nothing was told; to processes of the worker too."""
    job = job_of(tmp_path, tars_of(tmp_path, 6), views={"count": 2, "mix": {}})
    preprocessing = Preprocessing((8, 8), None, "bicubic", 1, MEAN, STD)
    plan = job.store.manifest.plan
    whole = Reader(job.dataset, preprocessing, plan)
    images: Images = passed(job).images
    reader = Reader(images, preprocessing, plan)
    with closing(Decoder(reader, 12, 2, pinned=False, by="processes")) as decoder:
        for shard in (1, 3):
            for told in passed(job.extents(shard)):
                images.learn(told)
            rows = job.store.shards[shard]
            [batch] = decoder.batches(decoder.open(rows))
            expected = [view for row in rows for view in whole.views(row)]
            np.testing.assert_array_equal(batch.pixels, np.stack(expected))
