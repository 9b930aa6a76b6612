"""Trainings side by side on one store."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from egapipe.pipeline.config.base import Positive, Real, Section, Seed, Text

Changes = dict[str, JsonValue]


class Halving(Section):
    """Successive halving, arXiv 1502.07943: poor variants end before their last epoch."""

    grace_epochs: Positive = 1
    """Epochs that every variant gets, and the first look at it: by its mean over seeds."""
    reduction: Annotated[Real, Field(gt=1.0)] = 2.0
    """At each look one in so many goes on, and the baseline; the next look is so many times as
    late."""


class CompareConfig(Section):
    """Variants of one experiment, with every student and every seed."""

    variants: dict[str, Changes] = Field(default={})
    """Name of a variant -> overrides by dotted path, e.g. {ce: {distill.objective: {}}}. The first
    is the baseline."""
    students: dict[Text, Changes] = Field(default={})
    """Name of a student -> overrides for it, e.g. {shufflenet_v1: {distill.lr: 0.01}}, or just the
    names, [resnet8x4, vgg13]; default: the student of `distill`."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds every variant is trained with."""
    weights: Literal["last", "best", "ema"] = "last"
    """Whose accuracy is compared: of the last epoch, of the best checkpoint, or of the weights'
    moving average, which needs `distill.ema_decay`."""
    max_concurrent: Positive = 1
    """Most trainings at once, on Ray Tune where it is more than one: then each takes the resources
    of a trial, `sweep.cpus_per_trial` and `sweep.gpus_per_trial`."""
    halving: Halving | None = None
    """Ends poor variants early, e.g. {grace_epochs: 10, reduction: 3}; default: none."""
    confidence: Annotated[Real, Field(gt=0.0, lt=1.0)] = 0.95
    """Level of the intervals of paired differences."""

    @field_validator("students", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        names = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return {name: {} for name in value} if names else value

    @model_validator(mode="after")
    def _dotted_paths(self) -> Self:
        """`{distill: {lr: 1}}` would silently set all of distill but lr to its defaults."""
        for what, several in (("variant", self.variants), ("student", self.students)):
            for name, changes in several.items():
                for path, value in changes.items():
                    if "." not in path and isinstance(value, dict):
                        raise ValueError(
                            f"{what} {name!r} would replace the whole section {path}: write dotted"
                            f" paths, e.g. {{{path}.{next(iter(value), 'key')}: ...}}"
                        )
        return self
