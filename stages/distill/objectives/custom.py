"""An objective of the user's own, named `module:callable`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egapipe.pipeline.config.features import pair_names
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import call
from egapipe.stages.distill.objectives.base import Facts, Objective

if TYPE_CHECKING:
    from egapipe.pipeline.config.objectives import CustomOptions


def custom_objective(options: CustomOptions, facts: Facts | None) -> Objective:
    """What `callable(facts, **args)` gives: an `Objective`, or any module with its `needs`.

    facts: of the training, see `Facts`. Raises UsageError in one line where it cannot be imported,
    does not take the arguments, fails, or gives something else.
    """
    made = call("objective", options.call, (facts,), options.args)
    if not isinstance(made, Objective):
        raise UsageError(
            f"objective {options.call!r} gives {type(made).__name__}: it must give an Objective of "
            "egapipe.stages.distill.objectives"
        )
    made.features = pair_names(options)
    return made
