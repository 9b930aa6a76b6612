"""Puts of which an object store itself says that every byte has arrived.

The checksum goes along with the data, so that the store refuses what it received otherwise, and its
answer names what it has: an object need not be downloaded to be believed.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

# Of one put, and so of what has one checksum.
_LARGEST = 5 * 2**30


def put_vouched(fs: Any, path: str, data: bytes, sha256: str) -> bool:
    """Put an object through an fsspec file system: whether the store vouches for its bytes.

    sha256: hex digest of the data. Raises what the client raises, also where the store has received
    other bytes.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & {"s3", "s3a"} and len(data) < _LARGEST:
        return _put_s3(fs, path, data, sha256)
    if protocols & {"gs", "gcs"}:
        # The client compares the MD5 that the store answers, and raises ChecksumError.
        fs.pipe_file(path, data, consistency="md5")
        return True
    fs.pipe_file(path, data)
    return False


def _put_s3(fs: Any, path: str, data: bytes, sha256: str) -> bool:
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    # One request however large it is: parts would have checksums of their own.
    answer = fs.pipe_file(
        path,
        data,
        chunksize=max(1, len(data)),
        ChecksumAlgorithm="SHA256",
        ChecksumSHA256=checksum,
    )
    return isinstance(answer, Mapping) and _says(answer, data, checksum)


def _says(answer: Mapping[str, Any], data: bytes, checksum: str) -> bool:
    """Whether an answer names the data: by their SHA-256, or by the MD5 that an ETag is where
    nothing is encrypted."""
    if answer.get("ChecksumSHA256") == checksum:
        return True
    tag = str(answer.get("ETag", "")).strip('"')
    return tag == hashlib.md5(data, usedforsecurity=False).hexdigest()
