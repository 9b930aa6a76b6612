"""What a job needs from here: its order, its resolved configuration and the user's own modules."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from egapipe.pipeline.config import Config, override, to_yaml
from egapipe.pipeline.config.load import check
from egapipe.pipeline.config.located import Sort, with_places
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.places import LOCAL_DIR, is_place
from egapipe.pipeline.locations.urls import local_path, text_of, with_variables
from egapipe.stages.submit.modules import modules

CONFIG, ORDER = "config.yaml", "job.json"
MOST_BYTES = 500 * 2**20
"""Of a working directory; Ray uploads a little more."""


@dataclass(frozen=True)
class Package:
    """A command as another machine can run it.

    config: as the job sees it, None for a command that takes none. modules: copied along. visible:
    local folders that every node must see.
    """

    command: str
    arguments: list[str]
    config: Config | None = None
    modules: list[Path] = field(default_factory=list)
    visible: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Fill an empty folder with it. Raises UsageError for more than Ray uploads."""
        if self.config is not None:
            (folder / CONFIG).write_text(to_yaml(self.config), "utf-8")
        order = {"command": self.command, "arguments": self.arguments, "visible": self.visible}
        (folder / ORDER).write_text(json.dumps(order), "utf-8")
        for module in self.modules:
            _copy(module, folder)
        sizes = {m: _bytes(folder / m.name) for m in self.modules}
        if sum(sizes.values()) > MOST_BYTES:
            largest = max(sizes, key=sizes.__getitem__)
            raise UsageError(
                f"the job would take {sum(sizes.values()) / 2**20:,.0f} MiB of modules along, most "
                f"of it {largest}, and Ray uploads {MOST_BYTES / 2**20:.0f} MiB: move data out of "
                "the package, or install the package on the cluster"
            )


def pack(config: Config, command: str, arguments: list[str]) -> Package:
    """A command with a configuration.

    Relative paths of the configuration are made absolute: the job runs in another folder. Modules
    of the current directory that `module:callable` names are taken along, with those that they
    import. Raises UsageError for a store that lives in this process's memory.
    """
    resolved = absolute(config)
    for name, url in (("store.url", resolved.store_url("train")), ("runs", resolved.runs)):
        if url.startswith("memory:"):
            raise UsageError(
                f"{name} is {url}, which no other process can see: give a shared folder or a URL "
                "of an object store"
            )
    return Package(command, arguments, resolved, modules(config), shared_paths(resolved))


def pack_results(command: str, folders: Iterable[Path], arguments: list[str]) -> Package:
    """A command on folders of results, which are made absolute."""
    places = [os.path.abspath(folder) for folder in folders]
    return Package(command, [*places, *arguments], visible=places)


def absolute(config: Config) -> Config:
    """The same configuration, its local paths as they are from this folder."""
    tree = with_places(config, _absolute)
    return check(override(tree, {"store.url": _absolute(config.stores, "url")}), config.name)


def shared_paths(config: Config) -> list[str]:
    """The local folders that every node must see: stores, and runs."""
    return [
        path for place in (config.stores, config.runs) if (path := local_path(place)) is not None
    ]


def _absolute(text: str, sort: Sort) -> str:
    """A place as every node of the cluster takes it."""
    if sort == "node":
        return text
    if sort == "address":
        return _as_it_is(with_variables(text))
    prefix = LOCAL_DIR if text.startswith(LOCAL_DIR) else ""
    path = text.removeprefix(prefix)
    if sort == "name" and not (is_place(path) or prefix or Path(path).exists()):
        return text
    local = local_path(path)
    if local is None:
        return _as_it_is(with_variables(path))
    return prefix + text_of(Path(local))


def _as_it_is(url: str) -> str:
    """The text that means a URL: nothing of it is expanded again."""
    return url.replace("$", "$$")


def _copy(path: Path, folder: Path) -> None:
    if path.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", ".git")
        shutil.copytree(path, folder / path.name, ignore=ignored)
    else:
        shutil.copy(path, folder)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
