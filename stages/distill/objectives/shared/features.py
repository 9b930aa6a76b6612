"""Pairs of features of any shape, where an objective compares those."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from egapipe.pipeline.config.features import pair_names
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.features.statistics import channels_first
from egapipe.stages.distill.objectives.base import Facts, Shape
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.averages import averaged_maps, averaged_tokens

if TYPE_CHECKING:
    from egapipe.pipeline.config.objectives import Objective as Options

Shapes = dict[str, tuple[Shape, Shape]]
KINDS = {1: "vectors [D]", 2: "tokens [T, D]", 3: "maps [C, h, w]"}
"""Dimensions of what a row has -> what it is."""


def pairs_of(name: str, options: Options, facts: Facts | None) -> Shapes:
    """What a row has of the pairs that an objective of that name compares, student and teacher.

    Raises UsageError where a training has none.
    """
    known: Mapping[str, tuple[Shape, Shape]] = {} if facts is None else facts.shapes
    missing = [pair for pair in pair_names(options) if pair not in known]
    if missing:
        raise UsageError(
            f"distill.objective.{name}.features is {missing[0]}, but there are no features to "
            "build it for: give build_objective its facts"
        )
    return {pair: known[pair] for pair in pair_names(options)}


def require_kind(name: str, pairs: Shapes, *dimensions: int) -> None:
    """Raise UsageError unless both sides of each pair have as many dimensions, some of those."""
    kinds = " or ".join(KINDS[number] for number in dimensions)
    for pair, (student, teacher) in pairs.items():
        if len(student) != len(teacher) or len(student) not in dimensions:
            raise UsageError(
                f"distill.objective.{name}.features: of {pair} the student has {list(student)} and "
                f"the teacher {list(teacher)}, it compares {kinds} on both sides: name other "
                f"features in distill.features.{pair}"
            )


def one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both averaged down to the smaller of their sizes: maps [B, C, h, w] to that height and that
    width, tokens [B, T, D] to that length; vectors [B, D] as they are. In float32 at least."""
    with full_precision(student, teacher) as (student, teacher):
        sizes = zip(student.shape, teacher.shape, strict=True)
        smaller = [min(pair) for pair in sizes]
        if student.dim() == 4:
            size = (smaller[2], smaller[3])
            return averaged_maps(student, size), averaged_maps(teacher, size)
        if student.dim() == 3:
            return averaged_tokens(student, smaller[1]), averaged_tokens(teacher, smaller[1])
        return student, teacher


def places(features: Tensor) -> Tensor:
    """[B, P, D]: the vectors of each row, one a place of maps [B, D, h, w] or a token [B, T, D]; of
    vectors [B, D] one."""
    if features.dim() == 4:
        return features.flatten(2).mT
    return features if features.dim() == 3 else features[:, None]


def regressors(pairs: Shapes) -> nn.ModuleDict:
    """What takes the student's side of each pair to the width of the teacher's, place by place; a
    pair's is called `pair_` and its name, as `of_pair` asks for it."""
    made = nn.ModuleDict()
    for pair, (student, teacher) in pairs.items():
        first = channels_first(len(student))
        widths = (student[0], teacher[0]) if first else (student[-1], teacher[-1])
        # Some names, such as `type`, are those of methods of modules.
        made[f"pair_{pair}"] = nn.Conv2d(*widths, kernel_size=1) if first else nn.Linear(*widths)
    return made


def of_pair(modules: nn.ModuleDict, pair: str) -> Callable[[Tensor], Tensor]:
    """The one of a pair."""
    return modules[f"pair_{pair}"]


def renamed(module: nn.Module, old: str, new: str) -> None:
    """Let a module load a checkpoint in which names begin with `old` that begin with `new` now:
    there was one pair of features before, `grid`."""

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *others: Any) -> None:
        for name in [name for name in state if name.startswith(prefix + old)]:
            state[prefix + new + name.removeprefix(prefix + old)] = state.pop(name)

    module.register_load_state_dict_pre_hook(rename)
