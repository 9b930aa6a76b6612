"""What a store knows of the images that it was made of, and whom it tells when they are others."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets import open_split
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.results import images as same
from egapipe.pipeline.results.images import changed_images, require_images, root_of
from egapipe.pipeline.results.learned import STORE, features_record, require_current
from egapipe.pipeline.results.pairing import check_pair
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.store.format import layout
from egapipe.stages import extract
from egapipe.stages.extract import prepare
from egapipe.stages.extract.verifying.verify import verify_store

ROWS, SHARD_ROWS = 10, 4
DAMAGED, MISSING = 3, 8


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (9, 8), (number, 2 * number, 3)).save(data, "PNG")
    return data.getvalue()


def make_config(folder: Path, **changes: object) -> Config:
    return Config.model_validate(
        {
            "name": "identity",
            "dataset": {"train": {"kind": "folder", "path": str(folder / "images")}},
            "teacher": {
                "backend": "python",
                "model": "egapipe.stages.bench.scale:teacher",
                "preprocessing": {"size": 8},
            },
            "views": {"count": 0},
            "store": {"url": str(folder / "stores"), "shard_rows": SHARD_ROWS},
            "extract": {"max_failures": 2},
            **changes,
        }
    )


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of ten images, one of them damaged and one not there."""
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(ROWS):
        (folder / f"{row:02}.png").write_bytes(b"no image" if row == DAMAGED else png(row))
    (folder / f"{MISSING:02}.png").unlink()
    (folder / f"{MISSING:02}.png").symlink_to(tmp_path / "gone.png")
    return make_config(tmp_path)


def run(config: Config) -> FeatureStore:
    extract.run(config, split="train", local=True)
    return FeatureStore.open(config.store_url("train"))


def image(config: Config, row: int) -> Path:
    return Path(config.dataset.train.path, f"{row:02}.png")  # type: ignore[union-attr]


def pair(config: Config) -> None:
    check_pair(
        FeatureStore.open(config.store_url("train")), config, open_split(config, "train"), "train"
    )


def test_a_store_has_the_digest_of_every_image_that_was_read(config: Config) -> None:
    store = run(config)
    digests = np.concatenate([store.read_digests(store.commits()[i]) for i in range(3)])
    expected = [hashlib.sha256(image(config, row).read_bytes()).digest() for row in range(MISSING)]
    expected += [bytes(32), hashlib.sha256(image(config, 9).read_bytes()).digest()]
    assert digests.tobytes() == b"".join(expected)
    # For everybody: an array like the others.
    assert np.array_equal(zarr.open_group(store.url, mode="r")["images"][:], digests)
    assert check_store(store.url).problems == []
    end, dataset = store.ended(), open_split(config, "train")
    assert end is not None
    assert end.images == store.snapshot().images_root() == root_of(dataset, store.manifest)
    pair(config)


@pytest.mark.parametrize("whole", [True, False], ids=["all", "sample"])
def test_a_changed_image_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if not whole:
        monkeypatch.setattr(same, "WHOLE_ROWS", 0)
    store = run(config)
    image(config, 6).write_bytes(png(60))
    said = (
        r"image 06.png \(row 6\) on .* is another one than that it was made of: restore .* delete "
        r"commits/000001.json there and run `egapipe extract` again"
    )
    with pytest.raises(StoreError, match=said):
        pair(config)
    with pytest.raises(StoreError, match=said):
        run(config)
    image(config, 0).unlink()
    image(config, 0).symlink_to("nowhere")
    with pytest.raises(StoreError, match=r"00.png \(row 0\) on .* cannot be read"):
        pair(config)
    found = changed_images(store, store.snapshot(), open_split(config, "train"))
    assert [(one.row, one.shard, one.gone) for one in found] == [(0, 0, True), (6, 1, False)]
    # As it says.
    image(config, 0).unlink()
    image(config, 0).write_bytes(png(0))
    store.objects.delete(layout.commit_key(1))
    assert run(config).complete
    pair(config)


def test_images_without_an_embedding_may_be_mended(config: Config) -> None:
    """And then `--retry-failures` does their shards again."""
    run(config)
    for row in (DAMAGED, MISSING):
        image(config, row).unlink()
        image(config, row).write_bytes(png(row))
    pair(config)
    [extraction] = prepare(config, ["train"])
    assert extraction.retry_failures() == [0, 2]
    assert extraction.run(local=True).failures == 0
    pair(config)


