"""The identity of a teacher's weights."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from egapipe.pipeline.digests import cached_digest

_BLOCK = 1 << 20


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the floating-point weights, whatever a library version calls or orders them.

    The digest of the sorted digests of every tensor's dtype, shape and bytes.
    """
    tensors = _weights(module).values()
    digests = sorted(_tensor_sha256(t.detach().cpu().contiguous()) for t in tensors)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def weights_sha256_of(files: Sequence[Path], module: nn.Module, reader: str) -> str:
    """`weights_sha256` of a module, remembered for as long as the files of its weights stay.

    files: all that decided the weights, see `cached_digest`. reader: what read them, a version
    included. Which of the files' weights the module has, its own names, types and shapes say.
    """
    tensors = [(name, str(t.dtype), tuple(t.shape)) for name, t in _weights(module).items()]
    extra = json.dumps(["weights", reader, tensors])
    return cached_digest(files, extra, partial(weights_sha256, module))


def files_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, one after the other: of one file, what `sha256sum` says."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: t for name, t in module.state_dict().items() if t.is_floating_point()}


def _tensor_sha256(tensor: Tensor) -> bytes:
    header = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(header + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).digest()
