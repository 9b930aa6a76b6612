"""Named pairs of features: what of the student is compared with what of the teacher."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from egapipe.pipeline.config.base import Name, Section, Text

GRID = "grid"
"""The pair that is there by itself: the student's maps, and the output `teacher_grid`."""
OTHERWISE = ("nodes", "embedding")
"""What objectives call the embeddings, of which there is no pair."""


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names one twice")
    return names


FeatureNames = Name | Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_once)]
"""Of one pair, or of several, whose losses an objective adds up where it does not say otherwise."""


class FeaturesConfig(Section):
    """What of the student is compared with what of the teacher."""

    student: Text = "maps"
    """`maps`, what the student has before pooling, or the path of a submodule of its backbone
    (`stages.1`), whose output it is."""
    teacher: Text | None = None
    """Output of the store, of any shape; default: that of the pair's name. Of a teacher that learns
    beside the student, what `student` names of this one; default: the same."""


def pair_names(options: Any) -> tuple[str, ...]:
    """The pairs that an objective with these options compares; none where it compares embeddings,
    or has no choice."""
    asked = getattr(options, "features", None)
    names = (asked,) if isinstance(asked, str) else tuple(asked or ())
    return tuple(name for name in names if name not in OTHERWISE)


def check_pairs(pairs: Mapping[str, FeaturesConfig], objectives: Mapping[str, Any]) -> None:
    """Raise ValueError for a pair that is called as embeddings are, or one that is not there.

    objectives: name -> its options, None where it is not set.
    """
    reserved = [name for name in OTHERWISE if name in pairs]
    if reserved:
        raise ValueError(f"features.{reserved[0]}: {reserved[0]} are the embeddings, rename it")
    for objective, options in objectives.items():
        asked = getattr(options, "features", None) or ()
        own = type(options).model_fields["features"].default if asked else None
        for name in (asked,) if isinstance(asked, str) else asked:
            if name not in pairs and asked != own:
                raise ValueError(
                    f"objective.{objective}.features names {name!r}, and there is no such pair: "
                    f"set features.{name}.student and .teacher, or one of {', '.join(pairs)}"
                )
