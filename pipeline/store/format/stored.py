"""What a manifest says of views and teacher: models of the stored format, not of the configuration.

The configuration may grow, be renamed and be rearranged; a store that was written once must not
notice. `egapipe.pipeline.results.durable` is the way from one to the other.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from egapipe.pipeline.config import data, teachers
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.locations.places import FILES
from egapipe.pipeline.results.durable import FORMAT_1, durable, later

# Not float alone: what another program has written as 1 stays 1, and the hash that of its text.
Number = int | float
Share = Annotated[Number, Field(ge=0, le=1)]

RUNTIME = "runtime"
"""Member of a stored teacher that is a version of software."""

_TEACHERS = {
    "ensemble": "EnsembleTeacher",
    "imported": "ImportedTeacher",
    "onnx": "OnnxTeacher",
    "open_clip": "OpenClipTeacher",
    "python": "PythonTeacher",
    "run": "RunTeacher",
    "timm": "TimmTeacher",
    "transformers": "TransformersTeacher",
}
# What loading a teacher finds out, whichever backend it has.
_FOUND = {
    "channels_last",
    "class",
    "compiled",
    FILES,
    "members",
    "model",
    "precision",
    "resolved_output",
    "resolved_pooling",
    RUNTIME,
    "sha256",
}
_SECTIONS = {"preprocessing": "Transform", "normalize": "Normalize"}


class StoredMix(BaseModel):
    """The mixtures of a store's views, see `ViewMix` for what each member means."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    alpha: Annotated[Number, Field(gt=0)] = 1.0
    probability: Share = 1.0
    among: Annotated[int, Field(ge=1)]


class StoredViews(BaseModel):
    """The view plan of a store, see `ViewsConfig` for what each member means."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=0)]
    crop: Literal["none", "pad", "scale"]
    padding: Share
    scale: tuple[Number, Number]
    ratio: tuple[Number, Number]
    flip: Share | Literal["alternating"]
    aspect: Literal["keep"] | None = None
    """None, and not there in a file: images that are not square are stretched, as they all were
    before there was a choice."""
    turns: Literal[1, 4] = 1
    """1, and not there in a file: no view is turned."""
    mix: StoredMix | None = None
    """None, and not there in a file: no view is a mixture."""

    @model_validator(mode="after")
    def _whole_fours(self) -> Self:
        if self.count % self.turns:
            raise ValueError(f"{self.count} views are no whole times {self.turns} turns")
        return self

    @classmethod
    def of(cls, plan: ViewsConfig) -> Self:
        """The stored form of a plan."""
        return cls.model_validate(durable(plan))

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        absent = later(ViewsConfig)
        return {key: v for key, v in tree.items() if key not in absent or v != absent[key]}

    def among(self, rows: int) -> int:
        """Rows that partners are among: of a data set of so many, where there are none yet."""
        return rows if self.mix is None else self.mix.among

    def plan(self) -> ViewsConfig:
        """The plan with which these views are replayed."""
        return ViewsConfig.model_validate(self.model_dump())


def found_by_loading(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored teacher has beside its settings; everything where its backend is unknown."""
    settings = _members(_TEACHERS.get(str(teacher.get("backend")), ""))
    return {key: value for key, value in teacher.items() if key not in settings}


def unknown_members(teacher: Mapping[str, Any], where: str = "teacher") -> Iterator[str]:
    """Dotted names of members that no teacher of egapipe has had so far.

    A teacher of another program, whose backend is unknown, may have any.
    """
    name = _TEACHERS.get(str(teacher.get("backend")))
    if name is None:
        return
    allowed = _members(name) | _FOUND
    yield from (f"{where}.{key}" for key in teacher if key not in allowed)
    for key, section in _SECTIONS.items():
        inner = teacher.get(key)
        if isinstance(inner, dict):
            yield from (f"{where}.{key}.{k}" for k in inner if k not in _members(section))
    for key, inner in _each(teacher.get("teachers")):
        yield from unknown_members(inner, f"{where}.teachers.{key}")
    for key, inner in _each(teacher.get("members")):
        yield from (f"{where}.members.{key}.{k}" for k in inner if k not in _FOUND)


def _members(section: str) -> set[str]:
    kind = getattr(data if section == "Normalize" else teachers, section, BaseModel)
    return {*FORMAT_1.get(section, "").split(), *later(kind)}


def _each(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, dict):
        yield from ((key, inner) for key, inner in tree.items() if isinstance(inner, dict))
