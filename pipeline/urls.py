"""URLs that may be written down."""

import os
import re

from egapipe.pipeline.errors import UsageError

_USER = re.compile(r"://[^/@]*:.*@")
_QUERY = re.compile(r"://.*\?")


_SIGNED = re.compile(
    r"[?&](x-amz-|x-goog-|sig=|[^=&]*(signature|token|secret|password|credential|accesskey))", re.I
)
_WEB_USER = re.compile(r"^https?://[^/?#]*@", re.I)
_ANY_USER = re.compile(r"(://)[^\s/@]*:\S*@")
_ANY_QUERY = re.compile(r"((?:://|url: )[^\s?'\"<>)]*)\?[^\s'\"<>)]+")
# A scheme without its slashes would be a folder of this name. One letter is a drive.
_NO_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def redacted(text: str) -> str:
    """Text without the users, passwords and queries of URLs in it: a query can be a signature."""
    return _ANY_QUERY.sub(r"\1?...", _ANY_USER.sub(r"\1...@", text))


def without_secrets(url: str, setting: str, instead: str) -> str:
    """The URL, if it may be written down. Raises ValueError, which does not repeat it.

    instead: where a secret belongs.
    """
    if _USER.search(url) or _WEB_USER.search(url) or _SIGNED.search(url):
        raise ValueError(f"{setting} holds credentials or a signature: {instead}")
    return url


def local_path(url: str) -> str | None:
    """The expanded local path that a text means, which is a path or a file URL; None for others.

    Raises UsageError: a scheme without `//`, a file of another host, or a variable that is not set.
    """
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            host, slash, rest = url.removeprefix(scheme).partition("/")
            if host not in ("", "localhost", ".", "..", "~") and scheme == "file://":
                raise UsageError(f"{url} is a file of the host {host}: write file:///{rest}")
            url = slash + rest if host in ("", "localhost") else host + slash + rest
            break
    else:
        if "://" in url:
            return None
        wrong = _NO_SCHEME.match(url)
        if wrong:
            rest = url[wrong.end() :].lstrip("/")
            raise UsageError(
                f"{redacted(url)} is neither a folder nor a URL: write {wrong[1]}://{rest}, or "
                f"./{url} for a folder of that name"
            )
    expanded = os.path.expanduser(os.path.expandvars(url))
    unset = _VARIABLE.search(expanded)
    if unset:
        raise UsageError(f"{url}: the variable {unset[0]} is not set")
    return expanded


def refuse_credentials(url: str) -> None:
    """Raise UsageError, which does not repeat the URL, if it holds a password or a query.

    A URL is kept in configurations, run folders and logs, and printed in errors. A query can be a
    signature. The first slash ends no password: those of S3 have slashes.
    """
    if _USER.search(url):
        raise UsageError(
            "store.url holds credentials before its @: leave them out, and set them in the "
            "environment (see `Object stores` in docs/store.md)"
        )
    if _QUERY.search(url):
        raise UsageError("store.url has a query: leave out everything from its ? on")
