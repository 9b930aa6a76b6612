"""Losses, inputs and gradients that the authors' public implementations gave, in float64.

Each file holds an array once, by the hash of its content, and as `index` the JSON of case ->
name -> hash. Names: `in_*` are arguments, `loss` and `grad_*` what came of them, `out_*` what else
did. `pcc` is the correlation of stacked rows, `crd` one step and the state it leaves. `cka` is 1
less the public code's alignment of rows that were centred first, `rrd` the public code's
cross-entropy less the entropy of the teacher's side, and `lskd` is of logits that are large beside
its 1e-7. `simkd` is of features behind the projector, with the teacher's classifier and
the logits that it makes of them. `sskd` is of rows of which each image has four, plain first, and
`stkd` a formula by definition, of no public code: both are of `goldens_views.npz`. `at` is the CRD
benchmark's. `iusp` is its SP loss on the frames of each row, `dreamteacher` the paper's formula: of
neither did the authors publish code. `dreamteacher_mse` is without the attention,
`dreamteacher_unofficial` has it as an unofficial implementation does. `dogo` and `igsd`
are of two views of each row, and of the authors' code; both students' losses are added up in
`dogo_both`. `lsp` is DistillGCN's, `lspedge` efficient-gnns', `hashing_code` that of
craffel/midi-dataset, `hashing_pairs` the paper's formula,
`alignahead` GuoJY-eatsTG/Alignahead's. `embeddistill` is sentence-transformers', which is not by
its authors: query i belongs to document i, and there may be more documents.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILES = [
    Path(__file__).with_name(f"{name}.npz")
    for name in (
        "goldens",
        "goldens_later",
        "goldens_views",
        "goldens_features",
        "goldens_live",
        "goldens_pairs",
    )
]

Golden = dict[str, npt.NDArray[Any]]


@cache
def cases() -> list[str]:
    """All cases by name, `ega_b16_d64_node0.8_edge0.24`."""
    return sorted(_index())


def golden(case: str) -> Golden:
    """The arrays of a case by name, of its own."""
    return {name: _arrays()[key].copy() for name, key in _index()[case].items()}


@cache
def _arrays() -> dict[str, npt.NDArray[Any]]:
    return {name: array for file in FILES for name, array in _read(file).items()}


def _read(file: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@cache
def _index() -> dict[str, dict[str, str]]:
    indexes = [json.loads(_read(file)["index"].tobytes()) for file in FILES]
    return {case: names for index in indexes for case, names in index.items()}
