"""A search over settings of stage two: the space, how it is searched, which trials end early."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from egapipe.pipeline.config.base import (
    AboveZero,
    Count,
    Fraction,
    Integer,
    Positive,
    Real,
    Section,
    Seed,
    Text,
)
from egapipe.pipeline.config.located import Url
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.pipeline.config.track import Tracking

KINDS = ("uniform", "loguniform", "randint", "choice", "grid")
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1)]


_MORE = {"top1", "top5", "rows_per_s"}
_LESS = {"loss", "ce", "head_ce", "data_wait", "seconds", *ObjectiveConfig.model_fields}


def direction(metric: str) -> Literal["max", "min"] | None:
    """Whether more of a metric of an epoch is better, or less; None where its name does not say."""
    name = metric.rpartition("/")[2]
    if name in _MORE:
        return "max"
    return "min" if name in _LESS or name.endswith("loss") else None


class Dimension(Section):
    """The values of one setting: exactly one of `uniform` to `grid`."""

    uniform: tuple[Real, Real] | None = None
    """Real numbers between two, all equally likely."""
    loguniform: tuple[AboveZero, AboveZero] | None = None
    """Real numbers between two, all orders of magnitude equally likely."""
    randint: tuple[Integer, Integer] | None = None
    """Integers from the first to the last, both included."""
    choice: Values | None = None
    """One of these, all equally likely."""
    grid: Values | None = None
    """Each of these, with every other setting of the trial: drawn from by nobody."""
    when: Text | tuple[Text, ...] | None = None
    """Objectives: only trials that have one of them have this setting, e.g. `when: kd`."""

    @property
    def kind(self) -> str:
        """Which of `uniform` to `grid` this is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of `when`; none means that every trial has the setting."""
        return (self.when,) if isinstance(self.when, str) else self.when or ()

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)}, got {', '.join(given) or 'none'}")
        return self

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        for kind in ("uniform", "loguniform", "randint"):
            ends = getattr(self, kind)
            if ends is not None and ends[0] >= ends[1]:
                raise ValueError(f"{kind} must be low < high, got {ends[0]:g}, {ends[1]:g}")
        return self

    @field_validator("when")
    @classmethod
    def _known_objectives(cls, value: Any) -> Any:
        for name in (value,) if isinstance(value, str) else value or ():
            if name not in ObjectiveConfig.model_fields:
                known = ", ".join(ObjectiveConfig.model_fields)
                raise ValueError(f"{name!r} is not an objective: {known}")
        return value


class FifoScheduler(Section):
    """Every trial is trained to its last epoch."""

    kind: Literal["fifo"]


class AshaScheduler(Section):
    """Asynchronous successive halving, arXiv 1810.05934."""

    kind: Literal["asha"]
    grace_epochs: Positive = 1
    """Epochs that every trial gets, and the first look at it."""
    reduction: Annotated[Real, Field(gt=1.0)] = 3.0
    """At each look one in so many goes on; the next look is so many times as late."""


class MedianScheduler(Section):
    """A trial ends when its best is below the median of the others' means (Vizier)."""

    kind: Literal["median"]
    grace_epochs: Positive = 1
    """Epochs that every trial gets."""
    min_trials: Positive = 3
    """Trials that a median must be of."""


class PbtScheduler(Section):
    """Population based training, arXiv 1711.09846: poor trials go on from copies of good ones."""

    kind: Literal["pbt"]
    interval_epochs: Positive = 4
    """Epochs between two looks, each with a checkpoint."""
    quantile: Annotated[Fraction, Field(gt=0.0, le=0.5)] = 0.25
    """Share of the trials that is replaced by as many of the best."""
    resample: Fraction = 0.25
    """How often a setting is drawn anew instead of moved by a fifth."""


Scheduler = Annotated[
    FifoScheduler | AshaScheduler | MedianScheduler | PbtScheduler, Field(discriminator="kind")
]


class SweepConfig(Section):
    """Trials of stage two on one store, each with other settings."""

    space: dict[Text, Dimension] = Field(default={})
    """Dotted path of a setting of `distill` -> its values, e.g.
    {distill.objective.ega.weight: {loguniform: [0.05, 5]}}."""
    search: Literal["random", "grid", "optuna"] = "random"
    """`random`: `samples` draws; `grid`: every combination; `optuna`: later trials learn from
    earlier ones (`pip install 'egapipe[optuna]'`)."""
    samples: Positive = 16
    """Draws; with `random`, settings with a `grid` take each of its values for every draw."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None
    """Seeds that every setting is trained with, and compared by its mean over; default:
    `distill.seed` alone."""
    warm_start: Url | None = None
    """Folder of an earlier sweep. Its finished trainings are results of this one where they are the
    same; its best settings come first where they are not."""
    search_seed: Seed = 0
    """Seed of the draws. The trainings keep `distill.seed`."""
    metric: Text = "test/top1"
    """What is compared: a metric of an epoch, as in metrics.jsonl."""
    mode: Literal["max", "min"] = "max"
    """Whether more of it is better, or less; where it is not given the metric says: `min` for
    losses and seconds, `max` for accuracies and rates. Any other needs it."""
    scheduler: Scheduler = AshaScheduler(kind="asha")
    """Which trials end before their last epoch."""
    cpus_per_trial: Positive | None = None
    """CPUs of a trial that trains in one process; default: `distill.threads`, else 1."""
    gpus_per_trial: AboveZero = 1.0
    """GPUs of such a trial on `cuda`; a fraction shares one."""
    max_concurrent: Positive | None = None
    """Most trials at once; default: as many as the cluster has room for."""
    max_failures: Count = 1
    """Times a trial goes on in a new process when it lost its own."""
    track: Tracking | None = None
    """Where a sweep's metrics go, if not where `track` says."""

    @model_validator(mode="before")
    @classmethod
    def _mode_of_the_metric(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "mode" in value or "metric" not in value:
            return value
        metric = str(value["metric"])
        mode = direction(metric)
        if mode is None:
            raise ValueError(
                f"nobody knows whether more of {metric} is better: set mode, max or min"
            )
        return {**value, "mode": mode}

    @field_validator("scheduler", mode="before")
    @classmethod
    def _kind_alone_or_left_out(cls, value: Any) -> Any:
        value = {"kind": value} if isinstance(value, str) else value
        return {"kind": "asha", **value} if isinstance(value, dict) else value
