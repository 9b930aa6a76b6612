"""Pydantic's findings as one line that names the nearest valid key."""

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """All findings of a validation in one line, joined by `; `."""
    findings = (_finding(detail, root) for detail in error.errors())
    return "; ".join(dict.fromkeys(findings))


def _finding(detail: ErrorDetails, root: type[BaseModel]) -> str:
    models, path = _walk(root, detail["loc"])
    where = ".".join(path) or "the file"
    if detail["type"] == "extra_forbidden":
        return _unknown(where, path[-1], models)
    if detail["type"] == "missing":
        return f"{where} is missing"
    if detail["type"].startswith("union_tag"):
        context = detail.get("ctx", {})
        key = str(context.get("discriminator", "kind")).strip("'")
        return f"{where}.{key} must be one of {context.get('expected_tags', '(unknown)')}"
    message = detail["msg"].removeprefix("Value error, ")
    got = detail.get("input")
    shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}"


def _unknown(where: str, key: str, models: list[type[BaseModel]]) -> str:
    valid = sorted({name for model in models for name in model.model_fields})
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return f"{where} is not a key, {hint}"


def _walk(
    root: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[list[type[BaseModel]], list[str]]:
    """The sections that hold the last part of `loc`, and `loc` without pydantic's union tags."""
    models: list[type[BaseModel]] = [root]
    holders, path = models, []
    for part in loc:
        tagged = [m for m in models if _has_tag(m, part)]
        if tagged and not any(part in m.model_fields for m in models):
            models = holders = tagged
            continue
        if models == [] and isinstance(part, str) and not part.isidentifier():
            continue
        path.append(str(part))
        holders = models
        models = [
            inner
            for m in models
            if part in m.model_fields
            for inner in _models_in(m.model_fields[str(part)].annotation)
        ]
    return holders, path


def _has_tag(model: type[BaseModel], part: int | str) -> bool:
    fields = [f for name, f in model.model_fields.items() if name in ("kind", "backend")]
    return any(part in get_args(f.annotation) for f in fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is None:
        return []
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
