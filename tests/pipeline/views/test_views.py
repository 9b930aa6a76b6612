import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from egapipe.pipeline.config.data import DigitsSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.views import (
    CLEAN,
    View,
    apply_view,
    clean_part,
    key_hashes,
    margins,
    plan_hash,
    plans,
    settled,
    teacher_views,
    view_boxes,
    view_params,
)

# A busy machine may stall any example: its time is not what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(
        lambda pair: tuple(sorted(pair))
    )


PLANS = st.builds(
    ViewsConfig,
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 8),
    crop=st.sampled_from(["none", "pad", "scale"]),
    padding=st.floats(0, 1),
    scale=ranges(0.01, 1.0),
    ratio=ranges(0.1, 10.0),
    flip=st.floats(0, 1) | st.just("alternating"),
    aspect=st.sampled_from([None, "keep"]),
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=20)
SIZES = st.tuples(st.integers(1, 600), st.integers(1, 600))
NUMBERS = st.integers(0, 1000)
PAD = ViewsConfig(crop="pad", padding=0.125, flip=0.5)
SCALE = ViewsConfig(crop="scale", flip=0.5)

GOLDEN_HASHES = [5900045983542592203, 3976460501203677525]
GOLDEN_PAD = [
    (0, 0, 32, 48, False),
    (4, 1, 32, 48, True),
    (2, 0, 32, 48, True),
    (-3, -3, 32, 48, False),
]
GOLDEN_SCALE = [(70, 13, 142, 149, False), (45, 6, 131, 162, False), (16, 80, 203, 214, True)]
GOLDEN_TEACHER = [3, 3, 2, 4, 1, 4, 3, 2]
GOLDEN_PLAN = "1abbbb5a077c87fb8e8d2e5cc6607b674c0ee1fa0d4b57ef5c4dd094a3343075"


def hashes(n: int, prefix: str = "train") -> np.ndarray:
    return key_hashes(f"{prefix}/{row:08d}" for row in range(n))


def columns(plan: ViewsConfig, keys: np.ndarray, k: int, size: tuple[int, int] = (32, 32)):
    """int64 [N, 5]: top, left, height, width, flip."""
    boxes = view_boxes(plan, keys, k, np.array([size]))
    return np.concatenate([boxes.box, boxes.flip[:, None]], axis=1)


def assert_uniform(values: np.ndarray, bins: int) -> None:
    """Chi-square at 1 in 10,000; the draws are fixed, so this passes always or never."""
    assert values.min() >= 0
    assert stats.chisquare(np.bincount(values, minlength=bins)).pvalue > 1e-4
    assert values.max() == bins - 1


@given(PLANS, KEYS, NUMBERS, SIZES)
def test_a_view_is_a_function_of_plan_key_number_and_size(plan, key, k, size) -> None:
    again = ViewsConfig.model_validate_json(plan.model_dump_json())
    assert view_params(plan, key, k, size) == view_params(again, key, k, size)


@given(PLANS, st.lists(st.tuples(KEYS, NUMBERS, SIZES), max_size=20))
def test_many_views_at_once_are_the_same_as_one_by_one(plan, rows) -> None:
    boxes = view_boxes(
        plan,
        key_hashes(key for key, _, _ in rows),
        np.array([k for _, k, _ in rows], dtype=np.int64),
        np.array([size for _, _, size in rows], dtype=np.int64).reshape(-1, 2),
    )
    assert len(boxes) == len(rows)
    assert [boxes[i] for i in range(len(rows))] == [
        view_params(plan, key, k, size) for key, k, size in rows
    ]


@given(PLANS, KEYS, NUMBERS, SIZES)
def test_the_views_there_are_do_not_change_when_more_are_asked_for(plan, key, k, size) -> None:
    more = plan.model_copy(update={"count": plan.count + 10})
    assert view_params(plan, key, k, size) == view_params(more, key, k, size)


@given(PLANS, KEYS, SIZES)
def test_view_0_is_the_clean_image(plan, key, size) -> None:
    plan = settled(plan.model_copy(update={"aspect": "stretch"}), None)
    assert view_params(plan, key, CLEAN, size) == View(0, 0, *size, flip=False)


@given(PLANS, KEYS, NUMBERS, SIZES)
def test_without_a_crop_the_box_is_the_image(plan, key, k, size) -> None:
    plan = plan.model_copy(update={"crop": "none", "aspect": None})
    assert view_params(plan, key, k, size)[:4] == (0, 0, *size)


@given(PLANS, KEYS, st.integers(1, 1000), SIZES)
def test_a_padded_crop_is_as_large_as_the_image_and_within_the_padding(plan, key, k, size) -> None:
    plan = plan.model_copy(update={"crop": "pad", "aspect": None})
    top, left, height, width, *_ = view_params(plan, key, k, size)
    assert (height, width) == size
    assert abs(top) <= round(plan.padding * size[0])
    assert abs(left) <= round(plan.padding * size[1])


