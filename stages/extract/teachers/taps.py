"""What submodules of a network give in a forward pass, without the network knowing of it."""

import threading
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn


class KeptOutputs:
    """The outputs of some submodules, of each thread's own latest forward pass.

    On the CPU, several threads run a network at once.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        """modules: name -> submodule that is tapped from now on."""
        self._local = threading.local()
        for name, module in modules.items():
            module.register_forward_hook(partial(self._keep, name))

    def take(self, name: str, setting: str = "") -> Any:
        """The output of a submodule, of its last call if it had several, once a forward pass.

        setting: that names it. Raises ValueError if the forward pass did not call it.
        """
        kept = self._local.__dict__
        if name not in kept:
            raise ValueError(f"its forward pass does not call the submodule of {setting or name}")
        return kept.pop(name)

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._local.__dict__[name] = output


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path. Raises ValueError that names near ones if there is none."""
    paths: dict[str, nn.Module] = dict(module.named_modules())
    if path not in paths:
        known = [name for name in paths if name]
        near = get_close_matches(path, known, n=3) or known[-3:]
        raise ValueError(
            f"none of its {len(known)} submodules is called {path}: did you mean {', '.join(near)}?"
        )
    return paths[path]
