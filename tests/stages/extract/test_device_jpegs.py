"""`extract.jpeg: device`: the store of decoding on the host, but for its name and the last bits."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.errors import ImageError, StoreError, UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.commands.summary import summarize, summary_lines
from egapipe.stages import extract
from egapipe.stages.extract.decoding.decoders import Decoders
from egapipe.stages.extract.planning import memory
from egapipe.stages.extract.planning.dry_run import dry_run
from egapipe.stages.extract.teachers.canvas import HEADER
from egapipe.stages.extract.teachers.undecoded import Undecoded
from egapipe.stages.extract.verifying.verify import verify_store
from egapipe.stages.extract.workers.forward import jpegs
from egapipe.stages.extract.workers.forward.tuned import open_teacher
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.decoders import NAMES, decoder
from tests.stages.extract.workers.test_jpegs import CANVAS, KINDS, damaged_files, encoded

DEVICE = ("extract.canvas=64", "extract.jpeg=device")
HOST = ("extract.canvas=64",)
CANVAS_BYTES = HEADER + 64 * 64 * 3


@pytest.fixture(params=NAMES, autouse=True)
def decodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decoder in its turn."""
    found = decoder(request.param)
    monkeypatch.setattr(jpegs, "torchcodec", lambda: found)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """JPEG files of every kind, some larger than the square, and what else there is."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, options in enumerate(KINDS):
        (folder / f"{number:02}.jpg").write_bytes(encoded(seed=number, **options))
    sound = encoded()
    for name, data in {
        "cmyk.jpg": encoded(mode="CMYK"),
        "cut.jpg": sound[: len(sound) // 2],
        "empty.jpg": b"",
        "noise.jpg": b"no image",
        "x.png": encoded(kind="png"),
        "zdamaged.jpg": _damaged(),
        "zthin.jpg": encoded(size=(1, 150)),
    }.items():
        (folder / name).write_bytes(data)
    return folder


def _damaged() -> bytes:
    """Whole by its markers, and refused by libjpeg."""
    for data in damaged_files():
        try:
            decode(data)
        except ImageError:
            if CANVAS.left(data) is not None:
                return data
    raise AssertionError("there is one")


@pytest.fixture
def made(quick: MakeConfig, images: Path, tmp_path: Path) -> MakeConfig:
    """A configuration of those files; batches end amid the views of a row."""

    def make(*sets: str) -> Config:
        name = re.sub(r"\W+", "-", " ".join(sets)) or "whole"
        return quick(
            f"dataset.train={{kind: folder, path: {images}}}",
            f"store.url={tmp_path / name}",
            "store.shard_rows=9",
            "extract.batch_size=7",
            "extract.max_failures=1.0",
            "store.dtype=float32",
            "views.crop=scale",
            *sets,
        )

    return make


def run(config: Config) -> FeatureStore:
    extract.run(config, split="train", local=True)
    return FeatureStore.open(config.store_url("train"))


def embeddings(store: FeatureStore) -> np.ndarray:
    shards = range(len(store.shards))
    return np.concatenate([store.read_shard(shard, "embedding") for shard in shards])


def test_it_holds_what_the_hosts_does(made: MakeConfig) -> None:
    host, device = run(made(*HOST)), run(made(*DEVICE))
    failures = host.snapshot().failures
    names = {failure.key.rpartition("/")[2] for failure in failures}
    assert {"cut.jpg", "empty.jpg", "noise.jpg", "zdamaged.jpg"} <= names
    assert device.snapshot().failures == failures
    for one, other in zip(host.commits().values(), device.commits().values(), strict=True):
        assert np.array_equal(host.read_digests(one), device.read_digests(other))
    mine, theirs = embeddings(device), embeddings(host)
    assert np.array_equal(np.isnan(mine), np.isnan(theirs))
    fits = [number for number, options in enumerate(KINDS) if max(options.get("size", (64,))) <= 64]
    assert np.isfinite(mine[fits]).all()
    small = [n for n in fits if "size" in KINDS[n]]
    assert np.array_equal(mine[small], theirs[small])
    sound = ~np.isnan(theirs).any(axis=(1, 2))
    difference = np.linalg.norm(mine[sound] - theirs[sound], axis=2)
    assert (difference < 0.02 * np.linalg.norm(theirs[sound], axis=2)).all()


def test_threads_processes_and_what_was_killed_make_one_store(made: MakeConfig) -> None:
    config = made(*DEVICE)
    threads = run(config).content_hash()
    other = made(*DEVICE, "extract.decode=processes")
    assert run(other).content_hash() == threads
    store = FeatureStore.open(config.store_url("train"))
    store.objects.delete("commits/000001.json")
    [extraction] = extract.prepare(config, ["train"])
    extraction.retry_failures()
    extraction.run(local=True)
    assert FeatureStore.open(store.url).content_hash() == threads


def test_all_that_views_may_be(made: MakeConfig) -> None:
    sets = ("views={count: 4, turns: 4, crop: pad, flip: alternating}",)
    host, device = (embeddings(run(made(*sets, *of))) for of in (HOST, DEVICE))
    sound = ~np.isnan(host).any(axis=(1, 2))
    assert np.linalg.norm(device[sound] - host[sound], axis=2).max() < 0.1


def test_it_is_another_store_and_known_as_such(made: MakeConfig) -> None:
    config, url = made(*DEVICE), made(*DEVICE).store.url
    store = run(config)
    assert store.manifest.preprocessing["jpeg"] == "device"
    assert store.manifest.preprocessing["canvas"] == 64
    assert {c.computed["jpeg"].split()[0] for c in store.commits().values()} == {"torchcodec"}
    assert dict(summary_lines(summarize(store.url)))["JPEG images by"].startswith("torchcodec")
    assert verify_store(config, split="train", count=9).ok
    for others in (HOST, (), (*HOST, "extract.jpeg=reduced")):
        with pytest.raises(StoreError, match=r"preprocessing\.(jpeg|canvas)"):
            extract.run(made(*others, f"store.url={url}"), split="train", local=True)


def test_a_dry_run_rehearses_it(made: MakeConfig) -> None:
    config = made(*DEVICE, "extract.batch_size=auto")
    dry = dry_run(config, ["train"], local=True)
    assert dry.problem is None
    assert dry.estimates["train"].speed.decode > 0
    assert run(config).snapshot().complete


def test_a_compiled_or_rearranged_teacher_decodes_too(made: MakeConfig) -> None:
    plain = embeddings(run(made(*DEVICE)))
    rearranged = embeddings(run(made(*DEVICE, "extract.channels_last=true")))
    assert np.allclose(plain, rearranged, atol=1e-3, equal_nan=True)


def test_a_single_image_is_embedded_without_a_file(made: MakeConfig) -> None:
    teacher = open_teacher(made(*DEVICE))
    assert isinstance(teacher.preprocessing, Undecoded)
    found = extract.embed(made(*DEVICE), [decode(encoded())])
    assert np.isfinite(found["embedding"]).all()


def test_what_cannot_be_is_refused_in_a_line(made: MakeConfig) -> None:
    with pytest.raises(UsageError, match="jpeg is device, where images are resized too: set canv"):
        made("extract.jpeg=device")
    with pytest.raises(UsageError, match=r"views\.mix .* extract\.canvas"):
        made(*DEVICE, "views.mix={alpha: 1.0}")


def test_a_machine_without_torchcodec_says_so(
    made: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(
        UsageError, match=r"extract\.jpeg: device needs torchcodec\.decoders .*egap"
    ):
        extract.run(made(*DEVICE), split="train", local=True)
    assert not Path(made(*DEVICE).store_url("train")).exists()
    old = type(sys)("torchcodec.decoders")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", old)
    monkeypatch.setattr(jpegs, "version", lambda name: "0.9.0")
    monkeypatch.setitem(sys.modules, "torchcodec", type(sys)("torchcodec"))
    with pytest.raises(UsageError, match=r"needs a later torchcodec than 0\.9\.0"):
        open_teacher(made(*DEVICE))


def test_a_device_that_decodes_nothing_is_no_fault_of_images(
    made: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("nvjpegDecode failed: 7")

    monkeypatch.setattr(jpegs, "torchcodec", lambda: broken)
    with pytest.raises(UsageError, match="TorchCodec decodes no JPEG image on cpu"):
        extract.run(made(*DEVICE), split="train", local=True)


def test_thumbnails_and_comments_take_no_room() -> None:
    buffer = io.BytesIO()
    image = Image.new("RGB", (16, 16))
    image.save(buffer, "jpeg", comment=b"x" * 30_000)
    assert CANVAS.left(buffer.getvalue()) is not None


def test_what_a_pass_takes_for_decoding_is_planned_for(
    made: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of a batch, and the squares that they are decoded into."""
    monkeypatch.setattr(memory, "pass_bytes", lambda teacher, batch: 1000)
    manifest = run(made(*DEVICE)).manifest
    given = (manifest, Decoders("threads", 1), torch.device("cpu"), 1, 64)
    host, device = (
        memory.worker_memory(open_teacher(made(*of)), *given).one_pass for of in (HOST, DEVICE)
    )
    assert (host, device) == (1000, 1000 + 2 * 64 * CANVAS_BYTES)
