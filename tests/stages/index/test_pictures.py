"""One picture is one picture, however it is encoded, scaled or turned; another one is another."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images

from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.terminal.progress import silent_progress
from egapipe.stages.index.pictures import (
    Pictures,
    find_copies,
    perceptual_hash,
    read_pictures,
    same_picture,
)
from tests.stages.report.test_pictures import Noise

Change = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def larger(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)


COPIES: dict[str, Change] = {
    "itself": lambda image: image,
    "jpeg": lambda image: jpeg(image, 90),
    "large jpeg": lambda image: jpeg(larger(image), 75),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(0.2)),
    "darker": lambda image: Image.eval(image, lambda value: round(0.8 * value)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


class Listed(Noise):
    """Some images in memory; None cannot be read."""

    def __init__(self, images: Sequence[Image.Image | None]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> Image.Image:
        image = self.images[row]
        if image is None:
            raise ImageError("it is not there")
        return image


@pytest.fixture(scope="module")
def digits() -> list[Image.Image]:
    dataset = open_dataset(DigitsSource(kind="digits", split="train"))
    return [dataset.image(row) for row in range(400)]


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Parts of two photographs, that have nothing in common, or little: half of what they show."""
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return [
        photo.crop((x, y, x + 200, y + 200))
        for photo in whole
        for x in (0, 100, 200, 400)
        for y in (0, 100, 200)
    ]


def pictures(images: Sequence[Image.Image | None]) -> Pictures:
    with silent_progress("", len(images)) as progress:
        return read_pictures(Listed(images), np.arange(len(images)), progress)


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("kind", ["digits", "photos"])
def test_a_copy_is_found_among_others(
    kind: str, change: str, request: pytest.FixtureRequest
) -> None:
    images: list[Image.Image] = request.getfixturevalue(kind)
    theirs = pictures(images)
    changed = [COPIES[change](image) for image in images[:24]]
    found = find_copies(pictures(changed), theirs)
    assert {row: other for row, (other, _) in found.items()} == {row: row for row in range(24)}
    grey = change == "grey" and kind == "digits"
    same = "pixels" if change == "itself" or grey else "picture"
    assert {how for _, how in found.values()} == {same}
    mirrored = find_copies(pictures(list(map(ImageOps.mirror, changed))), theirs)
    assert {row: other for row, (other, _) in mirrored.items()} == {row: row for row in range(24)}
    # A digit may be its own mirror image, nearly: there are a few of 24.
    assert sum(how == "mirrored" for _, how in mirrored.values()) >= 20


@pytest.mark.parametrize("kind", ["digits", "photos"])
def test_others_are_no_copies(kind: str, request: pytest.FixtureRequest) -> None:
    images: list[Image.Image] = request.getfixturevalue(kind)
    half = len(images) // 2
    found = find_copies(pictures(images[:half]), pictures(images[half:]))
    assert found == {}
    hashes = np.stack([perceptual_hash(image) for image in images])
    pairs = [(i, j) for i in range(len(images)) for j in range(i)][:5000]
    one, other = (hashes[list(of)] for of in zip(*pairs, strict=True))
    assert not same_picture(one, other).any()
    assert np.allclose(np.linalg.norm(hashes, axis=1), 1)


def test_pictures_of_one_colour_are_copies_where_their_pixels_are_equal() -> None:
    red, blue = (Image.new("RGB", (9, 9), colour) for colour in ("red", "blue"))
    found = find_copies(pictures([red, blue]), pictures([blue, blue]))
    assert found == {1: (0, "pixels")}
    assert not perceptual_hash(red).any()


def test_what_cannot_be_read_is_counted_and_left_out(digits: list[Image.Image]) -> None:
    some = pictures([None, digits[0], None, digits[1]])
    assert (some.rows.tolist(), some.unread, len(some.pixels)) == ([1, 3], 2, 2)
    assert find_copies(some, pictures([digits[1]])) == {3: (0, "pixels")}
    assert find_copies(some, pictures([None])) == {}
    assert find_copies(pictures([None]), some) == {}
