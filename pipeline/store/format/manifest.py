"""The manifest: what a store holds, decided before the first image is read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.places import FILES, is_place, same_place
from egapipe.pipeline.store.format.dtypes import DtypeName
from egapipe.pipeline.store.format.stored import RUNTIME, StoredViews, unknown_members
from egapipe.pipeline.store.records.record import IMAGES

FORMAT = 1
ATTRIBUTE = "egapipe"
_LONG = 72


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _canonical(value: Any) -> Any:
    """The JSON form, keys sorted: equal content is then equal bytes (a tuple is a list)."""
    return json.loads(json.dumps(value, sort_keys=True, allow_nan=False))


def _stored(value: Any) -> Any:
    return StoredViews.of(value) if isinstance(value, ViewsConfig) else value


Json = Annotated[dict[str, Any], BeforeValidator(_canonical)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Size = Annotated[int, Field(ge=1)]
Pair = tuple[str | None, str | None]
Leaves = dict[str, Any]


class Parent(_Record):
    """The store that this one has grown from. content: its content hash."""

    rows: Size
    content: str


class DatasetRecord(_Record):
    """The images a store was made from."""

    name: str
    fingerprint: str
    """SHA-256 over keys and labels: `listing_fingerprint`; where `images` is None over the bytes of
    all images, too: `Dataset.fingerprint()`."""
    rows: Size
    images: Literal["sha256"] | None = None
    """`sha256`: the array `images` has the SHA-256 of each image's bytes, as whoever encoded it has
    read them. None, and not there in a file: the fingerprint covers them."""
    parent: Parent | None = None
    """Of a store that has grown; of others it is not there in a file."""

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        return {key: value for key, value in tree.items() if value is not None}


class Manifest(_Record):
    """The identity of a store: a difference is another store, but for what only describes it.

    Descriptions are the data set's name, versions of software, and where a teacher's files lie.

    teacher, preprocessing: JSON objects. outputs: name -> shape of one embedding; each becomes one
    Zarr array [N, V, *shape] with V = `view_count`. shard_rows: rows a shard.
    """

    format: Literal[1] = 1
    dataset: DatasetRecord
    teacher: Json
    preprocessing: Json
    views: Annotated[StoredViews, BeforeValidator(_stored)]
    views_hash: str
    """`egapipe.pipeline.views.plan_hash(views)` of the code that made the views."""
    outputs: Annotated[
        dict[Name, tuple[Size, ...]], BeforeValidator(_canonical), Field(min_length=1)
    ]
    dtype: DtypeName
    shard_rows: Size
    versions: Annotated[dict[str, str], BeforeValidator(_canonical)]
    """Of the software that began the store; each shard's record has those that made the shard."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        own = {"index", "commits"} | ({IMAGES} if self.dataset.images else set())
        taken = own & self.outputs.keys()
        if taken:
            raise ValueError(f"an output cannot be called {sorted(taken)[0]!r}")
        return self

    @model_validator(mode="after")
    def _partners(self) -> Self:
        if self.views.among(self.rows) > self.rows:
            raise ValueError("the partners of mixed views are among more rows than there are")
        return self

    @property
    def arrays(self) -> list[str]:
        """Names of the stored arrays: the outputs, and the images' digests where there are any."""
        return [*self.outputs, *([IMAGES] if self.dataset.images else [])]

    @property
    def rows(self) -> int:
        """N, the rows of the data set."""
        return self.dataset.rows

    @property
    def view_count(self) -> int:
        """V, the clean view and the augmented ones."""
        return self.views.count + 1

    @property
    def plan(self) -> ViewsConfig:
        """The view plan, for replaying the views."""
        return self.views.plan()

    def hash(self) -> str:
        """SHA-256 of the whole manifest in canonical form, see `canonical` and docs/store.md."""
        return hashlib.sha256(canonical(self.model_dump(mode="json")).encode()).hexdigest()

    def asking(self, **members: Any) -> "Manifest":
        """The same manifest with other members, in the form in which they are stored."""
        return Manifest.model_validate({**self.model_dump(mode="json"), **members})

    def differences(self, other: "Manifest", *, loaded: bool = False) -> list[str]:
        """What `other` asks for and this manifest does not have, a phrase each."""
        changes = self.changes(other, loaded=loaded)
        return [_difference(key, *pair) for key, pair in changes.items()]

    def software(self, other: "Manifest") -> list[str]:
        """Where `other` is of other software, a phrase each."""
        mine, theirs = _all_leaves(self), _all_leaves(other)
        changes = {k: p for k, p in _changes(mine, theirs).items() if _is_software(k)}
        return [f"{k} is {old}, here it is {new}" for k, (old, new) in changes.items()]

    def changes(
        self, other: "Manifest", *, descriptions: bool = False, loaded: bool = False
    ) -> dict[str, Pair]:
        """Dotted key -> (its value here, in `other`) where they differ, sorted by key.

        Values are shown as text, shortened; None where the key is not set. `views_hash` is left out
        where the views that it is the hash of are listed. descriptions: list them too. loaded:
        whether the weights' digests of both come from loading them, so that equal ones are a proof.
        """
        mine, theirs = _all_leaves(self), _all_leaves(other)
        changed = _changes(mine, theirs)
        if not descriptions:
            left_out = {k for k in changed if k == "dataset.name" or _is_software(k)}
            left_out |= _moved(mine, theirs, loaded)
            changed = {k: pair for k, pair in changed.items() if k not in left_out}
        if any(key.startswith("views.") for key in changed):
            changed.pop("views_hash", None)
        return changed


