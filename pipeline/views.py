"""Views: which crop and flip of an image did the teacher see?

A view is a pure function of (plan, key, view number, image size). Nothing is stored per sample, and
any process replays any view. View 0 is the clean image; views 1, 2, ... are augmented.

The random numbers are counter-based: the key is hashed to 64 bits once, and draw `j` of view `k` is
the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) of that hash, the plan's seed, `k` and
`j`. The same draws come out on every platform. Scaled crops go on through a logarithm and an
exponential, whose last bit may differ between processors: a side then differs by a pixel, in less
than one of 10^12 views.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.results.durable import durable

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

CLEAN = 0
METHOD = "egapipe views 1"
"""Changes when the same plan would give other views."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_DRAWS = 5


class View(NamedTuple):
    """A crop box in source pixels, then a flip. The box of a padded crop may leave the image."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


@dataclass(frozen=True)
class Boxes:
    """The views of N images, as columns.

    box: int64 [N, 4] = top, left, height, width in source pixels. flip: bool [N].
    """

    box: Ints
    flip: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.flip)

    def __getitem__(self, i: int) -> View:
        top, left, height, width = (int(v) for v in self.box[i])
        return View(top, left, height, width, bool(self.flip[i]))


def plan_hash(plan: ViewsConfig) -> str:
    """SHA-256 of the plan and the method: equal hashes mean equal views."""
    text = json.dumps(durable(plan), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{METHOD}\n{text}".encode()).hexdigest()


def key_hashes(keys: Iterable[str]) -> Hashes:
    """64-bit BLAKE2b hashes of keys, uint64 [N]: the counters of `view_boxes`."""
    digests = b"".join(hashlib.blake2b(k.encode(), digest_size=8).digest() for k in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


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
    u = _uniforms(plan.seed, hashes, ks)
    box = _crops(plan, u, sizes)
    clean = ks == CLEAN
    box[clean] = _middle(sizes, _sides(plan, sizes))[clean]
    flip = _alternating(plan, hashes, ks) if plan.flip == "alternating" else u[:, 4] < plan.flip
    return Boxes(box, flip & ~clean)


def further_draws(
    seed: int, hashes: Hashes, k: Ints, first: int, count: int
) -> npt.NDArray[np.float64]:
    """More random numbers of views, behind those of crop and flip: float64 [N, count] in [0, 1),
    from the `first` on, counted from 0. A function of (seed, key, k) and of their place alone."""
    return _uniforms(seed, hashes, k, range(_DRAWS + first, _DRAWS + first + count))


def teacher_views(count: int, seed: int, epoch: int | Ints, hashes: Hashes) -> Ints:
    """The teacher's view of each row in an epoch, one or int64 [N], int64 [N].

    Every row walks through its augmented views 1..count in turn, from a start of its own; with no
    augmented view (`count` 0) it is the clean one.
    """
    if count == 0:
        return np.zeros(len(hashes), dtype=np.int64)
    start = _mix(hashes ^ _mix(_u64(seed) + _GOLDEN))
    steps = (start % np.uint64(count)).astype(np.int64) + np.asarray(epoch, dtype=np.int64)
    return 1 + steps % count


def settled(plan: ViewsConfig, aspect: str | None) -> ViewsConfig:
    """A plan as it is replayed: its `aspect` is `keep`, or None where images are stretched.

    aspect: what holds where the plan does not say.
    """
    kept = (plan.aspect or aspect) == "keep"
    return plan.model_copy(update={"aspect": "keep" if kept else None})


def clean_part(image: Image.Image, aspect: str | None) -> Image.Image:
    """What a student sees of an image that is not augmented, before resizing: its middle square
    where the aspect is kept, else all of it."""
    sizes = np.array([[image.height, image.width]])
    plan = settled(ViewsConfig(), aspect)
    boxes = Boxes(_middle(sizes, _sides(plan, sizes)), np.array([False]))
    return image if (boxes.box[:, 2:] == sizes).all() else apply_view(image, boxes[0])


def apply_view(image: Image.Image, view: View) -> Image.Image:
    """Crop (zeros outside the image), then flip: the teacher's pixels before resizing."""
    right, bottom = view.left + view.width, view.top + view.height
    cropped = image.crop((view.left, view.top, right, bottom))
    return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else cropped


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


def _alternating(plan: ViewsConfig, hashes: Hashes, ks: Ints) -> npt.NDArray[np.bool_]:
    """bool [N]: every second view, from the first or the second on, which is drawn for the image.

    A student's further views of an epoch are 2^32 apart, and alternate too.
    """
    start = _uniforms(plan.seed, hashes, np.zeros_like(ks), range(4, 5))[:, 0] < 0.5
    flips: npt.NDArray[np.bool_] = (((ks ^ (ks >> 32)) & 1) == 1) ^ start
    return flips


def _uniforms(
    seed: int, hashes: Hashes, ks: Ints, draws: range = range(_DRAWS)
) -> npt.NDArray[np.float64]:
    """float64 [N, draws] in [0, 1), a function of (seed, key, k) and the draw's number alone."""
    stream = _mix(hashes ^ _mix(_u64(seed) ^ _mix(ks.astype(np.uint64) * _GOLDEN + _GOLDEN)))
    counters = ((np.array(draws, dtype=np.uint64) + np.uint64(1)) * _GOLDEN)[None, :]
    return (_mix(stream[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _u64(value: int) -> Hashes:
    return np.array([value & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)


def _mix(x: Hashes) -> Hashes:
    """The SplitMix64 finaliser: a bijection of 64-bit integers; arithmetic wraps by intent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
