"""The identity of a teacher's weights."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

_BLOCK = 1 << 20


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the floating-point weights, whatever a library version calls or orders them.

    The digest of the sorted digests of every tensor's dtype, shape and bytes.
    """
    tensors = (t for t in module.state_dict().values() if t.is_floating_point())
    digests = sorted(_tensor_sha256(t.detach().cpu().contiguous()) for t in tensors)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def files_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, one after the other: of one file, what `sha256sum` says."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _tensor_sha256(tensor: Tensor) -> bytes:
    header = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(header + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).digest()
