"""Students: networks from images to features, registered here or imported by name."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import check_arguments, import_callable, typed_line
from egapipe.stages.distill.students.backbone import (
    Backbone,
    GivesMaps,
    maps_and_features,
    require_maps,
)
from egapipe.stages.distill.students.digits import digits_cnn
from egapipe.stages.distill.students.imported import known_arguments
from egapipe.stages.distill.students.large_resnet import resnet18, resnet50
from egapipe.stages.distill.students.mobilenet_v2 import mobilenet_v2_half
from egapipe.stages.distill.students.resnet import resnet8, resnet8x4, resnet20, resnet32x4
from egapipe.stages.distill.students.shufflenet_v1 import shufflenet_v1
from egapipe.stages.distill.students.shufflenet_v2 import shufflenet_v2
from egapipe.stages.distill.students.taps import MAPS, Taps
from egapipe.stages.distill.students.vgg import vgg8, vgg13
from egapipe.stages.distill.students.wide_resnet import wrn_40_2
from egapipe.stages.distill.students.width import feature_width, tap_shapes
from egapipe.stages.distill.students.zoo import ZOOS

__all__ = [
    "MAPS",
    "REGISTRY",
    "Backbone",
    "GivesMaps",
    "Taps",
    "build_student",
    "feature_width",
    "maps_and_features",
    "require_maps",
    "tap_shapes",
]

REGISTRY: dict[str, Callable[..., Backbone]] = {
    "digits_cnn": digits_cnn,
    "mobilenet_v2_half": mobilenet_v2_half,
    "resnet8": resnet8,
    "resnet8x4": resnet8x4,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32x4": resnet32x4,
    "resnet50": resnet50,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "vgg8": vgg8,
    "vgg13": vgg13,
    "wrn_40_2": wrn_40_2,
}
"""Name -> function of keyword arguments that gives a backbone."""


def build_student(name: str, args: dict[str, Any], *, trusted: bool = True) -> nn.Module:
    """A new student: float images [B, 3, H, W] to features [B, F] (F: see `feature_width`).

    name: a registered student; `timm:<name>`, `torchvision:<name>` or `transformers:<model type>`,
    the network without its classifier; or any other `module:callable`, which is imported and
    called. args: keyword arguments. Weights are drawn from torch's random state. trusted: whether
    the user chose the name; that of a file from elsewhere imports nothing and names no file, see
    `known_arguments`.
    Raises UsageError: no such name, the arguments do not fit, the callable fails or gives no
    nn.Module, or it is not trusted.
    """
    if not trusted:
        args = known_arguments(name, args)
    factory = _factory(name)
    check_arguments(f"student {name!r}", factory, (), args)
    try:
        student = factory(**args)
    except UsageError:
        raise
    except Exception as error:  # code of the user's own, timm and torchvision raise anything
        raise UsageError(f"student {name!r} cannot be built: {typed_line(error)}") from error
    if not isinstance(student, nn.Module):
        kind = type(student).__name__
        raise UsageError(f"student {name!r} gives {kind}: it must give a torch.nn.Module")
    return student


def _factory(name: str) -> Callable[..., Any]:
    package, colon, _ = name.partition(":")
    if not colon:
        return _registered(name)
    return ZOOS[package](name) if package in ZOOS else import_callable("student", name)


def _registered(name: str) -> Callable[..., nn.Module]:
    if name in REGISTRY:
        return REGISTRY[name]
    nearest = get_close_matches(name, REGISTRY, n=1, cutoff=0.0)[0]
    known = ", ".join(REGISTRY)
    raise UsageError(
        f"no student {name!r}, did you mean {nearest}? Known: {known}; "
        "others are timm:<name>, torchvision:<name>, transformers:<model type> or module:callable"
    )
