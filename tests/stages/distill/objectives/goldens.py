"""Losses, inputs and gradients that the authors' public implementations gave, in float64.

goldens.npz holds each array once, by the hash of its content, and as `index` the JSON of
case -> name -> hash. Names: `in_*` are arguments, `loss` and `grad_*` what came of them, `out_*`
what else did. `pcc` is the correlation of stacked rows, `crd` one step and the state it leaves.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).with_name("goldens.npz")

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
    with np.load(FILE, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@cache
def _index() -> dict[str, dict[str, str]]:
    index: dict[str, dict[str, str]] = json.loads(_arrays()["index"].tobytes())
    return index
