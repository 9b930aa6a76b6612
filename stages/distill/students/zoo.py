"""`timm:<name>` and `torchvision:<name>`: networks of these packages without their classifiers.

Both packages are extras of this one; none is imported before a network of it is asked for.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, cast

from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.students.backbone import Backbone
from egapipe.stages.distill.students.layers import last_linear
from egapipe.stages.distill.students.transformers import transformers_factory


class TimmBackbone(Backbone):
    """A network of timm that was made with num_classes=0.

    Its pooling may hold layers (MobileNetV3), so that C of the maps need not be num_features.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.num_features = network.head_hidden_size

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, C, h, w]. Raises UsageError: the network gives others."""
        maps = cast(Tensor, self.network.forward_features(images))
        if maps.ndim != 4 or maps.shape[1] != self.network.num_features:
            kind = type(self.network).__name__
            raise UsageError(
                f"timm's {kind} gives {list(maps.shape)}, not maps [B, C, h, w]: "
                "take a convolutional network, or an objective on embeddings"
            )
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] to [B, num_features], by the network's own head."""
        return cast(Tensor, self.network.forward_head(maps))

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features]; also of a network without maps."""
        return cast(Tensor, self.network(images))


def timm_factory(name: str) -> Callable[..., nn.Module]:
    """A function of `timm.create_model`'s keyword arguments for `timm:<name>`.

    Raises UsageError: timm cannot be imported, or has no such network.
    """
    timm = require("timm", "timm", f"student {name!r}")
    network = name.partition(":")[2]
    if not timm.is_model(network):
        raise _unknown(name, network, timm.list_models())

    def build(**args: Any) -> nn.Module:
        return TimmBackbone(timm.create_model(network, num_classes=0, **args))

    return build


def torchvision_factory(name: str) -> Callable[..., nn.Module]:
    """A function of `torchvision.models.get_model`'s keyword arguments for `torchvision:<name>`.

    The last linear layer becomes the identity. Such a network gives features, and no maps.
    Raises UsageError: torchvision cannot be imported, or has no such classifier of images; when
    called, if the network has no linear classifier, or gives more than one output in training.
    """
    models = require("torchvision.models", "torchvision", f"student {name!r}")
    network = name.partition(":")[2]
    known = models.list_models(module=models)
    if network not in known:
        raise _unknown(name, network, known)
    return lambda **args: _without_classifier(name, models.get_model(network, **args))


def _without_classifier(name: str, network: Any) -> nn.Module:
    classifier = last_linear(network)
    if not classifier:
        raise UsageError(f"student {name!r} has no linear classifier to leave out: take another")
    if getattr(network, "aux_logits", False):
        raise UsageError(f"student {name!r} has auxiliary outputs: give it aux_logits: false")
    network.num_features = network.get_submodule(classifier).in_features
    network.set_submodule(classifier, nn.Identity())
    return cast(nn.Module, network)


def _unknown(name: str, network: str, known: Iterable[str]) -> UsageError:
    nearest = get_close_matches(network, known, n=1, cutoff=0.0)[0]
    package = name.partition(":")[0]
    return UsageError(f"student {name!r}: {package} has no {network!r}, did you mean {nearest}?")


ZOOS: dict[str, Callable[[str], Callable[..., nn.Module]]] = {
    "timm": timm_factory,
    "torchvision": torchvision_factory,
    "transformers": transformers_factory,
}
"""Package -> function of `package:<name>` that gives a factory of networks."""