@given(PLANS, KEYS, st.integers(1, 1000), SIZES)
def test_a_scaled_crop_is_inside_and_of_the_area_and_ratio_asked_for(plan, key, k, size) -> None:
    plan = plan.model_copy(update={"crop": "scale"})
    top, left, height, width, *_ = view_params(plan, key, k, size)
    assert 0 <= top <= top + height <= size[0]
    assert 0 <= left <= left + width <= size[1]
    assert height >= 1
    assert width >= 1
    # Sides are rounded: the exact ones lie within half a pixel, and a side of 1 may have been less.
    least = [side - 0.5 if side > 1 else 0.0 for side in (height, width)]
    most = [height + 0.5, width + 0.5]
    area = size[0] * size[1]
    assert least[0] * least[1] <= plan.scale[1] * area * (1 + 1e-9)
    if height < size[0] and width < size[1]:
        # Not cut to the image, which makes an area smaller and changes a ratio.
        assert most[0] * most[1] >= plan.scale[0] * area * (1 - 1e-9)
        assert least[1] / most[0] <= plan.ratio[1] * (1 + 1e-9)
        assert most[1] >= plan.ratio[0] * least[0] * (1 - 1e-9)


def test_views_never_change() -> None:
    """Literal values: other ones would be other images than those in the stores there are."""
    size = (32, 48)
    assert key_hashes(["train/00000000", "ü"]).tolist() == GOLDEN_HASHES
    assert [view_params(PAD, "train/00000000", k, size) for k in (0, 1, 2, 999)] == [
        View(*v) for v in GOLDEN_PAD
    ]
    scaled = ViewsConfig(seed=7, crop="scale")
    assert [view_params(scaled, "ü", k, (224, 300)) for k in (1, 2, 3)] == [
        View(*v) for v in GOLDEN_SCALE
    ]
    assert teacher_views(4, 3, 5, hashes(8)).tolist() == GOLDEN_TEACHER
    assert plan_hash(ViewsConfig()) == GOLDEN_PLAN


REPLAY = """
import hashlib, json, sys
from egapipe.pipeline.config.data import DigitsSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.views import apply_view, teacher_views, key_hashes, view_params

plan = ViewsConfig.model_validate_json(sys.argv[1])
dataset = open_dataset(DigitsSource(kind="digits", limit=20))
seen = []
for row, key in enumerate(dataset.keys):
    image = dataset.image(row)
    for k in range(plan.count + 1):
        view = view_params(plan, key, k, (image.height, image.width))
        pixels = apply_view(image, view).tobytes()
        seen.append([*view, hashlib.sha256(pixels).hexdigest()])
numbers = teacher_views(plan.count, plan.seed, 3, key_hashes(dataset.keys))
print(json.dumps([seen, numbers.tolist()]))
"""


@pytest.mark.parametrize("crop", ["pad", "scale"])
def test_another_process_replays_the_pixels_that_the_teacher_had(crop: str) -> None:
    """The teacher's side runs elsewhere, one image at a time, with another hash seed; this side has
    nothing but plan, keys and numbers, and takes all rows at once."""
    plan = ViewsConfig(seed=11, count=3, crop=crop, padding=0.25)
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, plan.model_dump_json()],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        check=True,
    )
    teacher, numbers = json.loads(done.stdout)

    dataset = open_dataset(DigitsSource(kind="digits", limit=20))
    keys = key_hashes(dataset.keys)
    replayed = {}
    for k in range(plan.count + 1):
        boxes = view_boxes(plan, keys, k, np.array([(8, 8)]))
        for row in range(len(dataset)):
            pixels = cropped(np.asarray(dataset.image(row)), boxes[row])
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            replayed[row, k] = [*boxes[row], digest]
    expected = [replayed[row, k] for row in range(len(dataset)) for k in range(plan.count + 1)]
    assert teacher == expected
    assert numbers == teacher_views(plan.count, plan.seed, 3, keys).tolist()


