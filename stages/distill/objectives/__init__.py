"""Distillation objectives: one file each, one explicit registry, and their weighted sum."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from egapipe.pipeline.config.objectives import GraphObjective
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives.at import At, at_loss
from egapipe.stages.distill.objectives.balance import ratio_within
from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, Sides, WeightedSum
from egapipe.stages.distill.objectives.cc import Cc, cc_loss
from egapipe.stages.distill.objectives.ccl import Ccl, ccl_loss
from egapipe.stages.distill.objectives.cka import Cka, cka_loss
from egapipe.stages.distill.objectives.crd import Crd, CrdState, crd_loss
from egapipe.stages.distill.objectives.custom import custom_objective
from egapipe.stages.distill.objectives.dist import Dist, dist_loss
from egapipe.stages.distill.objectives.dkd import Dkd, dkd_loss
from egapipe.stages.distill.objectives.dogo import Dogo, dogo_loss, ntxent_loss
from egapipe.stages.distill.objectives.dreamteacher import Dreamteacher, dreamteacher_loss
from egapipe.stages.distill.objectives.ega import Ega, ega_loss
from egapipe.stages.distill.objectives.embeddistill import Embeddistill, embeddistill_loss
from egapipe.stages.distill.objectives.fitnet import Fitnet, fitnet_loss
from egapipe.stages.distill.objectives.gram import Gram, gram_loss
from egapipe.stages.distill.objectives.hashing import Hashing, hashing_loss
from egapipe.stages.distill.objectives.igsd import Igsd, igsd_loss
from egapipe.stages.distill.objectives.irg import Irg, irg_loss
from egapipe.stages.distill.objectives.itrd import Itrd, itrd_loss
from egapipe.stages.distill.objectives.iusp import Iusp, iusp_loss
from egapipe.stages.distill.objectives.kd import Kd, kd_loss
from egapipe.stages.distill.objectives.lskd import Lskd, lskd_loss
from egapipe.stages.distill.objectives.lsp import Lsp, lsp_loss
from egapipe.stages.distill.objectives.nce import Nce, nce_loss
from egapipe.stages.distill.objectives.pkt import Pkt, pkt_loss
from egapipe.stages.distill.objectives.rkd import Rkd, rkd_loss
from egapipe.stages.distill.objectives.rrd import Rrd, rrd_loss
from egapipe.stages.distill.objectives.shared.pearson import correlation
from egapipe.stages.distill.objectives.simkd import Simkd
from egapipe.stages.distill.objectives.sp import Sp, sp_loss
from egapipe.stages.distill.objectives.sskd import (
    Sskd,
    pretext_loss,
    sskd_ss_loss,
    sskd_tf_loss,
)
from egapipe.stages.distill.objectives.start import Cached, Start
from egapipe.stages.distill.objectives.unic import Unic, unic_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from egapipe.pipeline.config.objectives import ObjectiveConfig, Teaching

__all__ = [
    "REGISTRY",
    "At",
    "Cached",
    "Cc",
    "Ccl",
    "Cka",
    "Crd",
    "CrdState",
    "Dist",
    "Dkd",
    "Dogo",
    "Dreamteacher",
    "Ega",
    "Embeddistill",
    "Facts",
    "Fitnet",
    "Gram",
    "Hashing",
    "Igsd",
    "Irg",
    "Itrd",
    "Iusp",
    "Kd",
    "Lskd",
    "Lsp",
    "Nce",
    "Objective",
    "Pair",
    "Pkt",
    "Rkd",
    "Rrd",
    "Sides",
    "Simkd",
    "Sp",
    "Sskd",
    "Start",
    "Unic",
    "WeightedSum",
    "at_loss",
    "build_objective",
    "cc_loss",
    "ccl_loss",
    "cka_loss",
    "correlation",
    "crd_loss",
    "dist_loss",
    "dkd_loss",
    "dogo_loss",
    "dreamteacher_loss",
    "ega_loss",
    "embeddistill_loss",
    "find_objective",
    "fitnet_loss",
    "gram_loss",
    "hashing_loss",
    "igsd_loss",
    "irg_loss",
    "itrd_loss",
    "iusp_loss",
    "kd_loss",
    "lskd_loss",
    "lsp_loss",
    "nce_loss",
    "ntxent_loss",
    "pkt_loss",
    "pretext_loss",
    "rkd_loss",
    "rrd_loss",
    "sp_loss",
    "sskd_ss_loss",
    "sskd_tf_loss",
    "unic_loss",
]

REGISTRY: dict[str, type[Objective]] = {
    "ega": Ega,
    "kd": Kd,
    "fitnet": Fitnet,
    "sp": Sp,
    "cc": Cc,
    "pkt": Pkt,
    "rkd": Rkd,
    "nce": Nce,
    "irg": Irg,
    "crd": Crd,
    "ccl": Ccl,
    "lskd": Lskd,
    "dkd": Dkd,
    "dist": Dist,
    "unic": Unic,
    "rrd": Rrd,
    "cka": Cka,
    "itrd": Itrd,
    "simkd": Simkd,
    "gram": Gram,
    "sskd": Sskd,
    "at": At,
    "iusp": Iusp,
    "dreamteacher": Dreamteacher,
    "dogo": Dogo,
    "igsd": Igsd,
    "lsp": Lsp,
    "hashing": Hashing,
    "embeddistill": Embeddistill,
}
"""Field of the configuration's objective section -> class, which is built from that field."""


