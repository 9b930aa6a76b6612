"""Texts that name a place: paths of this machine, and URLs that may be written down."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from egapipe.pipeline.errors import UsageError

_USER = re.compile(r"://[^/@]*:.*@", re.S)
_QUERY = re.compile(r"://.*\?", re.S)
_SIGNED = re.compile(
    r"[?&;#](x-amz-|x-goog-|sig=|auth=|[^=&?;#]*"
    r"(signature|token|secret|password|passwd|credential|accesskey|api_?key))",
    re.I,
)
_WEB_USER = re.compile(r"https?://[^\s/?#@]*@", re.I)
_ANY_USER = re.compile(r"(://)[^\s/@]*:\S*@")
_ANY_WEB_USER = re.compile(r"(https?://)[^\s/?#@]+@", re.I)
_ANY_QUERY = re.compile(r"((?:://|url: )[^\s?'\"<>)]*)\?[^\s'\"<>)]+")
_ANY_FRAGMENT = re.compile(r"(://[^\s'\"<>)#]*)#[^\s'\"<>)]*=[^\s'\"<>)]+")
# A scheme without its slashes would be a folder of this name. One letter is a drive.
_NO_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)")
_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{([^}]*)\})")


def redacted(text: str) -> str:
    """Text without the users, passwords and queries of URLs in it: a query can be a signature."""
    text = _ANY_WEB_USER.sub(r"\1...@", _ANY_USER.sub(r"\1...@", text))
    return _ANY_FRAGMENT.sub(r"\1#...", _ANY_QUERY.sub(r"\1?...", text))


def has_secrets(text: str) -> bool:
    """Whether a text holds a URL with a password, or with a parameter that is a signature."""
    if "://" not in text:
        return False
    plain = unquote(text)
    return any(r.search(t) for r in (_USER, _WEB_USER, _SIGNED) for t in (text, plain))


def without_secrets(url: str, instead: str) -> str:
    """The URL, if it may be written down. Raises ValueError, which does not repeat it.

    instead: where a secret belongs.
    """
    if has_secrets(url):
        raise ValueError(f"it holds credentials or a signature: {instead}")
    return url


def with_variables(text: str) -> str:
    """A text with the values of its `$VARIABLES`, once; `$$` is a `$`.

    Raises UsageError if one is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = match[1] or os.environ.get(match[2] or match[3] or "")
        if found is None:
            raise UsageError(f"{text}: the variable {match[0]} is not set")
        return found

    return _VARIABLE.sub(value, text)


def local_path(text: str) -> str | None:
    """The expanded local path that a text means, which is a path or a file URL; None for others.

    `$VARIABLES` and `~` are expanded; what is relative stays so, and is below the working
    directory. Raises UsageError: a scheme without `//`, a file of another host, a variable that
    is not set, or the home folder of nobody.
    """
    url = with_variables(text)
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            host, slash, rest = url.removeprefix(scheme).partition("/")
            if host not in ("", "localhost", ".", "..", "~") and scheme == "file://":
                raise UsageError(f"{text} is a file of the host {host}: write file:///{rest}")
            url = slash + rest if host in ("", "localhost") else host + slash + rest
            break
    else:
        if "://" in url:
            return None
        check_scheme(url)
    path = os.path.expanduser(url)
    if path.startswith("~"):
        raise UsageError(f"{text} is below the home folder of a user that is not here")
    return path


def check_scheme(url: str) -> None:
    """Raise UsageError for a scheme without its slashes, which would be a folder of this name."""
    wrong = _NO_SCHEME.match(url)
    if wrong:
        rest = url[wrong.end() :].lstrip("/")
        raise UsageError(
            f"{url} is neither a folder nor a URL: write {wrong[1]}://{rest}, or ./{url} for a"
            " folder of that name"
        )


def path_of(text: str) -> Path:
    """The path of this machine that a text means, see `local_path`; a relative one stays so.

    Raises UsageError, for the URL of another storage too.
    """
    path = local_path(text)
    if path is None:
        raise UsageError(f"{text} is a URL: it must be a path here")
    return Path(path)


def text_of(path: Path) -> str:
    """The text that means a path, wherever it is read: nothing of it is expanded again."""
    return os.path.abspath(path).replace("$", "$$")


def url_of(text: str) -> str:
    """The local path, or else the URL, that a text means. Raises UsageError, see `local_path`."""
    path = local_path(text)
    return with_variables(text) if path is None else path


def absolute_url(text: str) -> str:
    """The absolute path of this machine, or else the URL, that a text means.

    Raises UsageError, see `local_path`; also for a URL whose variables hold a secret, which it does
    not repeat.
    """
    url = url_of(text)
    if "://" not in url:
        return os.path.abspath(url)
    if has_secrets(url):
        raise UsageError(
            f"{text} stands for credentials or a signature: leave them out, and set them in the "
            "environment as its client reads them"
        )
    return url.rstrip("/")


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
