"""Fields of the configuration that name a place: one type for paths, one for URLs.

The text stays as it was written, for people and in every file that is kept. Code uses what
`pipeline.urls` makes of it: `path_of`, `url_of`. Relative paths are below the folder that the
command runs in. No text that holds a password or a signature is taken.
"""

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel

from egapipe.pipeline.config.base import Text
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import local_path, without_secrets

ENVIRONMENT = "leave them out, and set them in the environment"

Sort = Literal["path", "node", "url", "address", "name"]


class Located(NamedTuple):
    """How a text names a place.

    path: of this machine. node: the same, of each node for itself. url: a path or any URL. address:
    of a service, no path. name: a name, which may also be a path.
    """

    sort: Sort


def _without(instead: str) -> AfterValidator:
    return AfterValidator(lambda text: without_secrets(text, instead))


Path = Annotated[Text, _without(ENVIRONMENT), Located("path")]
NodePath = Annotated[Text, _without(ENVIRONMENT), Located("node")]
Url = Annotated[Text, _without(ENVIRONMENT), Located("url")]
Address = Annotated[Text, _without(ENVIRONMENT), Located("address")]
NameOrPath = Annotated[Text, _without(ENVIRONMENT), Located("name")]
ArchiveUrl = Annotated[
    Text, _without("download the archive yourself, into `folder`"), Located("address")
]
TrackingUrl = Annotated[
    Text, _without("set MLFLOW_TRACKING_URI in the environment"), Located("url")
]

Change = Callable[[str, Sort], str]


def located(annotation: Any, metadata: Any = ()) -> Located | None:
    """How a field of this type names a place, alone or in a list; None if it does not."""
    for found in metadata:
        if isinstance(found, Located):
            return found
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return located(inner[0], inner[1:])
    if origin in (list, tuple, Union, types.UnionType):
        return next(filter(None, map(located, inner)), None)
    return None


def places(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, Sort]]:
    """Dotted key, text and sort of every place that a section, and those in it, name."""
    for name, field in type(section).model_fields.items():
        found = located(field.annotation, field.metadata)
        yield from _places(getattr(section, name), f"{prefix}{name}", found)


def _places(value: Any, key: str, found: Located | None) -> Iterator[tuple[str, str, Sort]]:
    if isinstance(value, BaseModel):
        yield from places(value, f"{key}.")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _places(one, f"{key}.{name}", None)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _places(one, key, found)
    elif isinstance(value, str) and found is not None:
        yield key, value, found.sort


def with_places(section: BaseModel, change: Change) -> dict[str, Any]:
    """A section as plain JSON values, with every place in it changed."""
    tree = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        if name in tree:
            found = located(field.annotation, field.metadata)
            tree[name] = _changed(getattr(section, name), tree[name], found, change)
    return tree


def _changed(value: Any, plain: Any, found: Located | None, change: Change) -> Any:
    if isinstance(value, BaseModel):
        return with_places(value, change)
    if isinstance(value, Mapping):
        return {key: _changed(one, plain[key], None, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        pairs = zip(value, plain, strict=True)
        return [_changed(one, text, found, change) for one, text in pairs]
    return change(value, found.sort) if isinstance(value, str) and found is not None else plain


def check_places(section: BaseModel) -> None:
    """Raise UsageError, with the key, for a place that could only be a mistake: `s3:/bucket`, a
    file of another host, a name with a zero byte."""
    for key, text, sort in places(section):
        if "\0" in text:
            raise UsageError(f"{key}: {text!r} has a zero byte, and no path or URL has one")
        if sort in ("path", "node", "url") and "$" not in text:
            try:
                found = local_path(text)
            except UsageError as error:
                raise UsageError(f"{key}: {error}") from None
            if found is None and sort != "url":
                raise UsageError(f"{key}: {text} is a URL: it must be a path of this machine")


__all__ = [
    "Address",
    "ArchiveUrl",
    "Located",
    "NameOrPath",
    "NodePath",
    "Path",
    "TrackingUrl",
    "Url",
    "check_places",
    "located",
    "places",
    "with_places",
]