def find_objective(name: str) -> type[Objective]:
    """The class of a registered objective. Raises UsageError, with the nearest name, for others."""
    if name in REGISTRY:
        return REGISTRY[name]
    nearest = get_close_matches(name, REGISTRY, n=1, cutoff=0.0)[0]
    known = ", ".join(REGISTRY)
    raise UsageError(f"no objective {name!r}, did you mean {nearest}? Known: {known}")


def build_objective(
    config: ObjectiveConfig,
    facts: Facts | None = None,
    *,
    sides: Mapping[str, Teaching] | None = None,
    live: Facts | None = None,
) -> WeightedSum:
    """The weighted sum of the objectives that the configuration sets; of none if it sets none.

    config: one optional field an objective, with its `weight` and its own options. facts: of the
    training; crd, rrd, unic, and what compares pairs of features, cannot do without. sides: of
    objectives whose teacher is not that of the store. live: what is known of these teachers. Raises
    UsageError where they do not allow what is configured.
    """
    chosen = {name: options for name, options in config if options is not None}
    sides = {name: (sides or {}).get(name, "store") for name in chosen}
    for name, side in sides.items():
        if side != "store" and name in REGISTRY:
            _check_live(name, REGISTRY[name], side, automatic=chosen[name].weight == "auto")
    built = {
        name: _built(name, options, facts if sides[name] == "store" else live)
        for name, options in chosen.items()
    }
    for name, options in chosen.items():
        if options.weight == "auto" and built[name].features:
            raise UsageError(
                f"distill.objective.{name}.weight is auto, which balances gradients at the "
                f"student's features, and {built[name].features[0]} is before them: set one"
            )
    return WeightedSum(
        built,
        {name: options.weight for name, options in chosen.items()},
        {name for name, options in chosen.items() if isinstance(options, GraphObjective)},
        {name: _ratio(options, facts) for name, options in chosen.items()},
        sides,
    )


def _ratio(options: Any, facts: Facts | None) -> float:
    if options.ratio != "auto":
        return float(options.ratio)
    return 1.0 if facts is None else ratio_within(facts.steps)


def _built(name: str, options: Any, facts: Facts | None) -> Objective:
    if name == "custom":
        return custom_objective(options, facts)
    kind = find_objective(name)
    if facts is not None and kind.views_per_row not in (1, facts.views_per_row):
        raise UsageError(
            f"distill.objective.{name} compares {kind.views_per_row} views of a row: set "
            f"distill.views_per_row to {kind.views_per_row}"
        )
    return kind.build(options, facts)


def _check_live(name: str, kind: type[Objective], side: Teaching, *, automatic: bool) -> None:
    if kind.fitted:
        raise UsageError(
            f"distill.objective.{name}.teacher is {side}, but {name} begins with what it finds in "
            "stored features: set store"
        )
    if automatic and kind.projected is not Objective.projected:
        raise UsageError(
            f"distill.objective.{name}.weight is auto, which balances gradients at the student's "
            f"features, and {name} projects them before it compares them: set a number"
        )
