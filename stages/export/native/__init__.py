"""The student as a checkpoint of another library, which loads it without egapipe.

Node layer and classifier become one linear layer in the place that the library has for it. Only
where the network truly is one of the library's own: no code comes with a checkpoint.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.export.folder import WEIGHTS
from egapipe.stages.export.native import resnet, timm, torchvision, transformers
from egapipe.stages.export.written import Order, Written, arrays


class Native(NamedTuple):
    """library: whose format it is. write: fill an empty folder; give the network as the library
    loads it from there, float images [B, 3, H, W] to logits [B, C]."""

    library: str
    write: Callable[[Order, str], nn.Module]


_PACKAGES = {
    "transformers": Native("transformers", transformers.write),
    "timm": Native("timm", timm.write),
    "torchvision": Native("torchvision", torchvision.write),
}
_REGISTERED = {name: Native("transformers", resnet.write) for name in resnet.LAYERS}


def native_of(spec: StudentSpec) -> Native | None:
    """The library whose network a student is, None of those that are only egapipe's."""
    package, colon, _ = spec.student.name.partition(":")
    return _PACKAGES.get(package) if colon else _REGISTERED.get(package)


def write_native(order: Order) -> Written:
    """Write the checkpoint into a folder that is called after its library.

    Raises UsageError for a student that is no network of a library's.
    """
    native = native_of(order.spec)
    if native is None:
        others = ", ".join([*_REGISTERED, *(f"{name}:<name>" for name in _PACKAGES)])
        raise UsageError(
            f"student {order.spec.student.name} is no network of transformers, timm or torchvision"
            f" ({others} are): egapipe.Student.from_pretrained loads that of --format safetensors"
        )
    folder = order.folder / native.library
    folder.mkdir()
    network = native.write(order, str(folder)).eval()
    normalize = order.spec.levels
    mean, std = (
        order.module.student.mean.new_tensor(levels).view(1, 3, 1, 1)
        for levels in (normalize.mean, normalize.std)
    )
    run = arrays(lambda images: (network((images.float() / 255 - mean) / std),))
    return Written(f"{native.library}/{WEIGHTS}", run, outputs=("logits",))