def test_an_image_that_changed_between_a_kill_and_its_continuation_is_named(
    config: Config,
) -> None:
    store = run(config)
    store.reopen()
    store.objects.delete(layout.commit_key(2))
    image(config, 9).write_bytes(png(90))
    # Of the shard that is to be made: nobody has read it yet.
    require_images(store, open_split(config, "train"))
    image(config, 1).write_bytes(png(91))
    with pytest.raises(StoreError, match=r"image 01.png \(row 1\)"):
        run(config)
    image(config, 1).write_bytes(png(1))
    assert run(config).complete
    pair(config)


def test_a_host_with_other_images_is_found_by_whoever_reads_them_again(config: Config) -> None:
    run(config)
    [extraction] = prepare(config, ["train"])
    store = extraction.job.store
    commit = store.commits()[1]
    elsewhere = commit.model_copy(update={"host": "other-host"})
    extraction._look_again(elsewhere)
    for row in range(4, 8):
        image(config, row).write_bytes(png(40 + row))
    # What its own host has read is looked at by others.
    extraction._look_again(commit)
    said = r"shard 1 .* made of other images on other-host than there are on .*: . of 4 differ, the"
    with pytest.raises(StoreError, match=said):
        extraction._look_again(elsewhere)
    assert store.pending() == [1]
    # A worker that does a shard which another has finished meanwhile.
    store.objects.put(layout.commit_key(1), elsewhere.encode())
    digests = {row: hashlib.sha256(image(config, row).read_bytes()).digest() for row in range(4, 8)}
    arrays = {"embedding": np.zeros((4, 1, 64), np.float32)}
    with pytest.raises(StoreError, match=r"4 of 4 differ, the first is row 4 \(04.png\)"):
        store.write_shard(1, arrays, images=digests)
    assert store.commits()[1].host == "other-host"


def test_a_store_of_one_fingerprint_goes_on_under_its_own_rule(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older egapipe begins it."""
    from egapipe.stages.extract.planning import plan

    def older(*arguments: object, **named: object) -> object:
        return manifest_for(*arguments, **{"whole": True, **named})  # type: ignore[arg-type]

    manifest_for = plan.manifest_for  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(plan, "manifest_for", older)
        store = run(config)
    dataset = open_split(config, "train")
    assert store.manifest.dataset.fingerprint == dataset.fingerprint()
    assert "images" not in store.manifest.model_dump(mode="json")["dataset"]
    assert "images" not in store.objects.get(layout.commit_key(0)).decode()  # type: ignore[union-attr]
    store.reopen()
    store.objects.delete(layout.commit_key(1))
    again = run(config)
    assert again.complete
    assert again.commits()[1].sha256 == store.commits()[1].sha256
    image(config, 2).write_bytes(png(20))
    with pytest.raises(StoreError, match=r"dataset\.fingerprint"):
        pair(config)


def test_verifying_lists_every_image_that_has_changed(config: Config) -> None:
    run(config)
    assert verify_store(config, split="train", images=True).ok
    for row in (5, 9):
        image(config, row).write_bytes(png(50 + row))
    report = verify_store(config, split="train", count=1, images=True)
    assert not report.ok
    assert [(one.key, one.row, one.shard) for one in report.changed] == [
        ("05.png", 5, 1),
        ("09.png", 9, 2),
    ]
    assert any("image 09.png (row 9, shard 2) is another one" in line for line in report.lines())
    drawn = verify_store(config, split="train", count=8)
    assert [one.row for one in drawn.changed] == [5, 9]


def test_a_finished_training_is_of_the_images_that_it_has_learned_from(
    config: Config, tmp_path: Path
) -> None:
    store, training = run(config), RunFolder(tmp_path / "run")
    training.path.mkdir()
    training.write_json(STORE, features_record([store], None, None))
    require_current(training, config)
    image(config, DAMAGED).write_bytes(b"no image either")
    require_current(training, config)
    image(config, 2).write_bytes(png(20))
    with pytest.raises(StoreError, match=r"from what is there now: image 02.png \(row 2\) is ano"):
        require_current(training, config)
    shutil.rmtree(store.url)
    with pytest.raises(StoreError, match="are others: train it anew"):
        require_current(training, config)
