"""A backbone with the weights that `distill.init` names, in place of those that were drawn."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.results.initial import initial_file
from egapipe.stages.distill.model.spec import shapes_in

WHOLE = "backbone."
"""Before the names of a backbone's weights in a file of a whole student, which `export` writes."""


def load_initial(backbone: nn.Module, init: str) -> None:
    """Give a backbone the weights of a safetensors file or of a run's last checkpoint.

    Of a whole student's file those of its backbone. Shapes are compared before a weight is read.
    Raises UsageError with the first weight that does not fit.
    """
    file = initial_file(init)
    prefix = _prefix(backbone, file)
    shapes = {
        name.removeprefix(prefix): shape
        for name, shape in shapes_in(file).items()
        if name.startswith(prefix)
    }
    own = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    odd = next((n for n in {**own, **shapes} if own.get(n) != shapes.get(n)), None)
    if odd is not None:
        raise UsageError(
            f"distill.init: {file} is of another student: {odd} is {_shown(shapes.get(odd))} in it,"
            f" and {_shown(own.get(odd))} in this one"
        )
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"distill.init: {file} does not load: {one_line(error)}") from None
    backbone.load_state_dict({name: weights[prefix + name] for name in own})


def _prefix(backbone: nn.Module, file: Path) -> str:
    """What is before the backbone's names in a file."""
    if any(name.startswith(WHOLE) for name in backbone.state_dict()):
        return ""
    return WHOLE if any(name.startswith(WHOLE) for name in shapes_in(file)) else ""


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))
