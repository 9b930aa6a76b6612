"""Mixed views: a partner for each row, which later rows do not change, and shares for each view."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from egapipe.pipeline.config.data import ViewMix, ViewsConfig
from egapipe.pipeline.mathematics.resampling import rounded
from egapipe.pipeline.store.format.stored import StoredViews
from egapipe.pipeline.views import (
    CLEAN,
    WHOLE,
    blended,
    drawn_shares,
    own_shares,
    partners,
    plan_hash,
    settled,
    view_boxes,
)
from tests.pipeline.store.samples import make_manifest
from tests.pipeline.views.test_views import assert_uniform, hashes

PLAN = settled(ViewsConfig(count=4, mix=ViewMix()), None, 400)
GOLDEN_PARTNERS = [389, 46, 350, 38, 260, 55]
GOLDEN_SHARES = [65536, 38484, 46862, 48987]
GOLDEN_PLAN = "6307f2585c6e87b7"


def test_mixtures_never_change() -> None:
    """Literal values: other ones would be other images than those in the stores there are."""
    assert partners(PLAN, hashes(6), np.arange(6)).tolist() == GOLDEN_PARTNERS
    assert own_shares(PLAN, hashes(4), np.arange(4)).tolist() == GOLDEN_SHARES
    assert plan_hash(PLAN)[:16] == GOLDEN_PLAN


def test_a_partner_is_another_row_drawn_evenly() -> None:
    few = settled(ViewsConfig(mix=ViewMix()), None, 5)
    for row in range(5):
        drawn = partners(few, hashes(4000, f"of {row}"), np.full(4000, row))
        assert set(drawn) == set(range(5)) - {row}
        assert_uniform(drawn - (drawn > row), 4)
    later = partners(few, hashes(4000), np.arange(5, 4005))
    assert_uniform(later, 5)


def test_rows_that_are_appended_change_nobodys_partner() -> None:
    """The store that grows keeps the number of rows that it had at first."""
    grown = settled(ViewsConfig(count=4, mix=ViewMix()), None, StoredViews.of(PLAN).among(900))
    assert grown == PLAN
    rows = np.arange(900)
    both = partners(grown, hashes(900), rows)
    assert np.array_equal(both[:400], partners(PLAN, hashes(400), rows[:400]))
    assert both.max() < 400
    assert (both != rows).all()


def test_a_row_alone_is_its_own_partner() -> None:
    alone = settled(ViewsConfig(mix=ViewMix()), None, 1)
    assert partners(alone, hashes(3), np.arange(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_of_the_distribution_and_the_larger_half(alpha: float) -> None:
    plan = PLAN.model_copy(update={"mix": ViewMix(alpha=alpha, among=9)})
    shares = drawn_shares(alpha, 1.0, np.random.default_rng(0).random((20_000, 2)))
    assert shares.min() >= 0.5
    stored = own_shares(plan, hashes(20_000), np.ones(20_000, dtype=np.int64))
    assert stats.ks_2samp(stored / WHOLE, np.rint(shares * WHOLE) / WHOLE).pvalue > 1e-4
    beta = stats.beta(alpha, alpha)
    folded = stats.kstest(shares, lambda x: beta.cdf(x) - beta.cdf(1 - x))
    assert folded.pvalue > 1e-4


def test_clean_views_and_those_left_out_are_whole() -> None:
    plan = PLAN.model_copy(update={"mix": ViewMix(probability=0.25, among=9)})
    shares = own_shares(plan, hashes(20_000), np.ones(20_000, dtype=np.int64))
    assert 0.24 < (shares < WHOLE).mean() < 0.26
    assert (own_shares(PLAN, hashes(50), np.full(50, CLEAN)) == WHOLE).all()
    again = own_shares(PLAN, hashes(20_000), np.ones(20_000, dtype=np.int64))
    other = own_shares(PLAN, hashes(20_000), np.full(20_000, 2))
    assert abs(np.corrcoef(again, other)[0, 1]) < 0.03


def test_crops_and_flips_are_those_of_a_plan_without() -> None:
    plain = PLAN.model_copy(update={"mix": None})
    for k in range(5):
        one, other = (view_boxes(p, hashes(50), k, np.array([[9, 7]])) for p in (plain, PLAN))
        assert np.array_equal(one.box, other.box)
        assert np.array_equal(one.flip, other.flip)


def test_the_pixels_are_the_same_with_and_without_torch() -> None:
    """To the number, whatever the levels and the share."""
    levels = np.arange(256, dtype=np.uint8)
    own, other = np.repeat(levels, 256), np.tile(levels, 256)
    for share in (WHOLE // 2, WHOLE // 2 + 1, 40_003, 52_429, WHOLE - 64, WHOLE - 1, WHOLE):
        part = torch.tensor(share).float() / WHOLE
        one, two = (torch.from_numpy(levels).float() for levels in (own, other))
        expected = rounded(part * one + (1 - part) * two).to(torch.uint8).numpy()
        assert np.array_equal(blended(own, other, share), expected)
    assert np.array_equal(blended(own, other, WHOLE), own)
    halves = blended(np.uint8([0, 1, 254]), np.uint8([1, 2, 255]), WHOLE // 2)
    assert halves.tolist() == [1, 2, 255]


def test_a_store_says_how_its_views_are_mixed() -> None:
    stored = StoredViews.of(PLAN)
    assert stored.model_dump()["mix"] == {"alpha": 1.0, "probability": 1.0, "among": 400}
    assert stored.plan() == PLAN
    assert "mix" not in StoredViews.of(ViewsConfig()).model_dump()
    fewer = settled(ViewsConfig(mix=ViewMix(among=50)), None, 400)
    assert (fewer.mix.among, PLAN.mix.among) == (50, 400)
    assert len({plan_hash(plan) for plan in (PLAN, fewer, ViewsConfig())}) == 3


@pytest.mark.parametrize("among", [401, 10**30, 0, -1])
def test_a_store_whose_partners_are_not_there_is_refused(among: int) -> None:
    """As whoever wrote it may have meant harm."""
    manifest = make_manifest(rows=400)
    views = {**StoredViews.of(PLAN).model_dump(), "count": manifest.views.count}
    assert manifest.asking(views=views).plan.mix == PLAN.mix
    with pytest.raises(ValidationError, match=r"among|partners"):
        manifest.asking(views={**views, "mix": {"among": among}})


def test_a_plan_is_settled_before_it_is_replayed() -> None:
    with pytest.raises(ValueError, match="settled"):
        partners(ViewsConfig(mix=ViewMix()), hashes(2), np.arange(2))
    with pytest.raises(ValueError, match="mixes nothing"):
        own_shares(ViewsConfig(), hashes(2), np.arange(2))
