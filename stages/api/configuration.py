"""A configuration from whatever says it: a name, a file, YAML, a dict, or another one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, load, override, syntax
from egapipe.pipeline.config.files import BASE, read_files
from egapipe.pipeline.config.following import followed
from egapipe.pipeline.config.located import check_places
from egapipe.pipeline.config.merge import merge
from egapipe.pipeline.config.trust import require_trusted
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import text_of

Configuration = Config | Mapping[str, Any] | str | Path | None
Overrides = Mapping[str, Any] | Sequence[str]


def load_config(
    config: Configuration = None, overrides: Overrides = (), *, trust_remote_code: bool = False
) -> Config:
    """Read and check a configuration.

    config: what `-c` takes (a shipped name, the path of a file, several joined by `+`; None is
    `quickstart`), a Path, YAML of more than one line, the same as a dict, or a configuration. YAML
    and dicts may name a `base` as files do, found from the current folder. overrides:
    `{"distill.epochs": 3}`, or texts as `--set` takes them. trust_remote_code: see
    `egapipe.pipeline.config.load_config`. Raises UsageError in one line.
    """
    values = _values(overrides)
    if isinstance(config, Config):
        tree = config.model_dump(mode="json")
        return _checked(override(tree, {**values, **followed(tree, values)}), config.name)
    if isinstance(config, str) and "\n" in config:
        config, origin = _parsed(config), "text"
    elif isinstance(config, Mapping):
        origin = "dict"
    else:
        name = load.DEFAULT if config is None else config
        config, origin = {BASE: text_of(name) if isinstance(name, Path) else name}, str(name)
    return _checked(override(_merged(config, origin, trust_remote_code), values), origin)


def _merged(tree: Mapping[str, Any], origin: str, trusted: bool) -> dict[str, Any]:
    """A tree on top of its bases."""
    own = {key: _plain(value) for key, value in tree.items() if key != BASE}
    named = tree.get(BASE, [])
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"config {origin}: base must be the name of a configuration, or a list")
    below = []
    for name in names:
        base, files = read_files(name)
        if not trusted:
            require_trusted(base, files, name)
        below.append(base)
    return merge([*below, own])


def _checked(tree: Mapping[str, Any], origin: str) -> Config:
    config = load.check(tree, origin)
    check_places(config)
    return config


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        tree = syntax.parse(text)
    except ValueError as error:
        raise UsageError(f"config text is not usable YAML: {error}") from None
    if not isinstance(tree, Mapping):
        raise UsageError(f"config text is a {type(tree).__name__}: it must be a mapping")
    return tree


def _values(overrides: Overrides) -> dict[str, Any]:
    if isinstance(overrides, str):
        raise UsageError(f"overrides is the text {overrides!r}: give a list of them, or a dict")
    if isinstance(overrides, Mapping):
        return {str(path): _plain(value) for path, value in overrides.items()}
    return load.parse_overrides(overrides)


def _plain(value: Any) -> Any:
    """The value as a file would have it: paths, which stand for themselves, as text."""
    if isinstance(value, Path):
        return text_of(value)
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    return value
