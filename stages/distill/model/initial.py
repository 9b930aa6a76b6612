"""A backbone with the weights that `distill.init` names, in place of those that were drawn."""

from collections.abc import Iterable

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.results.initial import initial_file
from egapipe.stages.distill.model.spec import shape_text, shapes_in

WHOLE = "backbone."
"""Before the names of a backbone's weights in a file of a whole student, which `export` writes."""


def load_initial(backbone: nn.Module, init: str) -> None:
    """Give a backbone the weights of a safetensors file or of a run's last checkpoint.

    Of a whole student's file those of its backbone. Shapes are compared before a weight is read.
    Raises UsageError with the first weight that does not fit.
    """
    file = initial_file(init)
    found = shapes_in(file)
    own = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    prefix = _prefix(own, found)
    shapes = {n.removeprefix(prefix): shape for n, shape in found.items() if n.startswith(prefix)}
    odd = next((n for n in {**own, **shapes} if own.get(n) != shapes.get(n)), None)
    if odd is not None:
        raise UsageError(
            f"distill.init: {file} is of another student: {odd} is {shape_text(shapes.get(odd))} "
            f"in it, and {shape_text(own.get(odd))} in this one"
        )
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"distill.init: {file} does not load: {one_line(error)}") from None
    backbone.load_state_dict({name: weights[prefix + name] for name in own})


def _prefix(own: Iterable[str], found: Iterable[str]) -> str:
    """What is before the backbone's own names among those that a file has."""
    if any(name.startswith(WHOLE) for name in own):
        return ""
    return WHOLE if any(name.startswith(WHOLE) for name in found) else ""
