"""What a worker of extraction does on a GPU alone: memory that ends there, weights that are kept in
half precision, resizing, the batch that is found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from egapipe.pipeline.config import load_config
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.extract.teachers import Loading, Outputs, Preprocessing, load_teacher
from egapipe.stages.extract.teachers import precision as kept_precision
from egapipe.stages.extract.teachers.canvas import HEADER
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.workers.forward.jpegs import Jpegs
from egapipe.stages.extract.workers.forward.passes import Passes
from egapipe.stages.extract.workers.forward.sizing import FIRST, MOST
from tests.gpu.conftest import Make
from tests.stages.extract.decoders import by_pillow, decoder
from tests.stages.extract.workers.test_jpegs import (
    CANVAS,
    KINDS,
    VIEWS,
    damaged_files,
    encoded,
    left,
    never,
)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_kept_in_half_precision_give_the_bits_of_autocast(
    device: torch.device, make: Make, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make(f"teacher.precision={precision}").teacher
    found = []
    for forwards in (kept_precision._FORWARDS, set()):
        monkeypatch.setattr(kept_precision, "_FORWARDS", forwards)
        teacher = load_teacher(settings, Loading(device=device))
        teacher.to(device)
        generator = torch.Generator().manual_seed(0)
        shape = (16, *teacher.preprocessing.shape)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        found.append(teacher.forward(pixels.to(device))["embedding"].cpu())
    assert torch.equal(*found)


class Hungry:
    """A teacher of which a view takes a share of what is free on the device."""

    def __init__(self, numbers: int) -> None:
        self.spec: dict[str, Any] = {"model": "hungry", "precision": "float32"}
        self.preprocessing = Preprocessing((2, 2), None, "nearest", 1.0, (0, 0, 0), (1, 1, 1))
        self.outputs = {"embedding": (1,)}
        self.numbers = numbers

    def to(self, device: torch.device) -> None: ...

    def forward(self, pixels: Tensor) -> Outputs:
        wide = torch.empty(len(pixels), self.numbers, device=pixels.device)
        wide[:] = pixels.flatten(1).float().sum(1, keepdim=True)
        return {"embedding": wide[:, :1].clone()}


def test_memory_that_ends_on_the_device_halves_the_batch(gpu: torch.device) -> None:
    free, _ = torch.cuda.mem_get_info(gpu)
    # Of 16 views about ten have room.
    hungry, notes = Hungry(free // 10 // 4), list[str]()
    passes = Passes(hungry, gpu, 16, notes.append)
    pixels = torch.randint(0, 256, (16, 3, 2, 2), dtype=torch.uint8, device=gpu)
    found = passes.forward(pixels)["embedding"]
    assert torch.equal(found, pixels.flatten(1).float().sum(1, keepdim=True))
    assert passes.sizes()[0] == 16
    assert passes.size in (8, 4)
    assert notes[0].startswith("16 images at once are too much for the memory of cuda")


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "hamming"])
def test_images_are_resized_as_on_the_cpu(device: torch.device, resample: str) -> None:
    transform = Preprocessing(40, (32, 32), resample, 1.0, (0, 0, 0), (1, 1, 1))
    plain = SimpleNamespace(spec={}, outputs={"embedding": (1,)}, preprocessing=transform)
    teacher = OnDevice(plain, 96)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    sizes = rng.integers(8, 96, (70, 2)).tolist()
    images = [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)) for h, w in sizes]
    packed = torch.from_numpy(np.stack([teacher.preprocessing.clean(image) for image in images]))
    there = teacher.pixels(packed.to(device)).cpu().int()
    difference = (there - teacher.pixels(packed).int()).abs()
    assert difference.max() <= 3
    assert (difference > 0).float().mean() < 0.01


def test_jpegs_are_nearly_those_of_the_host(device: torch.device) -> None:
    """On the CPU to the bit where they fit into the square, see test_jpegs.py. nvJPEG is another
    decoder than libjpeg: what it may differ by is a guess until a GPU has run this."""
    decodes = decoder("torchcodec")
    rows = [encoded(seed=number, **options) for number, options in enumerate(KINDS)]
    slots = [s for data in rows for s in (left(data).clean(), *map(left(data).view, VIEWS))]
    packed = torch.from_numpy(np.stack(slots))
    made = Jpegs(CANVAS, decodes)
    made.check(device)
    there = made.receive(packed, device, never)
    assert there.device.type == device.type
    here = Jpegs(CANVAS, by_pillow).receive(packed, torch.device("cpu"), never)
    difference = (there.cpu().int() - here.int()).abs()[:, HEADER:]
    seen = here[:, HEADER:] > 0
    assert difference[seen].float().mean() < (3 if device.type == "cuda" else 0.1)
    assert torch.equal(there.cpu()[:, :HEADER], here[:, :HEADER])
    # Alone, among others, and while something else is queued.
    assert torch.equal(made.receive(packed[7:9], device, never), there[7:9])


def test_damaged_jpegs_are_decided_by_pillow(device: torch.device) -> None:
    decodes = decoder("torchcodec")
    files = [data for data in damaged_files() if CANVAS.left(data) is not None]
    packed = torch.from_numpy(np.stack([left(data).clean() for data in files]))
    expected: dict[int, str] = {}
    Jpegs(CANVAS, by_pillow).receive(packed.clone(), torch.device("cpu"), expected.__setitem__)
    told: dict[int, str] = {}
    Jpegs(CANVAS, decodes).receive(packed, device, told.__setitem__)
    assert told.items() <= expected.items()
    assert device.type == "cuda" or told == expected


def test_a_split_of_jpegs_is_extracted(device: torch.device, tmp_path: Path) -> None:
    decoder("torchcodec")
    (tmp_path / "images").mkdir()
    for number, options in enumerate(KINDS):
        path = tmp_path / "images" / f"{number:02}.jpg"
        path.write_bytes(encoded(seed=number, **options))
    (tmp_path / "images" / "cut.jpg").write_bytes(encoded()[:-40])
    sets = [f"extract.device={device.type}", "extract.max_failures=0.5", "views.count=2"]
    sets += [f"dataset.test={{kind: folder, path: {tmp_path / 'images'}}}", "extract.canvas=64"]
    found = []
    for jpeg in ("whole", "device"):
        more = [f"store.url={tmp_path / jpeg}", f"extract.jpeg={jpeg}"]
        report = extract.run(load_config("quickstart", [*sets, *more]), split="test", local=True)
        store = FeatureStore.open(report.url)
        assert [f.key for f in store.snapshot().failures] == ["cut.jpg"]
        found.append(store.read_shard(0, "embedding").astype(np.float32)[:-1])
    cosines = (found[0] * found[1]).sum(-1) / np.prod(
        [np.linalg.norm(f, axis=-1) for f in found], 0
    )
    assert cosines.mean() > 0.98


def test_a_split_is_extracted_with_all_of_it(device: torch.device, tmp_path: Path) -> None:
    sets = [f"store.url={tmp_path}", "views.count=1", f"extract.device={device.type}"]
    new = ["extract.batch_size=auto", "extract.canvas=32", "teacher.precision=bfloat16"]
    report = extract.run(load_config("quickstart", [*sets, *new]), split="test", local=True)
    commits = FeatureStore.open(report.url).commits().values()
    assert report.failures == 0
    assert {commit.computed["precision"] for commit in commits} == {"bfloat16"}
    sizes = {int(commit.computed["batch"].partition(" x ")[0]) for commit in commits}
    assert all(FIRST <= size <= MOST for size in sizes)
