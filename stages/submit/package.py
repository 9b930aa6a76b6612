"""What a job needs from here: its resolved configuration and the user's own modules."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, override, to_yaml
from egapipe.pipeline.config.load import check
from egapipe.pipeline.config.located import Sort, with_places
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.imports import split_reference
from egapipe.pipeline.places import LOCAL_DIR, is_place
from egapipe.pipeline.urls import url_of, with_variables

CONFIG, ORDER = "config.yaml", "job.json"


def pack(config: Config, command: str, arguments: list[str], folder: Path) -> Config:
    """Fill a folder with everything a job needs, and return the configuration it will see.

    Relative paths of the configuration are made absolute: the job runs in another folder. Modules
    of the current directory that `module:callable` names are copied. Raises UsageError for a store
    that lives in this process's memory.
    """
    resolved = absolute(config)
    for name, url in (("store.url", resolved.store_url("train")), ("runs", resolved.runs)):
        if url.startswith("memory:"):
            raise UsageError(
                f"{name} is {url}, which no other process can see: give a shared folder or a URL "
                "of an object store"
            )
    (folder / CONFIG).write_text(to_yaml(resolved), "utf-8")
    order = {"command": command, "arguments": arguments, "visible": shared_paths(resolved)}
    (folder / ORDER).write_text(json.dumps(order), "utf-8")
    for module in modules(config):
        _copy(module, folder)
    return resolved


def absolute(config: Config) -> Config:
    """The same configuration, its local paths as they are from this folder."""
    tree = with_places(config, _absolute)
    changes: dict[str, Any] = {
        "store.url": _absolute(config.store_url("train").removesuffix("/train.zarr"), "url")
    }
    return check(override(tree, changes), config.name)


def shared_paths(config: Config) -> list[str]:
    """The local folders that every node must see: stores, and runs."""
    root = config.store_url("train").removesuffix("/train.zarr")
    return [path for path in (root, config.runs) if "://" not in path]


def modules(config: Config) -> Iterator[Path]:
    """Modules and packages of the current directory that the configuration names."""
    names = [config.distill.student.name, getattr(config.teacher, "model", "")]
    for name in names:
        reference = split_reference(name)
        if reference is None:
            continue
        top = reference[0].partition(".")[0]
        for path in (Path(top), Path(f"{top}.py")):
            if path.exists():
                yield path


def _absolute(text: str, sort: Sort) -> str:
    """A place as every node of the cluster takes it."""
    if sort == "node":
        return text
    if sort == "address":
        return with_variables(text)
    prefix = LOCAL_DIR if text.startswith(LOCAL_DIR) else ""
    path = text.removeprefix(prefix)
    if sort == "name" and not (is_place(path) or prefix or Path(path).exists()):
        return text
    url = url_of(path)
    return url if "://" in url else prefix + os.path.abspath(url)


def _copy(path: Path, folder: Path) -> None:
    if path.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", ".git")
        shutil.copytree(path, folder / path.name, ignore=ignored)
    else:
        shutil.copy(path, folder)
