"""Teachers that a function of the user's own, or of any package, builds."""

import os
from typing import Any

from torch import nn

from egapipe.pipeline.config.teachers import PythonTeacher as Settings
from egapipe.pipeline.errors import TeacherError, UsageError
from egapipe.pipeline.imports import MissingNameError, import_module, look_up, split_reference
from egapipe.stages.extract.teachers.given import preprocessing_of
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.pooled import Pooled
from egapipe.stages.extract.teachers.weights import weights_sha256


def load(settings: Settings) -> NetworkTeacher:
    """Build a teacher with `module:callable`, see `load_teacher`.

    Raises UsageError if there is no such callable, TeacherError if what it gives is no network or
    does not take the images.
    """
    build = _callable(settings.model)
    try:
        module = build(**settings.args)
    except Exception as error:
        raise TeacherError(f"teacher {settings.model} failed: {_one_line(error)}") from error
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise TeacherError(f"teacher {settings.model} returned a {kind}: return a torch.nn.Module")
    module = module.float().eval().requires_grad_(False)
    spec = {
        **settings.model_dump(mode="json"),
        "class": type(module).__name__,
        "sha256": weights_sha256(module),
    }
    pooled = Pooled(module, settings.pooling, settings.prefix_tokens)
    try:
        return NetworkTeacher(spec, pooled, preprocessing_of(settings.preprocessing))
    except (ValueError, TypeError, RuntimeError) as error:
        reason = _one_line(error)
        raise TeacherError(f"teacher {settings.model} cannot be used: {reason}") from error


def _callable(name: str) -> Any:
    """The callable `module:callable`, whose module is imported: it is the user's own choice."""
    parts = split_reference(name)
    if parts is None:
        raise UsageError(f"teacher {name}: teacher.model is not of the form module:callable")
    module, path = parts
    try:
        imported = import_module(module)
    except Exception as error:
        raise UsageError(
            f"teacher {name}: cannot import {module} from the installed packages or "
            f"{os.getcwd()}: {_one_line(error)}"
        ) from error
    try:
        found = look_up(imported, path)
    except MissingNameError as error:
        raise UsageError(f"teacher {name}: {error.owner} has no {error.name}{error.hint}") from None
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"teacher {name} is a {kind}: name a class or a function")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
