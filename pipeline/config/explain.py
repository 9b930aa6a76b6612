"""Pydantic's findings as one line that names each place and, for an unknown key, a valid one."""

import difflib
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from egapipe.pipeline.config.base import CHOICES
from egapipe.pipeline.locations.urls import redacted

Model = type[BaseModel]

_MAX_SHOWN = 60
_MAX_HINTS = 3
_SUBJECT = re.compile(r"^(Input|String|List|Tuple|Dictionary) should ")
# What pydantic says in the words of Python.
_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a section of keys",
    "float_type": "must be a number",
    "int_type": "must be an integer",
    "list_type": "must be a list",
    "missing": "is missing",
    "model_type": "must be a section of keys",
    "recursion_loop": "contains itself or is nested too deeply",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


class Place(NamedTuple):
    """Where in the tree a finding is.

    path: the keys, without the names that pydantic gives to the members of a union. types: what may
    be there. sections: those that hold the last key. kinds: all of which `kind` chose the sections.
    """

    path: list[str]
    types: list[Any]
    sections: list[Model]
    kinds: list[Model]

    @property
    def name(self) -> str:
        """`section.key`, escaped where a terminal could not show it."""
        return ".".join(part if part.isprintable() else repr(part) for part in self.path)


def explain(error: ValidationError, root: Model) -> str:
    """All findings of a validation in one line, one for each place, joined by `; `."""
    problems: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        place = find(root, detail["loc"], unknown=detail["type"] == "extra_forbidden")
        name = place.name or "the configuration"
        problems.setdefault(name, []).append(_problem(detail, place, root))
        got[name] = _got(detail)
    # A value that may be of two types has a finding for each.
    return "; ".join(
        f"{name}{' or'.join(dict.fromkeys(texts))}{got[name]}" for name, texts in problems.items()
    )


def find(root: Model, loc: tuple[int | str, ...], *, unknown: bool = False) -> Place:
    """The place of a finding's `loc`; `unknown`: its last part is a key that no section has."""
    path: list[str] = []
    types: list[Any] = [root]
    sections: list[Model] = []
    chosen: list[Model] = []
    kinds: list[Model] = []
    for number, part in enumerate(loc, start=1):
        models = _models(types)
        named = [model for model in models if part in _names(model)]
        below = [t for kind in types for t in _below(kind, part)]
        if named and len(types) > 1:
            kinds, types = models, named
        elif below or (unknown and number == len(loc)):
            path.append(str(part))
            sections, chosen, kinds = models, kinds, []
            types = below
    return Place(path, types, sections, chosen)


def _problem(detail: ErrorDetails, place: Place, root: Model) -> str:
    """What follows the name of the place."""
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f" is not a key, {_hint(place, root)}"
    if kind.startswith("union_tag"):
        key = detail["ctx"]["discriminator"].strip("'")
        tags = [tag for model in _models(place.types) for tag in _names(model)[1:]]
        return f".{key} must be one of {', '.join(tags)}"
    if kind == "value_error":
        return f": {detail['msg'].removeprefix('Value error, ')}"
    message = detail["msg"].replace(" after validation", "")
    return f" {_MESSAGES.get(kind) or _SUBJECT.sub('must ', message)}"


def _got(detail: ErrorDetails) -> str:
    """The value that was found, where it is short and not said already."""
    value = detail["input"]
    if detail["type"].startswith("union_tag_invalid"):
        value = detail["ctx"]["tag"]
    elif detail["type"] in ("extra_forbidden", "missing", "value_error"):
        return ""
    if value is None:
        return " (it is empty)"
    if isinstance(value, bool):
        return f" (got {str(value).lower()})"
    return f" (got {_shown(value)})" if isinstance(value, str | int | float) else ""


def _shown(value: str | float) -> str:
    # Before it is cut: half a URL would not be known as one.
    return repr(redacted(value) if isinstance(value, str) else value)[:_MAX_SHOWN]


def _hint(place: Place, root: Model) -> str:
    """Of valid keys: another kind's, one of this name elsewhere, the nearest here, or all here."""
    key, here = place.path[-1], ".".join(place.path[:-1])
    owners = [_names(kind)[1] for kind in place.kinds if key in kind.model_fields]
    if owners:
        return f"it belongs to the kind {' or '.join(owners)}"
    elsewhere = [p for p in sorted(set(_paths(root)), key=_depth) if p.split(".")[-1] == key]
    below = [p for p in elsewhere if here and p.startswith(f"{here}.")]
    valid = sorted({name for section in place.sections for name in section.model_fields})
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    found = below or near or elsewhere or difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if found:
        return f"did you mean {' or '.join(repr(p) for p in found[:_MAX_HINTS])}?"
    return f"valid keys: {', '.join(valid)}"


def _depth(path: str) -> tuple[int, str]:
    return path.count("."), path


def _paths(section: Model, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all keys below a section."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for model in _models(_alternatives(field.annotation)):
            yield from _paths(model, f"{prefix}{name}.")


def _names(model: Model) -> list[str]:
    """How pydantic's `loc` calls a member of a union: its class, or its value of `kind`."""
    chosen = [f.annotation for name, f in model.model_fields.items() if name in CHOICES]
    tags = [get_args(a) for a in chosen if get_origin(a) is Literal]
    return [model.__name__, *(str(tag) for values in tags for tag in values)]


def _below(annotation: Any, part: int | str) -> list[Any]:
    """The types of the value with this key or number in a section, mapping or list."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return _alternatives(field.annotation) if field else []
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is dict and len(inner) == 2:
        return _alternatives(inner[1])
    if origin in (list, tuple) and isinstance(part, int):
        known = [t for t in inner if t is not Ellipsis]
        return _alternatives(known[min(part, len(known) - 1)])
    return []


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without None."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [t for inner in get_args(annotation) for t in _alternatives(inner)]
    return [] if annotation is NoneType else [annotation]


def _models(types: list[Any]) -> list[Model]:
    return [t for t in types if _is_model(t)]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