def cropped(image: np.ndarray, view: View) -> np.ndarray:
    """The reference: pad with zeros as far as a box may reach, cut, flip."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((height, height), (width, width), (0, 0)))
    top, left = view.top + height, view.left + width
    box = padded[top : top + view.height, left : left + view.width]
    return np.ascontiguousarray(box[:, ::-1] if view.flip else box)


@given(PLANS, KEYS, NUMBERS, st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_applying_a_view_is_a_crop_of_the_padded_image(plan, key, k, size) -> None:
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8)
    view = view_params(plan, key, k, size)
    seen = np.asarray(apply_view(Image.fromarray(image), view))
    np.testing.assert_array_equal(seen, cropped(image, view))


def test_the_clean_view_is_the_image_itself() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    seen = apply_view(Image.fromarray(image), view_params(PAD, "key", CLEAN, (9, 7)))
    np.testing.assert_array_equal(np.asarray(seen), image)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_flips_are_as_frequent_as_asked_for(probability: float) -> None:
    plan = PAD.model_copy(update={"flip": probability})
    flips = columns(plan, hashes(20_000), 1)[:, 4].sum()
    deviation = np.sqrt(20_000 * probability * (1 - probability))
    assert abs(flips - 20_000 * probability) <= 4 * deviation


def test_alternating_flips_are_every_second_view_of_an_image() -> None:
    """From the first on for one half of the images, from the second on for the other. What comes
    up again in an epoch is 2^32 views further on, and alternates too."""
    plan, hashes = PAD.model_copy(update={"flip": "alternating"}), key_hashes(map(str, range(400)))
    flips = [view_boxes(plan, hashes, k, np.array([[32, 32]])).flip for k in (0, 1, 2, 3, 4)]
    assert not flips[0].any()
    assert 160 < flips[1].sum() < 240
    assert np.array_equal(flips[2], ~flips[1])
    assert np.array_equal(flips[3], flips[1])
    again = view_boxes(plan, hashes, 1 + 2**32, np.array([[32, 32]]))
    assert np.array_equal(again.flip, ~flips[1])
    boxes = [view_boxes(one, hashes, 1, np.array([[32, 32]])).box for one in (plan, PAD)]
    assert np.array_equal(*boxes)


@pytest.mark.parametrize("axis", [0, 1])
def test_offsets_of_padded_crops_are_uniform(axis: int) -> None:
    # 4 pixels on each side of 32: 9 positions.
    assert_uniform(columns(PAD, hashes(20_000), 1)[:, axis] + 4, 9)


def test_uniform_over_the_views_of_one_image_too() -> None:
    keys = key_hashes(["train/00000000"] * 20_000)
    boxes = view_boxes(PAD, keys, np.arange(1, 20_001), np.array([(32, 32)]))
    assert_uniform(boxes.box[:, 0] + 4, 9)
    assert_uniform(boxes.box[:, 1] + 4, 9)
    assert_uniform(boxes.flip.astype(int), 2)


def test_uniform_over_seeds_too() -> None:
    tops = [
        view_params(PAD.model_copy(update={"seed": s}), "key", 1, (32, 32)).top for s in range(5000)
    ]
    assert_uniform(np.array(tops) + 4, 9)


def test_both_offsets_and_the_flip_are_independent() -> None:
    top, left, _, _, flip = columns(PAD, hashes(20_000), 1).T
    assert_uniform(((top + 4) * 9 + left + 4) * 2 + flip, 162)


@pytest.mark.parametrize("change", ["key", "number", "seed"])
def test_another_key_number_or_seed_is_an_independent_view(change: str) -> None:
    one = columns(PAD, hashes(20_000), 1)
    other = {
        "key": lambda: columns(PAD, hashes(20_000, "test"), 1),
        "number": lambda: columns(PAD, hashes(20_000), 2),
        "seed": lambda: columns(PAD.model_copy(update={"seed": 1}), hashes(20_000), 1),
    }[change]()
    assert_uniform((one[:, 0] + 4) * 9 + other[:, 0] + 4, 81)
    assert_uniform(one[:, 4] * 2 + other[:, 4], 4)


def test_areas_of_scaled_crops_are_uniform_and_ratios_log_uniform() -> None:
    plan = ViewsConfig(crop="scale", scale=(0.1, 0.5), ratio=(0.5, 2.0))
    _, _, height, width, _ = columns(plan, hashes(20_000), 1, (10_000, 10_000)).T
    area = height * width / 1e8
    assert stats.kstest(area, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-4
    log_ratio = np.log2(width / height)
    assert stats.kstest(log_ratio, stats.uniform(-1, 2).cdf).pvalue > 1e-4


@given(st.integers(1, 12), st.integers(-(2**63), 2**64), st.integers(0, 10**6))
def test_every_row_walks_through_all_its_augmented_views(count, seed, epoch) -> None:
    keys = hashes(30)
    walk = np.stack([teacher_views(count, seed, epoch + e, keys) for e in range(count)])
    assert walk.dtype == np.int64
    for row in range(30):
        assert sorted(walk[:, row]) == list(range(1, count + 1))


def test_in_one_epoch_the_views_are_used_equally() -> None:
    assert_uniform(teacher_views(5, 0, 17, hashes(20_000)) - 1, 5)


def test_another_seed_starts_the_walk_elsewhere() -> None:
    one, other = (teacher_views(5, seed, 0, hashes(20_000)) - 1 for seed in (0, 1))
    assert_uniform(one * 5 + other, 25)


def test_where_rows_start_says_nothing_about_their_views() -> None:
    start = teacher_views(5, 0, 0, hashes(20_000)) - 1
    assert_uniform(start * 9 + columns(PAD, hashes(20_000), 1)[:, 0] + 4, 45)


def test_without_augmented_views_the_teacher_sees_the_clean_one() -> None:
    assert teacher_views(0, 0, 3, hashes(4)).tolist() == [CLEAN] * 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 1),
        ("count", 5),
        ("crop", "none"),
        ("padding", 0.25),
        ("scale", (0.3, 1.0)),
        ("ratio", (0.75, 1.0)),
        ("flip", 0.0),
        ("aspect", "keep"),
        ("turns", 4),
        ("mix", {}),
    ],
)
def test_the_hash_of_a_plan_covers_every_field(field: str, value: object) -> None:
    known = {"seed", "count", "crop", "padding", "scale", "ratio", "flip", "aspect", "turns", "mix"}
    assert set(ViewsConfig.model_fields) == known
    assert plan_hash(ViewsConfig.model_validate({field: value})) != plan_hash(ViewsConfig())


def test_the_hash_of_a_plan_covers_the_method(monkeypatch) -> None:
    before = plan_hash(PAD)
    monkeypatch.setattr(plans, "METHOD", "egapipe views 2")
    assert plan_hash(PAD) != before


@given(plan=PLANS, key=KEYS, k=NUMBERS, size=SIZES)
def test_keeping_the_aspect_changes_nothing_for_squares(
    plan: ViewsConfig, key: str, k: int, size: tuple[int, int]
) -> None:
    square = (size[0], size[0])
    kept, stretched = (settled(plan, None).model_copy(update={"aspect": a}) for a in ("keep", None))
    assert view_params(kept, key, k, square) == view_params(stretched, key, k, square)
    if plan.crop == "scale" and k != CLEAN:
        assert view_params(kept, key, k, size) == view_params(stretched, key, k, size)


@given(plan=PLANS, key=KEYS, k=NUMBERS, size=SIZES)
def test_where_the_aspect_is_kept_views_are_squares_as_wide_as_the_shorter_side(
    plan: ViewsConfig, key: str, k: int, size: tuple[int, int]
) -> None:
    plan = plan.model_copy(update={"aspect": "keep", "crop": "pad" if k % 2 else "none"})
    view, side = view_params(plan, key, k, size), min(size)
    assert (view.height, view.width) == (side, side)
    reach = margins(plan, np.array(size))
    for start, length, most in ((view.top, size[0], reach[0]), (view.left, size[1], reach[1])):
        assert -most <= start
        assert start + side <= length + most


def circle(size: tuple[int, int]) -> Image.Image:
    """A white disc in the middle of a black image (height, width), as wide as half its side."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.hypot(y - height / 2, x - width / 2) < min(size) / 4
    return Image.fromarray(np.repeat(np.where(inside, 255, 0)[..., None], 3, 2).astype(np.uint8))


