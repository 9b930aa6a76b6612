"""Turned views: fours of one flip, numbered so that a row's four stand behind each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.store.format.stored import StoredViews
from egapipe.pipeline.views import apply_view, key_hashes, plan_hash, quarter_turns, view_boxes
from tests.pipeline.views.test_views import columns, cropped, hashes

PLAN = ViewsConfig(count=8, turns=4)
ONE = PLAN.model_copy(update={"turns": 1})
GOLDEN_PLAN = "ce4645a6"


def test_views_come_in_fours_the_plain_one_first() -> None:
    turns = quarter_turns(PLAN, np.arange(10))
    assert turns.tolist() == [0, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert quarter_turns(ONE, np.arange(10)).tolist() == [0] * 10
    boxes = view_boxes(PLAN, hashes(9), np.arange(9), np.array([[32, 32]]))
    assert boxes.turns.tolist() == [0, 0, 1, 2, 3, 0, 1, 2, 3]
    assert [boxes[i].turns for i in range(3)] == [0, 0, 1]


@pytest.mark.parametrize("flip", [0.5, "alternating"])
def test_four_have_one_flip_and_a_crop_each(flip) -> None:
    """The crops are those of an unturned plan: its draws stay as they are."""
    turned, plain = (plan.model_copy(update={"flip": flip}) for plan in (PLAN, ONE))
    keys, views = hashes(400), range(1, 9)
    seen = np.stack([columns(turned, keys, k) for k in views])
    before = np.stack([columns(plain, keys, k) for k in views])
    assert np.array_equal(seen[:, :, :4], before[:, :, :4])
    for first in (0, 4):
        assert (seen[first : first + 4, :, 4] == seen[first, :, 4]).all()
    assert 120 < seen[0, :, 4].sum() < 280
    if flip == "alternating":
        assert np.array_equal(seen[4, :, 4], 1 - seen[0, :, 4])
    else:
        assert np.array_equal(seen[0, :, 4], before[0, :, 4])
    same = (seen[0, :, :2] == seen[1, :, :2]).all(axis=1)
    assert same.mean() < 0.1


@given(
    st.sampled_from(["none", "pad", "scale"]),
    st.integers(0, 8),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
)
def test_a_view_is_turned_against_the_clock_behind_crop_and_flip(crop, k, size) -> None:
    plan = PLAN.model_copy(update={"crop": crop})
    image = np.random.default_rng(0).integers(1, 256, (*size, 3), dtype=np.uint8)
    boxes = view_boxes(plan, key_hashes(["key"]), k, np.array([size]))
    seen = np.asarray(apply_view(Image.fromarray(image), boxes[0]))
    np.testing.assert_array_equal(seen, np.rot90(cropped(image, boxes[0]), boxes[0].turns))
    assert seen.shape[:2] == tuple(boxes.sizes[0])


def test_a_store_says_that_its_views_are_turned() -> None:
    """And what was stored before there were turns says nothing."""
    assert StoredViews.of(PLAN).model_dump()["turns"] == 4
    assert "turns" not in StoredViews.of(ONE).model_dump()
    assert StoredViews.of(PLAN).plan() == PLAN
    assert plan_hash(PLAN)[:8] == GOLDEN_PLAN
    assert plan_hash(PLAN) != plan_hash(ONE)


def test_a_damaged_plan_is_refused_where_it_is_read() -> None:
    stored = {**StoredViews.of(PLAN).model_dump(), "count": 6}
    with pytest.raises(ValidationError, match="6 views are no whole times 4"):
        StoredViews.model_validate(stored)
    with pytest.raises(ValidationError, match="turns"):
        StoredViews.model_validate({**stored, "turns": 3})


def test_fours_are_whole() -> None:
    with pytest.raises(ValidationError, match="count 6 must be 4, 8, 12"):
        ViewsConfig(count=6, turns=4)
    with pytest.raises(ValidationError, match="turns"):
        ViewsConfig(count=4, turns=2)
    assert ViewsConfig(count=0, turns=4).plain == 0
    assert PLAN.plain == 2
