"""From files and overrides to a checked configuration, and back to YAML."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from egapipe.pipeline.config.explain import explain
from egapipe.pipeline.config.tree import Config
from egapipe.pipeline.errors import UsageError

DEFAULT = "quickstart"


def load_config(name: str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration and apply `a.b=c` overrides.

    name: a shipped configuration, or the path of a YAML file; None is `quickstart`. Raises
    UsageError: no such file, not YAML, an unknown key (the nearest valid one is named), or a value
    that does not fit.
    """
    name = name or DEFAULT
    return check(override(read_yaml(name), parse_overrides(overrides)), name)


def check(tree: Mapping[str, Any], origin: str) -> Config:
    """Validate a plain tree; `origin` is named in the error."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"config {origin}: {explain(error, Config)}") from None


def to_yaml(config: Config) -> str:
    """The resolved configuration, every default included, as YAML that loads again."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the configurations that come with egapipe."""
    folder = resources.files("egapipe.configs")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def read_yaml(name: str) -> dict[str, Any]:
    """The plain tree of a shipped configuration or a YAML file."""
    try:
        tree = yaml.safe_load(_text(name))
    except yaml.YAMLError as error:
        raise UsageError(f"config {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UsageError(
            f"config {name} must be a mapping of sections, it is {type(tree).__name__}"
        )
    return tree


def _text(name: str) -> str:
    if name in shipped():
        return (resources.files("egapipe.configs") / f"{name}.yaml").read_text("utf-8")
    path = Path(name)
    if not path.is_file():
        known = ", ".join(shipped())
        raise UsageError(f"no config {name!r}: give the path of a YAML file or one of: {known}")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config {name} cannot be read: {error}") from None


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=1"]` to `{"a.b": 1}`; values are YAML."""
    parsed = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set {text!r} is not of the form section.key=value")
        try:
            parsed[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {path}: {value!r} is not a YAML value") from None
    return parsed


def override(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a plain tree with `{"a.b": value}` set; missing sections are made."""
    result = dict(tree)
    for path, value in values.items():
        result = _set(result, path.split("."), value, path)
    return result


def _set(tree: dict[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**tree, head: value}
    below = tree.get(head)
    if below is None:
        below = {}
    if not isinstance(below, dict):
        raise UsageError(f"cannot set {path}: {head} is the value {below!r}, not a section")
    return {**tree, head: _set(below, rest, value, path)}
