"""Configuration files: their names, the bases they build on, and the parts that `+` joins.

A file may name its bases, `base: other` or `base: [a, b]`: shipped names, or paths relative to the
file itself. They are merged in this order, its own keys last. A base that two of them share counts
once, so that the second does not undo what the first changed in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from egapipe.pipeline.config import syntax
from egapipe.pipeline.config.merge import merge
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.places import is_place
from egapipe.pipeline.locations.urls import path_of

BASE, JOIN = "base", "+"


@dataclass(frozen=True)
class Source:
    """One file. label: as errors name it. path: None for a shipped one."""

    label: str
    path: Path | None

    @property
    def identity(self) -> str:
        """The same for one file, whatever the way to it; no path is a shipped name."""
        return self.label if self.path is None else str(self.path.resolve())


def shipped() -> list[str]:
    """Names of the configurations and parts that come with egapipe."""
    folder = resources.files("egapipe.configs")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def description(name: str) -> str:
    """The comment in the first line of a shipped file, empty where there is none."""
    first = _text(Source(name, None)).partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def is_part(name: str) -> bool:
    """Whether a shipped file is no experiment by itself: it does not say what the images are."""
    train = read_tree(name).get("dataset", {}).get("train", {})
    return "kind" not in train


def parts(name: str) -> list[str]:
    """The names that `+` joins; the path of a file with a `+` in it is one name."""
    whole = JOIN not in name or name in shipped() or _found(name, Path()) is not None
    return [name] if whole else name.split(JOIN)


def read_tree(name: str) -> dict[str, Any]:
    """The plain tree of `-c NAME`, its bases and parts merged, without the key `base`.

    The `name` of joined parts is their names joined by `-`, without those parts that have none.
    Raises UsageError: a file that is missing or no mapping, or bases that lead in a circle.
    """
    return read_files(name)[0]


def read_files(name: str) -> tuple[dict[str, Any], list[Path]]:
    """`read_tree`, and the paths of the files that it read, without those that are shipped."""
    reader = _Reader()
    stacks = [reader.layers(_locate(part, Path())) for part in parts(name)]
    layers = _joined(stacks)
    tree = merge(layer.tree for layer in layers)
    named = (_name(stack) for stack in stacks)
    names = list(dict.fromkeys(part for part in named if part is not None))
    tree = tree if len(names) < 2 else {**tree, "name": "-".join(names)}
    return tree, [layer.path for layer in layers if layer.path is not None]


class _Layer(NamedTuple):
    """The keys that one file has itself."""

    identity: str
    tree: dict[str, Any]
    path: Path | None


class _Reader:
    """Reads each file once, with all that it builds on."""

    def __init__(self) -> None:
        self._known: dict[str, list[_Layer]] = {}

    def layers(self, source: Source, way: tuple[Source, ...] = ()) -> list[_Layer]:
        """The files to merge for `source`, which is the last; `way` leads to it."""
        key, way = source.identity, (*way, source)
        if key in (step.identity for step in way[:-1]):
            circle = " -> ".join(step.label for step in way)
            raise UsageError(f"config {way[0].label} has bases that lead in a circle: {circle}")
        if key not in self._known:
            tree = _read(source)
            bases = [_base(name, source) for name in _bases(tree.pop(BASE, []), source)]
            below = _joined([self.layers(base, way) for base in bases])
            self._known[key] = [*below, _Layer(key, tree, source.path)]
        return self._known[key]


def _joined(stacks: Sequence[list[_Layer]]) -> list[_Layer]:
    """Stacks one after another; what lies under several of them counts where it comes first.

    The last layer of a stack is what was asked for by name: it counts here, wherever else.
    """
    layers: list[_Layer] = []
    for *below, own in stacks:
        seen = {layer.identity for layer in layers}
        layers += [*(layer for layer in below if layer.identity not in seen), own]
    return layers


def _name(stack: list[_Layer]) -> str | None:
    """The experiment's name by one part; a part such as a student has none."""
    names = [str(layer.tree["name"]) for layer in stack if "name" in layer.tree]
    return names[-1] if names else None


def _bases(value: Any, source: Source) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(
            f"config {source.label}: base must be the name of a configuration or a list of names"
        )
    return names


def _base(name: str, source: Source) -> Source:
    """A base of a file, found from where the file lies."""
    try:
        return _locate(name, source.path.parent if source.path else None)
    except UsageError as error:
        raise UsageError(f"config {source.label}, base {name!r}: {error}") from None


def _locate(name: str, folder: Path | None) -> Source:
    """The shipped file of this name, or the one at this path below `folder`."""
    if name in shipped():
        return Source(name, None)
    path = None if folder is None else _found(name, folder)
    if path is not None:
        return Source(str(path), path)
    raise UsageError(
        f"no config {name!r}: give the path of a YAML file or one of: {', '.join(shipped())}"
    )


def _found(name: str, folder: Path) -> Path | None:
    """The file of this name below a folder, or at the path that it means; None if there is none."""
    if _is_file(folder / name, name):
        return folder / name
    if not is_place(name) or JOIN in name:
        return None
    path = folder / path_of(name)
    return path if _is_file(path, name) else None


def _is_file(path: Path, name: str) -> bool:
    try:
        # A pipe is what the shell makes of `-c <(egapipe config show ...)`.
        return path.is_file() or path.is_fifo()
    except OSError as error:
        raise UsageError(f"config {name!r} cannot be read: {error.strerror}") from None
    except ValueError:  # a null byte in the name, where Python does not say False
        return False


def _read(source: Source) -> dict[str, Any]:
    """The plain tree of one file."""
    try:
        tree = syntax.parse(_text(source))
    except ValueError as error:
        raise UsageError(f"config {source.label} is not usable YAML: {error}") from None
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else f"is a {type(tree).__name__}"
        raise UsageError(f"config {source.label} {what}: it must be a mapping of sections")
    return tree


def _text(source: Source) -> str:
    if source.path is None:
        return (resources.files("egapipe.configs") / f"{source.label}.yaml").read_text("utf-8")
    try:
        return source.path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"config {source.label!r} is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise UsageError(f"config {source.label!r} cannot be read: {error.strerror}") from None
