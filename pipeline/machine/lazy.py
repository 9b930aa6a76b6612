"""Public names of a package that are imported when they are first used.

`egapipe --help` imports every stage's package for its command; torch, zarr and ray must wait until
something runs. A loss can likewise be imported without the store.
"""

import importlib
from collections.abc import Callable, Mapping


def lazy(package: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """A module-level `__getattr__` (PEP 562) that finds each name in a module of the package.

    package: the package's `__name__`. names: public name -> module below the package.
    """

    def find(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    return find
