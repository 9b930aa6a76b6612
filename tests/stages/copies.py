"""A run folder as if it had been made with other settings."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from egapipe.pipeline.config import load_config, override, to_yaml
from egapipe.pipeline.config.load import check


def copy_with(run: Path, folder: Path, values: Mapping[str, object], *left_out: str) -> Path:
    """A copy of a run folder with other values in its configuration.

    values: by dotted path, with `__` for each dot. left_out: names of files that are not copied.
    """
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*left_out))
    tree = load_config(str(folder / "config.yaml")).model_dump(mode="json")
    changes = {path.replace("__", "."): value for path, value in values.items()}
    (folder / "config.yaml").write_text(to_yaml(check(override(tree, changes), "copy")), "utf-8")
    return folder
