"""What a student gives on the way to its features: maps before pooling, outputs of submodules."""

from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students.backbone import maps_and_features

MAPS = "maps"
"""The tap that is no submodule: the maps before pooling."""


class Taps:
    """Some taps of a backbone, each the maps before pooling or the output of a submodule.

    Of a submodule that a pass calls several times the last call counts, of one that gives several
    tensors the first. Its output is what the pass leaves of it: layers that work in place change
    it. Nothing is kept of passes that are not asked for it.
    """

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        """names: `maps`, or dotted paths. Raises UsageError for a path that is not there."""
        self.names = tuple(names)
        self._backbone = backbone
        self._found: dict[str, Any] | None = None
        self._hooks = [
            _submodule(backbone, name).register_forward_hook(partial(self._keep, name))
            for name in names
            if name != MAPS
        ]

    def run(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features [B, F] of normalised images [B, 3, H, W], and what each tap gives, [B, *shape].

        Raises UsageError where the pass does not come by a submodule, or that gives no tensor.
        """
        found: dict[str, Any] = {}
        self._found = found
        try:
            if MAPS in self.names:
                found[MAPS], features = maps_and_features(self._backbone, images)
            else:
                features = cast(Tensor, self._backbone(images))
        finally:
            self._found = None
        return features, {name: self._tensor(name, found.get(name)) for name in self.names}

    def remove(self) -> None:
        """Tap nothing any more."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._found is not None:
            self._found[name] = output

    def _tensor(self, name: str, output: Any) -> Tensor:
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if isinstance(output, Tensor):
            return output
        kind = type(self._backbone).__name__
        what = "is not called in its forward pass" if output is None else "gives no tensor"
        raise UsageError(f"student {kind}: its submodule {name} {what}: name another one")


def _submodule(backbone: nn.Module, path: str) -> nn.Module:
    paths: dict[str, nn.Module] = dict(backbone.named_modules())
    if path in paths:
        return paths[path]
    known = [name for name in paths if name]
    near = get_close_matches(path, known, n=3) or known[-3:]
    raise UsageError(
        f"student {type(backbone).__name__} has no submodule {path}: take {MAPS}, or one of its "
        f"{len(known)}, such as {', '.join(near)}"
    )
