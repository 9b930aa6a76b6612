"""Where the samples of a WebDataset tar lie: one pass over its headers, nothing extracted.

The layout is that of the webdataset library: a member's name up to the first dot of its last part
is the sample, the rest says what the member is (`n01/0001.jpg`, `n01/0001.cls`).
"""

import json
import re
import tarfile
from typing import IO, NamedTuple

from egapipe.pipeline.datasets.base import UNLABELLED
from egapipe.pipeline.datasets.decoding.images import SUFFIXES
from egapipe.pipeline.datasets.files.datafile import open_data
from egapipe.pipeline.errors import UsageError, one_line

_BLOCK = 512
_MAX_LABEL_BYTES = 1 << 24
_MAX_LABEL = 1 << 63
_MAX_NAME = 200
_NUMBER = re.compile("-?[0-9]+")

Members = dict[str, tarfile.TarInfo]


class Sample(NamedTuple):
    """One row. `problem` says why there is no image to read; it is empty where there is one.

    label: a name, or a number as text; None for none.
    """

    key: str
    label: str | None
    offset: int
    size: int
    problem: str


def scan(path: str, image: str | None, label_field: str) -> list[Sample]:
    """The samples of a tar, in the order of their first members.

    image: ending of the image members, None for those of all image formats. Raises UsageError: not
    an uncompressed tar, truncated or damaged, a label that is no class number, or a member that is
    there twice; MachineError: a storage that cannot be used.
    """
    try:
        with open_data(path) as file:
            _check_plain(file, path)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                groups = _groups(tar, path)
                _check_end(file, tar.offset, path)
                return [_sample(tar, path, k, m, image, label_field) for k, m in groups.items()]
    except tarfile.TarError as error:
        raise UsageError(
            f"tar {path} is truncated, damaged or not a tar ({error}): write or download it again"
        ) from None
    except OSError as error:
        raise UsageError(f"tar {path} cannot be read: {one_line(error)}") from None


def _check_plain(file: IO[bytes], path: str) -> None:
    head = file.read(6)
    file.seek(0)
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise UsageError(f"tar {path} is compressed, which has no random access: decompress it")


def _check_end(file: IO[bytes], offset: int, path: str) -> None:
    """tarfile takes both a missing end and a damaged header for the end."""
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise UsageError(
            f"tar {path} is truncated or damaged at byte {offset:,}: write or download it again"
        )


def _groups(tar: tarfile.TarFile, path: str) -> dict[str, Members]:
    groups: dict[str, Members] = {}
    for member in tar:
        key, ending = _split(member.name, path)
        if member.isdir() or not ending:
            continue
        members = groups.setdefault(key, {})
        if ending in members:
            raise UsageError(f"tar {path} has the member {member.name!r} twice")
        members[ending] = member
    return groups


def _split(name: str, path: str) -> tuple[str, str]:
    """Sample and lower-case ending; no ending for hidden files and those without a dot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"tar {path}: the member name {name!r} is not UTF-8") from None
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, ending = last.partition(".")
    return folder + slash + stem, ending.lower() if stem else ""


def _sample(
    tar: tarfile.TarFile, path: str, key: str, members: Members, image: str | None, field: str
) -> Sample:
    label = _label(tar, path, members, field)
    found = [e for e in members if (e == image.lower() if image else f".{e}" in SUFFIXES)]
    if len(found) > 1:
        raise UsageError(
            f"tar {path}: sample {key!r} has several images ({', '.join(found)}): set `image` to"
            " the ending of those to take"
        )
    if not found:
        return Sample(key, label, 0, 0, f"no image among its members ({', '.join(members)})")
    member = members[found[0]]
    if not _is_plain(member):
        return Sample(key, label, 0, 0, "the image is a link or a device, not a file")
    return Sample(key, label, member.offset_data, member.size, "")


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse()


def _label(tar: tarfile.TarFile, path: str, members: Members, field: str) -> str | None:
    """From the `.cls` member, else the field of the `.json` member, else None."""
    if "cls" in members:
        return _class(_text(tar, path, members["cls"]).strip(), path, members["cls"])
    if "json" not in members:
        return None
    try:
        content = json.loads(_text(tar, path, members["json"]))
    except (ValueError, RecursionError):
        raise UsageError(f"tar {path}: member {members['json'].name!r} is not JSON") from None
    value = content.get(field) if isinstance(content, dict) else None
    return None if value is None else _class(value, path, members["json"])


def _class(value: object, path: str, member: tarfile.TarInfo) -> str | None:
    """A label as text, whole numbers in their shortest form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int) else value
    if isinstance(text, str) and _NUMBER.fullmatch(text):
        number = int(text)
        if UNLABELLED <= number < _MAX_LABEL:
            return None if number == UNLABELLED else str(number)
    elif isinstance(text, str) and text and text.isprintable() and len(text) <= _MAX_NAME:
        return text
    raise UsageError(
        f"tar {path}: the label of member {member.name!r} is {str(value)[:40]!r}: labels are names"
        f" or whole numbers from 0 on, {UNLABELLED} is none"
    )


def _text(tar: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member) if _is_plain(member) else None
    if file is None or member.size > _MAX_LABEL_BYTES:
        raise UsageError(f"tar {path}: member {member.name!r} is no file of text")
    return file.read().decode("utf-8", "replace")