def roundness(pixels: np.ndarray) -> float:
    """Width by height of what is white in pixels [H, W, 3]."""
    white = pixels[..., 0] > 127
    return float(white.any(axis=0).sum() / white.any(axis=1).sum())


@pytest.mark.parametrize("size", [(54, 72), (72, 54), (40, 160)])
def test_a_circle_stays_one_where_the_aspect_is_kept(size: tuple[int, int]) -> None:
    image, plan = circle(size), ViewsConfig(aspect="keep", padding=0.0)
    seen = [clean_part(image, "keep")]
    # Of the squares along the longer side, those that show all of it.
    views = [view_params(plan, str(key), 1, size) for key in range(400)]
    middle = [v for v in views if abs(2 * v.top + v.height - size[0]) < v.height / 4]
    middle = [v for v in middle if abs(2 * v.left + v.width - size[1]) < v.width / 4]
    assert middle
    seen += [apply_view(image, view) for view in middle]
    for one in seen:
        assert one.width == one.height
        assert roundness(np.asarray(one.resize((64, 64)))) == pytest.approx(1, abs=0.07)
    stretched = clean_part(image, None).resize((64, 64))
    assert roundness(np.asarray(stretched)) == pytest.approx(size[0] / size[1], rel=0.1)


def test_nothing_at_all() -> None:
    boxes = view_boxes(SCALE, key_hashes([]), 1, np.empty((0, 2), dtype=np.int64))
    assert len(boxes) == 0
    assert boxes.box.shape == (0, 4)
    assert teacher_views(3, 0, 0, key_hashes([])).shape == (0,)
