"""`transformers:<model type>`: networks of transformers without their classifiers."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, cast

from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.extras import require
from egapipe.stages.distill.students.layers import last_linear

# Networks of another package, which have a prefix of their own.
_WRAPPERS = ("timm_wrapper",)


class Logits(nn.Module):
    """A classifier of images of transformers: float images [B, 3, H, W] to logits [B, C]."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.network(pixel_values=images).logits)


class TransformersStudent(Logits):
    """One whose last linear layer is the identity, so that it gives features [B, F].

    classifier: the place of that layer.
    """

    def __init__(self, network: Any, classifier: str) -> None:
        super().__init__(network)
        self.classifier = classifier


def transformers_factory(name: str) -> Callable[..., nn.Module]:
    """A function of the configuration's own arguments for `transformers:<model type>`.

    Weights are fresh ones: nothing is downloaded. Raises UsageError: transformers cannot be
    imported, or has no classifier of images of this type; when called, for an argument that is not
    of the configuration's own, such as one that chooses an implementation.
    """
    transformers = require("transformers", "transformers", f"student {name!r}")
    auto = transformers.models.auto
    kind = name.partition(":")[2]
    known = _classes(auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    if kind not in known:
        nearest = get_close_matches(kind, known, n=1, cutoff=0.0)[0]
        raise UsageError(f"student {name!r}: transformers has no {kind!r}, did you mean {nearest}?")

    def build(**args: Any) -> nn.Module:
        _check(
            name, args, _own_arguments(transformers, auto.configuration_auto.CONFIG_MAPPING[kind])
        )
        config = transformers.AutoConfig.for_model(kind, **args)
        network = getattr(transformers, known[kind])(config)
        last = last_linear(network)
        if not last or network.get_submodule(last).out_features != config.num_labels:
            raise UsageError(
                f"student {name!r} has no linear classifier to leave out: take another"
            )
        network.set_submodule(last, nn.Identity())
        return TransformersStudent(network, last)

    return build


def _classes(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Model type -> class; of several classes the first, the others have further heads."""
    named = ((k, v if isinstance(v, str) else v[0]) for k, v in mapping.items())
    return {kind: name for kind, name in named if kind not in _WRAPPERS}


def _own_arguments(transformers: Any, config: Any) -> set[str]:
    """Those that the configuration of one type adds to what all of them have."""
    base = getattr(transformers, "PreTrainedConfig", None) or transformers.PretrainedConfig
    return set(inspect.signature(config).parameters) - set(inspect.signature(base).parameters)


def _check(name: str, args: Mapping[str, Any], known: set[str]) -> None:
    for key, value in args.items():
        if key not in known:
            nearest = get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UsageError(f"student {name!r} takes no argument {key!r}, did you mean {nearest}?")
        if isinstance(value, Mapping):
            # A configuration inside one has arguments that choose what is run.
            raise UsageError(f"student {name!r} takes no section for {key!r}: give a plain value")
