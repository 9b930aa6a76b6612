"""Whatever a command keeps in the node's cache is of a registered kind, and where it was asked for.

A new cache that nobody registered would neither be tidied up nor moved: this finds it.
"""

import io
import pickle
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset, open_split
from egapipe.pipeline.disk.caches import KINDS, entries, owner
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.results.runs import open_run
from egapipe.pipeline.store.commands.prune import prune_cache
from egapipe.stages import distill, extract
from egapipe.stages.index import build, neighbours
from tests.pipeline.datasets.samples import write_tar
from tests.stages.extract.conftest import teacher_folder

__all__ = ["teacher_folder"]

ROWS = 60


def tar_of_digits(path: Path) -> Path:
    digits = open_dataset(DigitsSource(kind="digits", split="train"))
    members = {}
    for row in range(ROWS):
        png = io.BytesIO()
        digits.image(row).save(png, "PNG")
        members[f"{row:03d}.png"] = png.getvalue()
        members[f"{row:03d}.cls"] = str(digits.labels[row]).encode()
    return write_tar(path, members)


@pytest.fixture
def config(tmp_path: Path, teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "default"))
    tar = tar_of_digits(tmp_path / "set.tar")
    source = f"{{kind: webdataset, files: {tar}, label_field: cls}}"
    sets = [
        f"dataset={{train: {source}, test: {source}}}",
        f"teacher.model={teacher_folder}",
        f"store.url={tmp_path / 'stores'}",
        f"store.cache_dir={tmp_path / 'moved'}",
        f"runs={tmp_path / 'runs'}",
        *("views.count=1", "store.shard_rows=32", "extract.batch_size=30"),
        *("distill.epochs=1", "distill.batch_size=30", "distill.labels_per_class=null"),
        *("distill.sampler=neighbours", "distill.sampler_group=5", "distill.standardize=phi-s"),
        "distill.objective={rrd: {anchors: kmeans, count: 5}}",
    ]
    return load_config("quickstart", sets)


def unregistered(root: Path) -> list[Path]:
    """Files below a cache folder that no kind knows."""
    below = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [path for path in below if owner(path) is None]


def check_moved(tmp_path: Path, kinds: set[str]) -> None:
    """Every file is of a kind, there is one of each of these, and none in the default folder."""
    moved = tmp_path / "moved"
    assert unregistered(moved) == []
    assert {entry.kind.what for entry in entries(moved)} == kinds
    assert not (tmp_path / "default").exists()


def test_every_cache_of_extraction_training_and_index_is_registered_and_moves(
    config: Config, tmp_path: Path, settled: None
) -> None:
    extract.run(config, split="train", local=True)
    run = distill.run(config).run
    query = tmp_path / "query.png"
    open_dataset(DigitsSource(kind="digits", split="train")).image(0).save(query)
    neighbours(config, [query], k=1, run=run)
    build(config.store_url("train"), kind="flat", cache_dir=config.store.cache_dir)
    open_run("memory://runs/of-this-test").fetch()
    # An archive is downloaded, which its own tests do.
    check_moved(tmp_path, {kind.what for kind in KINDS} - {"unpacked archive"})
    # All goes, and all comes back.
    assert len(prune_cache(tmp_path / "moved", set(), unused=0, dry_run=False)) >= 7
    assert entries(tmp_path / "moved") == []
    assert neighbours(config, [query], k=1, run=run)[query][0].cosine > 0.99


def test_a_data_set_that_is_sent_to_another_process_keeps_its_cache(
    config: Config, tmp_path: Path, settled: None
) -> None:
    """As workers get it, which were started before or on another machine."""
    sent = pickle.dumps(open_split(config, "train"))
    use_cache(None)
    assert len(pickle.loads(sent)) == ROWS  # noqa: S301  (its own)
    check_moved(tmp_path, {"tar index"})
