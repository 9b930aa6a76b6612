"""Records: nothing in a store counts until the record that vouches for it exists.

`commits/created.json` vouches for the manifest, the arrays' metadata and the index,
`commits/<shard>.json` for one shard, `commits/finished.json` for the whole. Each is written after
the objects it vouches for and holds the SHA-256 of their stored bytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from egapipe.pipeline.errors import StoreError

Count = Annotated[int, Field(ge=0)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

NOT_FINITE = "teacher output is not finite in {dtype}"
IMAGES = "images"
"""The array of the images' digests, [N, 32] uint8, in stores that have one."""
_CHECKSUM = "checksum"


class Failure(NamedTuple):
    """A row that has no embedding, and why. Its stored values are NaN in every view."""

    row: int
    key: str
    reason: str


class Record(BaseModel):
    """A small JSON object. Its text is canonical: equal records are equal bytes.

    Members that format 1 did not have are there where they say something. The last member,
    `checksum`, is the SHA-256 of all bytes before that member's line: nothing else
    vouches for a record, and a wrong digit in it would still be JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def encode(self) -> bytes:
        """The stored bytes."""
        tree = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(tree, indent=1, ensure_ascii=False)
        body = text.removesuffix("\n}").encode() + b",\n"
        return body + f' "{_CHECKSUM}": "{sha256(body)}"\n}}\n'.encode()

    @classmethod
    def decode(cls, data: bytes, where: str) -> Self:
        """The record in stored bytes. Raises StoreError naming `where` if any of them is wrong."""
        try:
            tree = json.loads(data)
            if isinstance(tree, dict):
                tree.pop(_CHECKSUM, None)
            record = cls.model_validate(tree)
            whole = record.encode() == data
        except (ValueError, RecursionError) as error:
            if isinstance(error, ValidationError) and _only_more(error) and _vouched(data):
                member = error.errors()[0]["loc"][0]
                raise StoreError(
                    f"{where} was written by a newer egapipe ({member} is not known here): "
                    "upgrade egapipe"
                ) from error
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise StoreError(f"{where} is damaged ({reason}): {cls.remedy()}") from error
        if not whole:
            raise StoreError(f"{where} is damaged (it has not its checksum): {cls.remedy()}")
        return record

    @classmethod
    def remedy(cls) -> str:
        """What the user can do about a damaged record of this kind."""
        return "restore the store from a copy, or extract into another store.url"


class Created(Record):
    """The store exists. sha256: key -> hex of each metadata document and of the index."""

    sha256: dict[str, Hex]


class Commit(Record):
    """One finished shard: rows `start` to `stop` - 1.

    sha256: array -> hex of the stored bytes of its chunk; that of `images`, the list of digests of
    the shard's images, is the identity of these. nonfinite: rows whose teacher output was not
    finite in the stored type; they are among `failures`. seconds: where the time went, by phase.
    versions: of the software that made it. computed: `device`, `precision` and `batch`, what
    else decides the last bits, and `jpeg`, what decoded images on the device, where something did.
    Both are empty in records of older egapipes: nobody knows.
    Everything but `seconds`, `host`, `versions` and `computed` is the same in every run.
    """

    shard: Count
    start: Count
    stop: Count
    sha256: dict[str, Hex]
    nonfinite: Count
    failures: list[Failure]
    seconds: dict[str, float]
    host: str
    versions: dict[str, str] = {}
    computed: dict[str, str] = {}

    @classmethod
    def remedy(cls) -> str:
        """The shard can be made again."""
        return "delete it and run `egapipe extract` again to redo the shard"


class Finished(Record):
    """The store is complete. content: `content_hash`. sha256: hex of `failures.parquet`.

    images: `images_root`, where the store has digests of its images.
    """

    content: Hex
    sha256: dict[str, Hex]
    images: Hex | None = None

    @classmethod
    def remedy(cls) -> str:
        """It is made from the commit records."""
        return "run `egapipe extract` again to finish the store anew"


class Appended(Record):
    """Rows were appended: the store has `rows`, and had `before`. first: the first shard that is
    not one of the store before; the last one of that, where it was not full, is done again."""

    rows: Count
    before: Count
    first: Count


def content_hash(manifest_hash: str, checksums: Iterable[tuple[int, Mapping[str, str]]]) -> str:
    """SHA-256 over the manifest's hash and every shard's checksums: the identity of the content.

    checksums: (shard, array -> hex of the stored bytes of its chunk), by shard.
    """
    digest = hashlib.sha256(manifest_hash.encode())
    for shard, arrays in checksums:
        for name in sorted(arrays):
            digest.update(f"\n{shard} {name} {arrays[name]}".encode())
    return digest.hexdigest()


def images_root(fingerprint: str, checksums: Iterable[tuple[int, Mapping[str, str]]]) -> str:
    """SHA-256 over keys and labels, by their fingerprint, and every shard's digest of its images:
    the identity of the data set that a store was made of."""
    digest = hashlib.sha256(fingerprint.encode())
    for shard, arrays in checksums:
        digest.update(f"\n{shard} {arrays[IMAGES]}".encode())
    return digest.hexdigest()


def checksums_of(commits: Mapping[int, Commit]) -> list[tuple[int, dict[str, str]]]:
    """What `content_hash` takes of the records of shards."""
    return [(shard, commits[shard].sha256) for shard in sorted(commits)]


def failures_of(commits: Mapping[int, Commit]) -> list[Failure]:
    """Failed rows of shards, by row."""
    return [failure for shard in sorted(commits) for failure in commits[shard].failures]


def _only_more(error: ValidationError) -> bool:
    """Whether nothing is wrong but that there are members that are not known here."""
    return all(found["type"] == "extra_forbidden" for found in error.errors())


def _vouched(data: bytes) -> bool:
    """Whether a record, whatever its members, has the checksum that it says."""
    body, _, last = data.rpartition(f' "{_CHECKSUM}": '.encode())
    return last == f'"{sha256(body)}"\n}}\n'.encode()


def sha256(data: Any) -> str:
    """Hex digest of bytes or of a contiguous buffer."""
    return hashlib.sha256(data).hexdigest()
