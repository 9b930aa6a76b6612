"""Mixtures: which other image has a part in a row's views, and how large a one."""

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config.data import ViewMix, ViewsConfig
from egapipe.pipeline.views.draws import Hashes, Ints, further_draws
from egapipe.pipeline.views.plans import CLEAN

Pixels = npt.NDArray[np.uint8]

WHOLE = 1 << 16
"""A share of 1: they are whole numbers of parts."""
# Behind what a student's colours and mixtures draw: its seed may be the plan's.
_PLACE = 9
# What makes a little less than a half go up, as in `rounded` of resized images.
_UP = WHOLE // 2 + WHOLE // 1024


def partners(plan: ViewsConfig, hashes: Hashes, rows: Ints) -> Ints:
    """The row whose image has a part in each row's views, int64 [N], the same in all of them; the
    row itself where there is no other.

    hashes: uint64 [N] of `key_hashes`. rows: int64 [N], as they stand in the data set. plan: one
    that is settled and mixes. Drawn evenly among the first `mix.among` rows: those that are
    appended later have partners there, too, and change nobody's.
    """
    mix = _mix(plan)
    if mix.among is None:
        raise ValueError("a plan is settled before it is replayed: mix.among is None")
    u = further_draws(plan.seed, hashes, np.zeros_like(rows), _PLACE + 2, 1)[:, 0]
    within = rows < mix.among
    others = mix.among - within
    drawn = np.floor(u * others).astype(np.int64)
    drawn += within & (drawn >= rows)
    return np.where(others > 0, drawn, rows)


def own_shares(plan: ViewsConfig, hashes: Hashes, k: Ints) -> Ints:
    """What view `k` of each key has of its own image, int64 [N] in parts of `WHOLE`, a half or
    more; all of it in clean views. k: int64 [N]."""
    mix = _mix(plan)
    u = further_draws(plan.seed, hashes, k, _PLACE, 2)
    share = np.rint(drawn_shares(mix.alpha, mix.probability, u) * WHOLE).astype(np.int64)
    return np.where(k == CLEAN, WHOLE, share)


def drawn_shares(
    alpha: float, probability: float, u: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """float64 [N], from a half to 1: shares of Beta(alpha, alpha), or what is left beside a smaller
    one; 1 where nothing is mixed. u: [N, 2] or more, evenly in [0, 1)."""
    from scipy.special import betaincinv

    share = betaincinv(alpha, alpha, u[:, 0])
    mixed: npt.NDArray[np.float64] = np.maximum(share, 1.0 - share)
    return np.where(u[:, 1] < probability, mixed, 1.0)


def blended(own: Pixels, other: Pixels, share: int) -> Pixels:
    """Two images of one shape, uint8, as one: so many parts of `WHOLE` of its own, the rest of the
    other, in whole grey levels. float32 has the same numbers, since none of them is rounded."""
    total = own.astype(np.int32) * share + other.astype(np.int32) * (WHOLE - share)
    levels: Pixels = ((total + _UP) >> 16).clip(0, 255).astype(np.uint8)
    return levels


def _mix(plan: ViewsConfig) -> ViewMix:
    if plan.mix is None:
        raise ValueError("the plan mixes nothing")
    return plan.mix