def canonical(tree: Any) -> str:
    """The one text of a JSON value, as docs/store.md specifies it.

    As RFC 8785, except that names are sorted by code point and a number is written as Python does:
    an integer without a point, a float always with a point or an exponent.
    """
    return json.dumps(
        tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


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
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise _refusal(error, url) from error
    unknown = next(unknown_members(manifest.teacher), None)
    if unknown is not None:
        raise _newer(url, unknown)
    return manifest


def group_attributes(group: bytes) -> dict[str, Any] | None:
    """Attributes of a Zarr group from its `zarr.json`; None if these bytes are no JSON."""
    try:
        tree = json.loads(group)
    except (ValueError, RecursionError):
        return None
    attributes = tree.get("attributes") if isinstance(tree, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def _refusal(error: ValidationError, url: str) -> StoreError:
    """What an older egapipe says of a newer manifest, or any of one that makes no sense."""
    errors = error.errors()
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    # Nothing is missing and nothing is impossible: there only is more than is known here.
    if all(found["type"] in ("extra_forbidden", "literal_error") for found in errors):
        return _newer(url, where)
    return StoreError(
        f"store {url} has a damaged manifest ({where}: {first['msg']}): "
        "restore the store from a copy, or extract into another store.url"
    )


def _newer(url: str, member: str) -> StoreError:
    return StoreError(
        f"store {url} was written by a newer egapipe ({member} is not known here): "
        "upgrade egapipe, or point store.url elsewhere"
    )


def _all_leaves(manifest: Manifest) -> Leaves:
    return dict(_leaves(manifest.model_dump(mode="json")))


def _changes(mine: Leaves, theirs: Leaves) -> dict[str, Pair]:
    return {
        k: (_shown(mine, k), _shown(theirs, k))
        for k in sorted(mine.keys() | theirs.keys())
        if mine.get(k, _leaves) != theirs.get(k, _leaves)
    }


def _is_software(key: str) -> bool:
    of_teacher = key.startswith("teacher.") and key.endswith(f".{RUNTIME}")
    return of_teacher or key.partition(".")[0] == "versions"


def _moved(mine: Leaves, theirs: Leaves, loaded: bool) -> set[str]:
    """Keys that say where a teacher's files lie, or what is in them, and do not make it another.

    Where both have a checksum of the files, that one decides; else that of the weights, where both
    were loaded; else the two places must be one.
    """
    moved = set()
    for key in mine.keys() & theirs.keys():
        if not key.startswith("teacher.") or not key.endswith((".model", ".pretrained")):
            continue
        files = files_key(key)
        weights = files.removesuffix(FILES) + "sha256"
        place = is_place(str(mine[key])) or is_place(str(theirs[key]))
        if files in mine and files in theirs:
            moved |= {key} if place and mine[files] == theirs[files] else set()
            # Who has read the weights says so, and need not repeat that their files differ.
            moved |= {files} if mine.get(weights) != theirs.get(weights) else set()
        else:
            proof = loaded and place and mine.get(weights) == theirs.get(weights) is not None
            same = proof or same_place(mine[key], theirs[key])
            moved |= {files} | ({key} if same else set())
    return moved


def files_key(model: str) -> str:
    """Of the key `teacher.model`, or `teacher.teachers.a.model`: where the checksum stands."""
    path = model.split(".")[:-1]
    return ".".join(["members" if part == "teachers" else part for part in path] + [FILES])


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
