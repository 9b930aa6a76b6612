"""The manifest: what a store holds, decided before the first image is read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.dtypes import DtypeName

FORMAT = 1
ATTRIBUTE = "egapipe"
_LONG = 72


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _canonical(value: Any) -> Any:
    """The JSON form, keys sorted: equal content is then equal bytes (a tuple is a list)."""
    return json.loads(json.dumps(value, sort_keys=True, allow_nan=False))


Json = Annotated[dict[str, Any], BeforeValidator(_canonical)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Size = Annotated[int, Field(ge=1)]
Pair = tuple[str | None, str | None]


class DatasetRecord(_Record):
    """The images a store was made from."""

    name: str
    fingerprint: str
    """`Dataset.fingerprint()`: SHA-256 over keys, labels and image bytes."""
    rows: Size


class Manifest(_Record):
    """The identity of a store: any difference is another store.

    teacher, preprocessing: JSON objects. outputs: name -> shape of one embedding; each becomes one
    Zarr array [N, V, *shape] with V = `view_count`. shard_rows: rows a shard.
    """

    format: Literal[1] = 1
    dataset: DatasetRecord
    teacher: Json
    preprocessing: Json
    views: ViewsConfig
    views_hash: str
    """`egapipe.pipeline.views.plan_hash(views)` of the code that made the views."""
    outputs: Annotated[
        dict[Name, tuple[Size, ...]], BeforeValidator(_canonical), Field(min_length=1)
    ]
    dtype: DtypeName
    shard_rows: Size
    versions: Annotated[dict[str, str], BeforeValidator(_canonical)]
    """Of the software that decides the stored bytes."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        taken = {"index", "commits"} & self.outputs.keys()
        if taken:
            raise ValueError(f"an output cannot be called {sorted(taken)[0]!r}")
        return self

    @property
    def rows(self) -> int:
        """N, the rows of the data set."""
        return self.dataset.rows

    @property
    def view_count(self) -> int:
        """V, the clean view and the augmented ones."""
        return self.views.count + 1

    def hash(self) -> str:
        """SHA-256 of the whole manifest, as JSON with sorted keys and no spaces."""
        tree = self.model_dump(mode="json")
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: "Manifest", *, versions: bool) -> list[str]:
        """What `other` asks for and this manifest does not have, a phrase each.

        versions: whether versions count. They do as long as a store is unfinished: two versions
        in one store would be two kinds of rows.
        """
        changes = self.changes(other, versions=versions)
        return [_difference(key, *pair) for key, pair in changes.items()]

    def changes(self, other: "Manifest", *, versions: bool = True) -> dict[str, Pair]:
        """Dotted key -> (its value here, in `other`) where they differ, sorted by key.

        Values are shown as text, shortened; None where the key is not set. `views_hash` is left out
        where the views that it is the hash of are listed.
        """
        left_out = set() if versions else {"versions"}
        mine, theirs = (
            dict(_leaves(m.model_dump(mode="json", exclude=left_out))) for m in (self, other)
        )
        changed = [
            k
            for k in sorted(mine.keys() | theirs.keys())
            if mine.get(k, _leaves) != theirs.get(k, _leaves)
        ]
        if any(key.startswith("views.") for key in changed):
            changed = [key for key in changed if key != "views_hash"]
        return {key: (_shown(mine, key), _shown(theirs, key)) for key in changed}


def manifest_of(group: bytes, url: str) -> Manifest:
    """The manifest in the bytes of a store's `zarr.json`.

    Raises StoreError if it is no group of this format.
    """
    tree = group_attributes(group)
    if tree is None or not isinstance(tree.get(ATTRIBUTE), dict):
        raise StoreError(f"{url} is not an egapipe store: point store.url elsewhere")
    content = tree[ATTRIBUTE]
    if content.get("format") != FORMAT:
        raise StoreError(
            f"store {url} has format {content.get('format')!r}, this egapipe reads {FORMAT}: "
            "install the egapipe that wrote it, or point store.url elsewhere"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"store {url} has a damaged manifest ({where}: {first['msg']}): "
            "restore the store from a copy, or extract into another store.url"
        ) from error


def group_attributes(group: bytes) -> dict[str, Any] | None:
    """Attributes of a Zarr group from its `zarr.json`; None if these bytes are no JSON."""
    try:
        tree = json.loads(group)
    except (ValueError, RecursionError):
        return None
    attributes = tree.get("attributes") if isinstance(tree, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(key: str, mine: str | None, theirs: str | None) -> str:
    has = "is not set" if mine is None else f"is {mine}"
    asks = "does not set it" if theirs is None else f"asks for {theirs}"
    return f"{key} {has}, the config {asks}"


def _shown(leaves: Mapping[str, Any], key: str) -> str | None:
    if key not in leaves:
        return None
    text = repr(leaves[key])
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
