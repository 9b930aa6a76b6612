"""JPEG images that the device decodes: the pixels of decoding on the host, whoever decodes them."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from egapipe.pipeline.datasets.decoding.images import decode
from egapipe.pipeline.errors import ImageError, UsageError
from egapipe.pipeline.views import View, apply_view
from egapipe.stages.extract.teachers import Preprocessing, check_distinct
from egapipe.stages.extract.teachers.canvas import HEADER, Canvas
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.teachers.undecoded import Left, Undecoded, packed_in
from egapipe.stages.extract.workers.forward import jpegs
from egapipe.stages.extract.workers.forward.jpegs import Decode, Jpegs, seen, upright
from egapipe.stages.extract.workers.forward.passes import Passes
from tests.stages.extract.decoders import NAMES, by_pillow, decoder

SIDE = 96
CPU = torch.device("cpu")
INNER = Preprocessing(40, (32, 32), "bicubic", 1 / 255, (0, 0, 0), (1, 1, 1))
HOST, CANVAS = Canvas(INNER, SIDE), Undecoded(INNER, SIDE)
VIEWS = [
    View(4, 9, 30, 21, flip=False),
    View(4, 9, 30, 21, flip=True),
    View(-6, -3, 50, 60, flip=True, turns=1),
    View(2, 0, 11, 20, flip=False, turns=2),
    View(0, 5, 40, 13, flip=True, turns=3),
]
KINDS: list[dict[str, Any]] = [
    {},
    {"mode": "L"},
    {"progressive": True},
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"quality": 30},
    {"size": (1, 1)},
    {"size": (7, 95)},
    {"size": (200, 141)},
    {"size": (61, 300), "mode": "L", "progressive": True},
    *({"orientation": number} for number in range(2, 9)),
    {"size": (150, 140), "orientation": 6},
]


def encoded(
    size: tuple[int, int] = (57, 83),
    mode: str = "RGB",
    kind: str = "jpeg",
    orientation: int = 1,
    seed: int = 0,
    **options: Any,
) -> bytes:
    """size: height and width as stored."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def left(data: bytes) -> Left:
    found = CANVAS.left(data)
    assert found is not None
    return found


def batch_of(*slots: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(slots))


@pytest.fixture(params=NAMES)
def decodes(request: pytest.FixtureRequest) -> Decode:
    return decoder(request.param)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_canvas_is_that_of_the_host(decodes: Decode, options: dict[str, Any]) -> None:
    """To the bit, and by a grey level where the image is larger than the square, of which less than
    one number in a hundred differs by more."""
    data = encoded(**options)
    image = decode(data)
    packed = [left(data).clean(), *map(left(data).view, VIEWS)]
    host = batch_of(HOST.clean(image), *(HOST.view(image, view) for view in VIEWS))
    found = Jpegs(CANVAS, decodes).receive(batch_of(*packed), CPU, never)
    assert torch.equal(found[:, :HEADER], host[:, :HEADER])
    difference = (found.int() - host.int()).abs()
    if max(image.size) <= SIDE:
        assert difference.max() == 0
    else:
        assert difference.max() <= 2
        assert (difference > 1).float().mean() < 0.01


def test_a_batch_of_all_kinds_is_what_each_is_by_itself(decodes: Decode) -> None:
    """Images that the host has decoded among them, and views of one that were split."""
    slots = []
    for number, options in enumerate(KINDS):
        data = encoded(seed=number, **options)
        slots += [left(data).clean(), *map(left(data).view, VIEWS[: number % 4])]
        if number % 3 == 0:
            slots.append(CANVAS.clean(decode(data)))
    batch, made = batch_of(*slots), Jpegs(CANVAS, decodes)
    teacher = OnDevice(Pixels(), SIDE)
    whole = made.receive(batch, CPU, never)
    for size in (1, 2, 5):
        parts = [made.receive(part, CPU, never) for part in batch.split(size)]
        assert torch.equal(torch.cat(parts), whole)
    assert teacher.pixels(whole).shape == (len(slots), 3, 32, 32)


