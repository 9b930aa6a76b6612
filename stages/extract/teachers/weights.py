"""The identity of a teacher's weights."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.results.weights import tensors_sha256


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the weights, which are numbers of float32 whatever type holds them, and whatever
    a library version calls or orders them, see `tensors_sha256`."""
    return tensors_sha256(weights.float() for weights in _weights(module).values())


def weights_sha256_of(files: Sequence[Path], module: nn.Module, reader: str) -> str:
    """`weights_sha256` of a module, remembered for as long as the files of its weights stay.

    files: all that decided the weights, see `cached_digest`. reader: what read them, a version
    included. Which of the files' weights the module has, its own names and shapes say.
    """
    asked = str(torch.float32)
    tensors = [(name, asked, tuple(t.shape)) for name, t in _weights(module).items()]
    extra = json.dumps(["weights", reader, tensors])
    return cached_digest(files, extra, partial(weights_sha256, module))


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: t for name, t in module.state_dict().items() if t.is_floating_point()}
