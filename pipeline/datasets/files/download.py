"""A file from a web server: with progress, resumed after an interruption, kept only if right.

pooch checks and moves the file; how its bytes come is ours, for pooch starts again from nothing.
"""

import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import pooch  # type: ignore[import-untyped]
import requests
from urllib3.exceptions import HTTPError as StreamError

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import redacted
from egapipe.pipeline.terminal.progress import open_progress

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
_TIMEOUT_SECONDS = (10, 60)
_CHUNK_BYTES = 1 << 20
_PARTIAL, _BEYOND_END = 206, 416

_Interrupted = (requests.RequestException, StreamError)
_MALFORMED = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)


def fetch(url: str, path: Path, checksum: str) -> bool:
    """Download `url` to `path` unless a file with this checksum is there; whether it did.

    checksum: `md5:...` or `sha256:...`. What an interrupted download brought stays in
    `<path>.part`, and the next attempt, of this or another process, goes on from its end; a join of
    two versions does not survive the checksum, and is not kept. A file at `path` is the user's: it
    is never replaced.

    Raises UsageError: no answer, an error of the server, the wrong checksum, or a folder that
    cannot be written.
    """
    if path.exists():
        _check(path, checksum)
        return False
    # Its INFO lines would go between the lines of the progress.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, checksum, path.name, path.parent, downloader=_Resuming(path))
    except _Interrupted as error:
        raise UsageError(
            f"cannot download {url} ({_line(error)}): run it again, it goes on where it stopped, or"
            f" put the file at {path}"
        ) from None
    except ValueError:
        # pooch says so with a ValueError, and has deleted the file.
        raise UsageError(
            f"{url} does not have the checksum {checksum}, nothing of it is kept: try again, or set"
            " `url` to a mirror"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    return True


def _check(path: Path, checksum: str) -> None:
    algorithm, _, wanted = checksum.rpartition(":")
    try:
        found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if found != wanted:
        raise UsageError(
            f"{path} does not have the checksum {checksum}: move it away, and it is downloaded"
        )


class _Resuming:
    """A downloader of pooch that keeps what it has in `<path>.part`."""

    def __init__(self, path: Path) -> None:
        self._part = path.with_name(f"{path.name}.part")
        self._task = f"download {path.name}"

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        attempts = 0
        while True:
            before = _size(self._part)
            try:
                self._request(url)
                break
            except _Interrupted as error:
                # An attempt that brought something doesn't count.
                attempts = 1 if _size(self._part) > before else attempts + 1
                if attempts >= _ATTEMPTS or _is_final(error):
                    raise
                time.sleep(_PAUSE_SECONDS * attempts)
        os.replace(self._part, output_file)

    def _request(self, url: str) -> None:
        have = _size(self._part)
        # As it lies on the server: its bytes are counted and checked.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == _BEYOND_END:
                self._settle(response, have)
                return
            response.raise_for_status()
            if response.status_code != _PARTIAL or _start(response) != have:
                have = 0
            self._save(response, have)

    def _settle(self, response: requests.Response, have: int) -> None:
        """The server has no more than we: either that is all, or ours is of another file."""
        if response.headers.get("Content-Range") == f"bytes */{have}":
            return
        self._part.unlink()
        raise requests.ConnectionError("the file on the server is shorter than before")

    def _save(self, response: requests.Response, have: int) -> None:
        """Append from byte `have` on; a stream from another byte than asked starts at 0."""
        total = have + int(response.headers.get("Content-Length", 0))
        if not have and response.status_code == _PARTIAL:
            self._part.unlink()
            raise requests.ConnectionError("the server sent another part than was asked for")
        with (
            open(self._part, "ab" if have else "wb") as file,
            open_progress(self._task, _mb(total), done=_mb(have), unit="MB") as progress,
        ):
            for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                file.write(chunk)
                have += len(chunk)
                progress.update(_mb(have))
        if have < total:
            raise requests.ConnectionError(f"the connection ended {total - have:,} bytes early")


def _is_final(error: Exception) -> bool:
    """The server understood and refuses: asking again will not help."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, _MALFORMED) or (status is not None and 400 <= status < 500)


def _start(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _mb(size: int) -> int:
    return round(size / 1e6)


def _line(error: BaseException) -> str:
    """Without the memory addresses that urllib3 puts into its messages."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>:? ?|object at 0x[0-9a-f]+", "", str(error))
    # A server may have sent us on to an address with a signature.
    return redacted(" ".join(text.split()))[:200] or type(error).__name__
