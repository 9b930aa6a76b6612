"""Which row's image each row's views have in them, over all sources."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.records.record import NOT_FINITE
from egapipe.pipeline.views import Hashes, partners

Ints = npt.NDArray[np.int64]


class Mixture(NamedTuple):
    """What entries of a batch have in them.

    partners: int64 [B], rows. shares: int64 [B], of their own, in parts of `WHOLE`. labels: int64
    [B], the partners'.
    """

    partners: Ints
    shares: Ints
    labels: Ints


def joint_partners(
    stores: Sequence[FeatureStore], hashes: Sequence[Hashes], held_out: Ints
) -> Ints | None:
    """int64 [N], the row that each one's views are mixed with, of its own source; itself where its
    partner has no image. None where nothing is mixed.

    hashes: of the keys of each store's rows. held_out: rows that no training sees; raises
    UsageError where there are some, for mixtures would show them.
    """
    plans = [store.manifest.plan for store in stores]
    if plans[0].mix is None or plans[0].count == 0:
        return None
    if len(held_out):
        raise UsageError(
            "dataset.validation.fraction holds images out of the training, and mixed views "
            "(views.mix) show parts of them: set dataset.validation.source"
        )
    found, start = [], 0
    for store, plan, keys in zip(stores, plans, hashes, strict=True):
        rows = np.arange(len(keys))
        others = partners(plan, keys, rows)
        found.append(start + np.where(without_image(store)[others], rows, others))
        start += len(rows)
    return np.concatenate(found)


def without_image(store: FeatureStore) -> npt.NDArray[np.bool_]:
    """bool [N]: the rows of a store whose image could not be read, so that it is in no mixture.

    What a teacher made no finite numbers of is an image.
    """
    missing = np.zeros(store.manifest.rows, dtype=bool)
    not_finite = NOT_FINITE.format(dtype=store.manifest.dtype)
    missing[[f.row for f in store.failures() if f.reason != not_finite]] = True
    return missing