def test_an_image_is_decoded_once_and_all_of_a_batch_together() -> None:
    calls: list[int] = []

    def counted(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        calls.append(len(files))
        return by_pillow(files, device)

    rows = [left(encoded(seed=number)) for number in range(3)]
    batch = batch_of(*(slot for row in rows for slot in (row.clean(), *map(row.view, VIEWS))))
    Jpegs(CANVAS, counted).receive(batch, CPU, never)
    assert calls == [3]
    Jpegs(CANVAS, counted).receive(batch_of(CANVAS.clean(decode(encoded()))), CPU, never)
    assert calls == [3]


def test_large_images_are_not_all_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        calls.append(len(files))
        return by_pillow(files, device)

    monkeypatch.setattr(jpegs, "_PIXELS_AT_ONCE", 2 * 57 * 83)
    batch = batch_of(*(left(encoded(seed=number)).clean() for number in range(5)))
    Jpegs(CANVAS, counted).receive(batch, CPU, never)
    assert calls == [2, 2, 1]


def test_what_is_not_plain_or_has_no_room_is_decoded_before() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (95, 95, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "jpeg", quality=100, subsampling="4:4:4")
    assert len(buffer.getvalue()) > SIDE * SIDE * 3 - 60
    assert CANVAS.left(buffer.getvalue()) is None
    assert CANVAS.left(encoded(kind="png")) is None
    assert CANVAS.left(encoded(mode="CMYK")) is None
    assert CANVAS.left(encoded()[:-2]) is None
    assert packed_in(CANVAS.clean(decode(encoded()))) is None
    assert Undecoded(INNER, 8192).left(encoded(size=(4097, 4097), quality=1)) is None


def damaged_files() -> list[bytes]:
    """Of which some are sound to every decoder, some to none, and some to one of both."""
    rng, found = np.random.default_rng(0), []
    for number in range(150):
        data = bytearray(encoded(seed=number % 7, progressive=number % 2 == 0))
        place = int(rng.integers(20, len(data) - 2))
        if number % 3 == 0:
            data[place : place + 20] = rng.bytes(20)
        elif number % 3 == 1:
            del data[place : place + int(rng.integers(1, 200))]
            data += b"\xff\xd9"
        else:
            data[place] = int(rng.integers(256))
        found.append(bytes(data))
    return found


def test_damaged_images_are_those_that_pillow_finds_damaged(decodes: Decode) -> None:
    files = [data for data in damaged_files() if CANVAS.left(data) is not None]
    batch = batch_of(
        *(slot for data in files for slot in (left(data).clean(), left(data).view(VIEWS[0])))
    )
    told: dict[int, str] = {}
    canvas = Jpegs(CANVAS, decodes).receive(batch, CPU, told.__setitem__)
    reasons = {}
    for number, data in enumerate(files):
        try:
            image = decode(data)
        except ImageError as error:
            reasons |= {2 * number: str(error), 2 * number + 1: str(error)}
        else:
            assert np.array_equal(canvas[2 * number].numpy(), HOST.clean(image))
    assert told == reasons
    assert 0 < len(reasons) < len(batch)
    for position in reasons:
        assert not canvas[position].any()
        assert not batch[position].any()


def test_one_that_the_device_alone_cannot_decode_is_decoded_by_pillow() -> None:
    bad = encoded(seed=3)

    def picky(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        if any(file.numpy().tobytes() == left(bad).plain.data for file in files):
            raise RuntimeError("nvjpegDecode failed: 4")
        return by_pillow(files, device)

    files = [encoded(seed=number, orientation=6) for number in range(3)]
    files.insert(1, bad)
    batch = batch_of(*(left(data).clean() for data in files))
    found = Jpegs(CANVAS, picky).receive(batch, CPU, never)
    assert torch.equal(found, batch_of(*(HOST.clean(decode(data)) for data in files)))


@pytest.mark.parametrize("said", ["no decoder", "nvjpegDecode failed: 6"])
def test_a_decoder_that_decodes_nothing_is_the_machines_fault(said: str) -> None:
    def broken(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        raise RuntimeError(said)

    made = Jpegs(CANVAS, broken)
    with pytest.raises(UsageError, match=f"decodes no JPEG image on cpu .*{said}"):
        made.check(CPU)
    with pytest.raises(UsageError, match="decodes no JPEG image"):
        made.receive(batch_of(left(encoded()).clean()), CPU, never)
    black = Jpegs(CANVAS, lambda files, device: [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    with pytest.raises(UsageError, match="wrongly on cpu"):
        black.check(CPU)


def test_memory_that_ends_while_images_are_decoded_halves_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the device says of itself is nothing that is said of an image."""

    def small(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        if len(files) > 2:
            raise RuntimeError("nvjpegDecode failed: 5")
        return by_pillow(files, device)

    files = [encoded(seed=number) for number in range(8)]
    batch = batch_of(*(left(data).clean() for data in files))
    notes: list[str] = []
    told: list[int] = []
    passes = Passes(Sums(small), CPU, 8, notes.append)  # type: ignore[arg-type]
    found = passes.forward(batch, lambda position, reason: told.append(position))["embedding"]
    host = batch_of(*(HOST.clean(decode(data)) for data in files))
    assert torch.equal(found, host.float().sum(1, keepdim=True))
    assert passes.size == 2
    assert not told

    def broken(files: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        Passes(Sums(broken), CPU, 8).forward(batch)  # type: ignore[arg-type]


def test_positions_are_those_of_the_whole_batch() -> None:
    bad = next(data for data in damaged_files() if CANVAS.left(data) is not None and fails(data))
    batch = batch_of(*(left(encoded()).clean() for _ in range(5)), left(bad).clean())
    told: dict[int, str] = {}
    passes = Passes(Sums(by_pillow), CPU, 2)  # type: ignore[arg-type]
    passes.forward(batch, told.__setitem__)
    assert list(told) == [5]


def test_equal_images_in_different_files_may_have_equal_embeddings() -> None:
    teacher = Sums(by_pillow)
    batch = batch_of(*(left(encoded(comment=text)).clean() for text in (b"one", b"other")))
    check_distinct(teacher, batch, {"embedding": np.zeros((2, 1), np.float32)})  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tensor_is_turned_as_an_image_is(orientation: int) -> None:
    data = encoded(size=(8, 16), kind="png", orientation=orientation)
    stored = np.array(Image.open(io.BytesIO(data)))
    found = upright(torch.from_numpy(stored).permute(2, 0, 1), orientation)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(decode(data)))


@pytest.mark.parametrize("view", [*VIEWS, View(-9, 70, 7, 40, False), View(60, 0, 3, 3, True)])
def test_a_tensor_is_cut_as_an_image_is(view: View) -> None:
    image = decode(encoded())
    found = seen(torch.from_numpy(np.array(image)).permute(2, 0, 1), view)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(apply_view(image, view)))


def fails(data: bytes) -> bool:
    try:
        decode(data)
    except ImageError:
        return True
    return False


def never(position: int, reason: str) -> None:
    raise AssertionError(f"view {position} is sound: {reason}")


class Pixels:
    """A teacher of which only the transform counts."""

    def __init__(self) -> None:
        self.spec = {"model": "pixels", "precision": "float32"}
        self.preprocessing = INNER
        self.outputs = {"embedding": (1,)}


class Sums(Pixels):
    """One that adds up what it gets."""

    def __init__(self, decodes: Decode) -> None:
        super().__init__()
        self.receive = Jpegs(CANVAS, decodes).receive

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"embedding": pixels.float().sum(1, keepdim=True)}
