"""Where the files of a teacher are: a folder, a Python package or the hub."""

import contextlib
from collections.abc import Iterator
from importlib import resources, util
from pathlib import Path

from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.locations.places import LOCAL_DIR, is_place
from egapipe.pipeline.locations.urls import path_of

PACKAGE = "package:"
"""What a name begins with that is inside an installed Python package."""


@contextlib.contextmanager
def located(model: str) -> Iterator[tuple[str, bool]]:
    """Where `transformers` finds a model, and whether that is on this machine.

    Raises TeacherError if a folder is not there or is no saved model with safetensors weights.
    """
    if model.startswith(PACKAGE):
        with contextlib.ExitStack() as stack:
            yield str(_check_folder(model, _packaged(model, stack))), True
    elif path_of(model).is_dir():
        yield str(_check_folder(model, path_of(model))), True
    elif is_place(model):
        raise TeacherError(
            f"teacher {model}: no such folder; teacher.model is a folder or a hub name"
        )
    else:
        yield model, False


def expanded_name(model: str) -> str:
    """A name of timm or open_clip, its `local-dir:` expanded. Raises UsageError."""
    folder = model.removeprefix(LOCAL_DIR)
    return model if folder == model else f"{LOCAL_DIR}{path_of(folder)}"


def located_file(model: str, setting: str = "teacher.model") -> Path:
    """The file that a setting names: a path, or `package:<module>/<path in it>`.

    The package is found, not imported: its code does not run. Raises TeacherError if there is no
    such file.
    """
    if model.startswith(PACKAGE):
        module, _, inside = model.removeprefix(PACKAGE).partition("/")
        path = _package_folder(model, module) / inside
    else:
        path = path_of(model)
    if not path.is_file():
        raise TeacherError(f"teacher {model}: {path} is no file; {setting} is the file itself")
    return path


def _package_folder(model: str, module: str) -> Path:
    top, *below = module.split(".")
    try:
        spec = util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    if not folders:
        raise TeacherError(f"teacher {model}: no package {top} here; is it installed?")
    return Path(folders[0]).joinpath(*below)


def _packaged(model: str, stack: contextlib.ExitStack) -> Path:
    module = model.removeprefix(PACKAGE)
    try:
        return stack.enter_context(resources.as_file(resources.files(module)))
    except (ImportError, ValueError) as error:
        raise TeacherError(f"teacher {model}: {error}; is the package installed?") from None


def _check_folder(model: str, folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise TeacherError(
            f"teacher {model}: {folder} has no config.json; save a model there with save_pretrained"
        )
    if not any(folder.glob("*.safetensors")):
        raise TeacherError(
            f"teacher {model}: {folder} has no safetensors weights (other formats can run code "
            "when they are opened); convert them with save_pretrained"
        )
    return folder
