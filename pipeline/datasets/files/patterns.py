"""Files of a data set by patterns: braces and wildcards, on this machine and elsewhere."""

import glob
import itertools
import os
import re
from collections.abc import Iterator

from egapipe.pipeline.datasets.decoding.reading import attempt
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.remote import is_remote, matching
from egapipe.pipeline.locations.urls import absolute_url

MOST = 1_000_000
"""Texts that the braces of one pattern may stand for."""

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([A-Za-z])\.\.([A-Za-z])")
_WILD = re.compile(r"[*?[]")


def matches(pattern: str) -> list[str]:
    """Absolute paths, or URLs, of what a pattern stands for: braces in their order, and the matches
    of wildcards sorted; none where wildcards match nothing.

    What is there under the very name is meant itself. A URL without wildcards is taken as it is;
    those of web servers have none. Raises UsageError, MachineError.
    """
    place = absolute_url(pattern)
    if not is_remote(place) and os.path.exists(place):
        return [place]
    return [file for text in braces(place) for file in _matches(text)]


def braces(pattern: str) -> list[str]:
    """The texts that `{a,b}`, `{000..999}` and `{0..100..10}` stand for, as in a shell; zeros at
    the front count as digits. Raises UsageError for more than MOST."""
    found = list(itertools.islice(_braces(pattern), MOST + 1))
    if len(found) > MOST:
        raise UsageError(f"{pattern} stands for more than {MOST:,} files: use wildcards")
    return found


def _matches(text: str) -> list[str]:
    if is_remote(text):
        web = text.startswith(("http://", "https://"))
        return [text] if web or not _WILD.search(text) else attempt(lambda: matching(text))
    return [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))


def _braces(text: str) -> Iterator[str]:
    """The first group that is one is replaced by each of its values; those of the rest follow."""
    for start, stop in _groups(text):
        values = _values(text[start + 1 : stop])
        if values is not None:
            rests = text[stop + 1 :]
            for value in values:
                for inner in _braces(value):
                    for rest in _braces(rests):
                        yield text[:start] + inner + rest
            return
    yield text


def _groups(text: str) -> Iterator[tuple[int, int]]:
    """Where braces open and close, those that open first before others."""
    for start in (i for i, letter in enumerate(text) if letter == "{"):
        depth = 0
        for stop in range(start, len(text)):
            depth += (text[stop] == "{") - (text[stop] == "}")
            if depth == 0:
                yield start, stop
                break


def _values(inner: str) -> Iterator[str] | None:
    """What a group stands for; None if it is no group, as `{x}` is none."""
    match = _RANGE.fullmatch(inner)
    if match is not None and match[4]:
        first, last = ord(match[4]), ord(match[5])
        step = 1 if last >= first else -1
        return map(chr, range(first, last + step, step))
    if match is not None:
        return _numbers(match[1], match[2], abs(int(match[3] or 1)) or 1)
    parts = _parts(inner)
    return iter(parts) if len(parts) > 1 else None


def _numbers(first: str, last: str, step: int) -> Iterator[str]:
    padded = any(
        text.lstrip("-").startswith("0") and len(text.lstrip("-")) > 1 for text in (first, last)
    )
    width = max(len(first), len(last)) if padded else 0
    down = int(last) < int(first)
    stop = int(last) + (-1 if down else 1)
    return (f"{n:0{width}d}" for n in range(int(first), stop, -step if down else step))


def _parts(inner: str) -> list[str]:
    """Split at the commas that lie in no braces."""
    parts, depth = [""], 0
    for letter in inner:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
