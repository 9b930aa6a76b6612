"""From files and overrides to a checked configuration, and back to YAML."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from egapipe.pipeline.config import syntax
from egapipe.pipeline.config.explain import explain
from egapipe.pipeline.config.files import parts, read_files, shipped
from egapipe.pipeline.config.located import ENVIRONMENT, check_places
from egapipe.pipeline.config.merge import long_form, replaced
from egapipe.pipeline.config.tree import Config
from egapipe.pipeline.config.trust import require_trusted
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import has_secrets, refuse_credentials

DEFAULT = "quickstart"


def load_config(
    name: str | None = None, overrides: Sequence[str] = (), *, trust_remote_code: bool = False
) -> Config:
    """Read a configuration and apply `a.b=c` overrides.

    name: a shipped configuration, the path of a YAML file, or several of them joined by `+`, which
    are merged in this order; None is `quickstart`. trust_remote_code: whether a config.yaml or
    best.yaml that egapipe wrote may name code, `module:callable`. Raises UsageError: no such file,
    not YAML, bases in a circle, an unknown key (the nearest valid one is named), a value that does
    not fit, or code that is not trusted.
    """
    name = DEFAULT if name is None else name
    tree, files = read_files(name)
    if not trust_remote_code:
        require_trusted(tree, files, name)
    tree = override(tree, parse_overrides(overrides))
    if "dataset" not in tree and set(parts(name)) <= set(shipped()):
        raise UsageError(
            f"config {name} is a part without a data set: join it to one, -c cifar100+{name}"
        )
    config = check(tree, name)
    check_places(config)
    return config


def check(tree: Mapping[str, Any], origin: str) -> Config:
    """Validate a plain tree; `origin` is named in the error."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"config {origin}: {explain(error, Config)}") from None
    refuse_credentials(config.store.url or "")
    for key, text in _texts(config.model_dump()):
        # Arguments of the user's own code, overrides of variants, and whatever comes later.
        if has_secrets(text):
            raise UsageError(f"config {origin}: {key} holds credentials: {ENVIRONMENT}")
    return config


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a plain tree, the names of its members too, with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield f"a key of {key}", str(name)
            yield from _texts(below, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below, key)


def to_yaml(config: Config) -> str:
    """The resolved configuration, every default included, as YAML that loads again."""
    return syntax.dump(config.model_dump(mode="json"))


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1"]` to `{"a.b": 1}`; values are YAML, of equal paths the last one counts.

    Raises UsageError for a text that is not of this form.
    """
    parsed: dict[str, Any] = {}
    for text in overrides:
        path, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not all(key.strip() and key.isprintable() for key in path.split(".")):
            raise UsageError(f"--set {text!r} is not of the form section.key=value")
        # Removed first: it must come after what was set since, `a={}` between two `a.b=1`.
        parsed.pop(path, None)
        try:
            parsed[path] = syntax.parse(value)
        except ValueError as error:
            raise UsageError(
                f"--set {path}: {value!r} is not a YAML value ({error}); put special characters"
                f" in quotes: --set '{path}=\"...\"'"
            ) from None
    return parsed


def override(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a plain tree with `{"a.b": value}` set, in this order; missing sections are made.

    A value takes the place of what was there: a section that is set forgets its other keys. A
    number for an objective is its weight, and its options stay, as where files are merged. Raises
    UsageError where the path leads through something that is not a section.
    """
    result = dict(tree)
    for path, value in values.items():
        _set(result, path, value)
    return result


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set in place, in copies of the sections on the way."""
    *sections, last = path.split(".")
    for depth, key in enumerate(sections, start=1):
        below = long_form(tree.get(key), tuple(sections[: depth - 1]))
        if below is not None and not isinstance(below, dict):
            above = ".".join(sections[:depth])
            raise UsageError(f"cannot set {path}: {above} is {below!r}, not a section")
        tree[key] = dict(below or {})
        tree = tree[key]
    tree[last] = replaced(tree.get(last), value, tuple(sections))
