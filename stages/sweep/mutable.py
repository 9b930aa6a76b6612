"""What may change in the middle of a training, as population based training does."""

from fnmatch import fnmatch
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import Dimension
from egapipe.pipeline.errors import UsageError

# Nothing of these is in the weights, nor decides their shapes or what the data are.
MUTABLE = (
    "distill.lr",
    "distill.head.lr",
    "distill.momentum",
    "distill.weight_decay",
    "distill.clip_grad_norm",
    "distill.ce_weight",
    "distill.label_smoothing",
    "distill.objective.*.weight",
    "distill.objective.*.ratio",
    "distill.objective.*.*_weight",
    "distill.objective.*.temperature",
)
_KINDS = ("uniform", "loguniform", "choice")


def check_mutable(config: Config) -> None:
    """Raise UsageError if `pbt` cannot change all of the space within a training."""
    sweep = config.sweep
    if sweep.search != "random":
        raise UsageError(f"pbt changes values itself, sweep.search is {sweep.search}: set random")
    if sweep.seeds is not None:
        raise UsageError(
            "pbt gives one training the settings of another, so that no setting has seeds: leave"
            " sweep.seeds out, or set another sweep.scheduler"
        )
    if config.distill.workers > 1:
        raise UsageError(
            f"pbt copies trainings of one process, distill.workers is {config.distill.workers}: "
            "set it to 0, or another sweep.scheduler"
        )
    for path, dimension in sweep.space.items():
        if not any(fnmatch(path, pattern) for pattern in MUTABLE):
            raise UsageError(
                f"sweep.space: {path} cannot change within a training, as pbt wants: it takes "
                f"{', '.join(MUTABLE)}"
            )
        if dimension.kind not in _KINDS or dimension.when is not None:
            raise UsageError(
                f"sweep.space.{path}: pbt takes {', '.join(_KINDS)}, without a condition"
            )


def within(space: dict[str, Dimension], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with every value between the ends of its setting: pbt multiplies blindly."""
    result = {}
    for path, value in changes.items():
        between = space[path].uniform or space[path].loguniform
        result[path] = min(max(value, between[0]), between[1]) if between else value
    return result
