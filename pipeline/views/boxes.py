"""Boxes: which part of an image a view shows, and which way round."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.views.draws import Hashes, Ints, key_hashes, uniforms
from egapipe.pipeline.views.plans import CLEAN, quarter_turns, settled

_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class View(NamedTuple):
    """A crop box in source pixels, then a flip, then quarter turns against the clock.

    The box of a padded crop may leave the image.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool
    turns: int = 0


@dataclass(frozen=True)
class Boxes:
    """The views of N images, as columns.

    box: int64 [N, 4] = top, left, height, width in source pixels. flip: bool [N]. turns: int64 [N],
    0 to 3 quarters against the clock, behind the flip.
    """

    box: Ints
    flip: npt.NDArray[np.bool_]
    turns: Ints

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, i: int) -> View:
        top, left, height, width = (int(v) for v in self.box[i])
        return View(top, left, height, width, bool(self.flip[i]), int(self.turns[i]))

    @property
    def sizes(self) -> Ints:
        """int64 [N, 2]: height and width of what is seen, before it is resized."""
        sides = self.box[:, 2:]
        return np.where(self.turns[:, None] % 2 == 1, sides[:, ::-1], sides)


def view_params(plan: ViewsConfig, key: str, k: int, size: tuple[int, int]) -> View:
    """View `k` of the image with this key and size (height, width)."""
    return view_boxes(plan, key_hashes([key]), k, np.array([size]))[0]


def view_boxes(plan: ViewsConfig, hashes: Hashes, k: int | Ints, sizes: Ints) -> Boxes:
    """The views of N images at once.

    hashes: uint64 [N] of `key_hashes`. k: view number, one or int64 [N]; 0 is the clean view, and
    numbers above `plan.count` are further views of the same distribution. sizes: int64 [N, 2] =
    height, width, or [1, 2] for all.
    """
    n = len(hashes)
    ks = np.broadcast_to(np.asarray(k, dtype=np.int64), (n,))
    sizes = np.broadcast_to(np.asarray(sizes, dtype=np.int64), (n, 2))
    u = uniforms(plan.seed, hashes, ks)
    box = _crops(plan, u, sizes)
    clean = ks == CLEAN
    box[clean] = _middle(sizes, _sides(plan, sizes))[clean]
    turns = quarter_turns(plan, ks)
    return Boxes(box, _flips(plan, hashes, ks - turns, u) & ~clean, turns)


def clean_part(image: Image.Image, aspect: str | None) -> Image.Image:
    """What a student sees of an image that is not augmented, before resizing: its middle square
    where the aspect is kept, else all of it."""
    sizes = np.array([[image.height, image.width]])
    plan = settled(ViewsConfig(), aspect)
    boxes = Boxes(_middle(sizes, _sides(plan, sizes)), np.array([False]), np.array([0]))
    return image if (boxes.box[:, 2:] == sizes).all() else apply_view(image, boxes[0])


def apply_view(image: Image.Image, view: View) -> Image.Image:
    """Crop (zeros outside the image), flip and turn: the teacher's pixels before resizing."""
    right, bottom = view.left + view.width, view.top + view.height
    cropped = image.crop((view.left, view.top, right, bottom))
    if view.flip:
        cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cropped.transpose(_TURNS[view.turns - 1]) if view.turns else cropped


def _crops(plan: ViewsConfig, u: npt.NDArray[np.float64], sizes: Ints) -> Ints:
    if plan.crop == "none":
        return _middle(sizes, _sides(plan, sizes))
    if plan.crop == "pad":
        return _padded(plan, u, sizes)
    return _scaled(plan, u, sizes)


def _sides(plan: ViewsConfig, sizes: Ints) -> Ints:
    """Height and width, [..., 2], of the part of images that a view shows if it is not scaled."""
    if plan.aspect != "keep":
        return sizes
    return np.broadcast_to(sizes.min(axis=-1, keepdims=True), sizes.shape)


def _middle(sizes: Ints, sides: Ints) -> Ints:
    return np.concatenate([(sizes - sides) // 2, sides], axis=1)


def margins(plan: ViewsConfig, size: Ints) -> tuple[int, int]:
    """How far (down, across) a view may reach out of images of the size [2] = height, width."""
    if plan.crop != "pad":
        return (0, 0)
    y, x = _padding(plan, _sides(plan, size))
    return (int(y), int(x))


def _padding(plan: ViewsConfig, sides: Ints) -> Ints:
    padding: Ints = np.rint(plan.padding * sides).astype(np.int64)
    return padding


def _padded(plan: ViewsConfig, u: npt.NDArray[np.float64], sizes: Ints) -> Ints:
    sides = _sides(plan, sizes)
    pad = _padding(plan, sides)
    offset = np.floor(u[:, :2] * (sizes - sides + 2 * pad + 1)).astype(np.int64) - pad
    return np.concatenate([offset, sides], axis=1)


def _scaled(plan: ViewsConfig, u: npt.NDArray[np.float64], sizes: Ints) -> Ints:
    """Area uniform, aspect ratio log-uniform; a side longer than the image is cut to it."""
    area = sizes.prod(axis=1) * (plan.scale[0] + u[:, 2] * (plan.scale[1] - plan.scale[0]))
    low, high = np.log(plan.ratio)
    ratio = np.exp(low + u[:, 3] * (high - low))
    sides = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1)
    sides = np.clip(np.rint(sides).astype(np.int64), 1, sizes)
    offset = np.floor(u[:, :2] * (sizes - sides + 1)).astype(np.int64)
    return np.concatenate([offset, sides], axis=1)


def _flips(
    plan: ViewsConfig, hashes: Hashes, ks: Ints, own: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """bool [N]: of the plain views `ks`, whose flip those have that are turned copies of them.

    own: float64 [N, 5], the draws of the views themselves.
    """
    if plan.flip == "alternating":
        return _alternating(plan, hashes, (ks - 1) // plan.turns + 1)
    drawn = own if plan.turns == 1 else uniforms(plan.seed, hashes, ks)
    flips: npt.NDArray[np.bool_] = drawn[:, 4] < plan.flip
    return flips


def _alternating(plan: ViewsConfig, hashes: Hashes, ks: Ints) -> npt.NDArray[np.bool_]:
    """bool [N]: every second view, from the first or the second on, which is drawn for the image.

    A student's further views of an epoch are 2^32 apart, and alternate too.
    """
    start = uniforms(plan.seed, hashes, np.zeros_like(ks), range(4, 5))[:, 0] < 0.5
    flips: npt.NDArray[np.bool_] = (((ks ^ (ks >> 32)) & 1) == 1) ^ start
    return flips
