"""Students: networks from images to features, registered here or imported by name."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students.digits import digits_cnn
from egapipe.stages.distill.students.imported import import_callable, one_line
from egapipe.stages.distill.students.resnet import resnet8, resnet8x4, resnet20, resnet32x4
from egapipe.stages.distill.students.width import feature_width

__all__ = ["REGISTRY", "build_student", "feature_width"]

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "digits_cnn": digits_cnn,
    "resnet8": resnet8,
    "resnet8x4": resnet8x4,
    "resnet20": resnet20,
    "resnet32x4": resnet32x4,
}
"""Name -> function of keyword arguments that gives a network with `num_features`."""


def build_student(name: str, args: dict[str, Any]) -> nn.Module:
    """A new student: float images [B, 3, H, W] to features [B, F] (F: see `feature_width`).

    name: a registered student, or `module:callable`, which is imported and called. args: keyword
    arguments. Weights are drawn from torch's random state. Raises UsageError: no such name, the
    arguments do not fit, the callable fails or gives no nn.Module.
    """
    factory = import_callable(name) if ":" in name else _registered(name)
    _check_arguments(name, factory, args)
    try:
        student = factory(**args)
    except Exception as error:
        raise UsageError(f"student {name!r} cannot be built: {one_line(error)}") from error
    if not isinstance(student, nn.Module):
        kind = type(student).__name__
        raise UsageError(f"student {name!r} gives {kind}: it must give a torch.nn.Module")
    return student


def _registered(name: str) -> Callable[..., nn.Module]:
    if name in REGISTRY:
        return REGISTRY[name]
    nearest = get_close_matches(name, REGISTRY, n=1, cutoff=0.0)[0]
    known = ", ".join(REGISTRY)
    raise UsageError(
        f"no student {name!r}, did you mean {nearest}? Known: {known}; "
        "any other network is named module:callable"
    )


def _check_arguments(name: str, factory: Callable[..., Any], args: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some compiled callables have none: calling them tells
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        raise UsageError(f"student {name!r} {signature}: {error}") from None
