"""Digests of weights, and whether a folder holds those of which there is a digest alone."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.locations.places import local_files

_BLOCK = 1 << 20
_METHOD = "egapipe same weights 1"
# Of so many parts of a model every choice is tried: 63.
_MOST_PARTS = 6


def tensors_sha256(tensors: Iterable[Tensor]) -> str:
    """The digest of the sorted digests of every tensor's dtype, shape and bytes."""
    return _joined(_tensor_sha256(t.detach().cpu().contiguous()) for t in tensors)


def files_sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, one after the other: of one file, what `sha256sum` says."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def holds_weights(teacher: Mapping[str, Any], sha256: str) -> bool:
    """Whether the files of a local teacher hold the weights of a digest that a store has.

    teacher: the settings of one teacher, as plain values. The digest is of what loading took from
    the files: all of their tensors, or those of some parts (CLIP without its text tower), which are
    tried. True is a proof; False may also mean that loading changed them otherwise. Read once a
    node for as long as the files stay.
    """
    files = [f for f in sorted(local_files(teacher)) if f.suffix in (".safetensors", ".onnx")]
    if not files:
        return False
    found = partial(_found, files, sha256)
    return cached_digest(files, json.dumps([_METHOD, sha256]), found) == sha256


def _found(files: Sequence[Path], sha256: str) -> str:
    """The digest, if the files give it in one of the ways, else another one."""
    whole = files_sha256(files)
    return sha256 if whole == sha256 or sha256 in _digests(files) else whole


def _digests(files: Sequence[Path]) -> Iterator[str]:
    """Of each file and each choice of parts, as they are and as float32; none of damaged files."""
    parts: dict[str, list[Tensor]] = {}
    try:
        for file in (f for f in files if f.suffix == ".safetensors"):
            tensors = {k: t for k, t in load_file(file).items() if t.is_floating_point()}
            yield tensors_sha256(tensors.values())
            for name, tensor in tensors.items():
                parts.setdefault(name.partition(".")[0], []).append(tensor)
    except (OSError, SafetensorError):
        return
    for dtype in (None, torch.float32):
        digests = {
            name: [_tensor_sha256(t if dtype is None else t.to(dtype)) for t in tensors]
            for name, tensors in parts.items()
        }
        yield _joined(d for part in digests.values() for d in part)
        if len(parts) <= _MOST_PARTS:
            for size in range(1, len(parts)):
                for chosen in combinations(digests.values(), size):
                    yield _joined(d for part in chosen for d in part)


def _joined(digests: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _tensor_sha256(tensor: Tensor) -> bytes:
    header = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
    return hashlib.sha256(header + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()).digest()
