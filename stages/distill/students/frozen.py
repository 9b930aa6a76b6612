"""Parts of a student that do not learn."""

from torch import nn


def frozen_parts(module: nn.Module) -> list[nn.Module]:
    """The outermost modules that have parameters of which none asks for a gradient.

    What whoever built a student has frozen stays as it was built: in a training it belongs in
    evaluation mode, else its batch normalisation would go on to count, and its dropout to draw.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [module]
    return [part for child in module.children() for part in frozen_parts(child)]
