"""Teachers that a function of the user's own, or of any package, builds."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from egapipe.pipeline.config.teachers import PythonTeacher as Settings
from egapipe.pipeline.errors import TeacherError, UsageError
from egapipe.pipeline.machine.imports import (
    MissingNameError,
    import_for,
    look_up,
    split_reference,
    typed_line,
)
from egapipe.pipeline.results.durable import durable
from egapipe.stages.extract.teachers.base import UNKNOWN, Loading
from egapipe.stages.extract.teachers.given import input_of
from egapipe.stages.extract.teachers.location import PACKAGE, located_file
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.outputs import asked_outputs
from egapipe.stages.extract.teachers.pooled import Pooled, Tapped
from egapipe.stages.extract.teachers.precision import widen
from egapipe.stages.extract.teachers.weights import weights_sha256


def load(settings: Settings, loading: Loading = UNKNOWN) -> NetworkTeacher:
    """Build a teacher with `module:callable`, see `load_teacher`.

    Raises UsageError if there is no such callable, TeacherError if what it gives is no network or
    does not take the images.
    """
    build = _callable(settings.model)
    args = _with_files(settings.args)
    try:
        module = build(**args)
    except Exception as error:  # code of the user's own raises anything
        raise TeacherError(f"teacher {settings.model} failed: {typed_line(error)}") from error
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise TeacherError(f"teacher {settings.model} returned a {kind}: return a torch.nn.Module")
    module = module.eval().requires_grad_(False)
    # What its own code does with a weight nobody knows: what it gives in a low precision stays so,
    # and nothing else is rounded.
    widen(module, settings.precision)
    spec = {
        **durable(settings),
        "class": type(module).__name__,
        "sha256": weights_sha256(module),
    }
    try:
        others = asked_outputs(settings)
        network = Tapped(module, others, settings.output)
        pooled = Pooled(network, settings.pooling, settings.prefix_tokens, others)
        return NetworkTeacher(spec, pooled, input_of(settings), loading)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = typed_line(error)
        raise TeacherError(f"teacher {settings.model} cannot be used: {reason}") from error


def _with_files(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, `package:` texts as paths of files. Raises TeacherError if one is missing."""
    return {
        name: str(located_file(value, f"teacher.args.{name}"))
        if isinstance(value, str) and value.startswith(PACKAGE)
        else value
        for name, value in args.items()
    }


def _callable(name: str) -> Any:
    """The callable `module:callable`, whose module is imported: it is the user's own choice."""
    parts = split_reference(name)
    if parts is None:
        raise UsageError(f"teacher {name}: teacher.model is not of the form module:callable")
    module, path = parts
    imported = import_for(f"teacher {name}", module)
    try:
        found = look_up(imported, path)
    except MissingNameError as error:
        raise UsageError(f"teacher {name}: {error.owner} has no {error.name}{error.hint}") from None
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"teacher {name} is a {kind}: name a class or a function")
    return found
