"""Names of students that come with a file: what of them is built."""

from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import TRUST, ZOOS

# Arguments of timm and torchvision that read a file or download one. The weights of a student that
# comes as a file are in that file.
_READS = ("pretrained", "weights", "checkpoint", "cache_dir")
# With weights torchvision gives these networks a layer more, without any of its own.
_TRANSFORMED = ("googlenet", "inception_v3")


def known_arguments(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that build a student whose name and arguments a file from elsewhere gives.

    Whatever would read another file or the network is left out. Raises UsageError for any name but
    a registered student and those of `ZOOS`: importing a module runs it.
    """
    package, colon, network = name.partition(":")
    if colon and package not in ZOOS:
        raise UsageError(f"student {name!r} is code that a file names, which is not run: {TRUST}")
    kept = {key: value for key, value in args.items() if not key.startswith(_READS)}
    if network in _TRANSFORMED and args.get("weights") is not None:
        kept.setdefault("transform_input", True)
    return kept
