"""Growth: rows that were appended to a finished store, in a folder of their own within it.

Nothing of the store before is written to. Its whole shards are those of the grown store, too; rows
of its last shard, where that was not full, are done again beside the new ones. `appended/000001/`
holds these shards, and manifest, index and records of all rows. It counts from when
`appended/000001/appended.json` is there; until then whoever opens the store has what it was before.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.records.record import Appended

_SHARD = re.compile(rf"(?:{layout.COMMITS}/(\d+)\.json|[^/]+/c/(\d+)(?:/\d+)*)")


class Extended(Objects):
    """The objects of a store that has grown, under the keys of one that was made at once.

    root: of the store at first. before: as it was before the last rows were appended. number: of
    the append, from 1. first: the first shard that is not that of `before`.
    """

    def __init__(self, root: Objects, before: Objects, number: int, first: int) -> None:
        super().__init__(root.url)
        self.root, self.before, self.number, self.first = root, before, number, first
        self.own = root.below(layout.appended_folder(number))

    @property
    def home(self) -> Objects:
        """Where what is appended lies."""
        return self.own

    @property
    def published(self) -> bool:
        """Whether it counts."""
        return self.own.get(layout.COUNTS) is not None

    def publish(self, rows: int, before: int) -> None:
        """Let it count. rows: that it has. before: rows of the store that it grew from."""
        record = Appended(rows=rows, before=before, first=self.first)
        self.own.put(layout.COUNTS, record.encode())

    def located(self, key: str) -> str:
        """See `Objects`."""
        at = self._at(key)
        inner = at.located(key)
        return inner if at is self.before else f"{layout.appended_folder(self.number)}/{inner}"

    def below(self, name: str) -> Objects:
        """The objects in a folder of what is appended."""
        return self.own.below(name)

    def get(self, key: str) -> bytes | None:
        """See `Objects`."""
        return self._at(key).get(key)

    def get_many(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """See `Objects`; the keys of one place that follow each other at once."""
        for at, some in groupby(keys, self._at):
            yield from at.get_many(list(some))

    def part(self, key: str, start: int, stop: int) -> bytes | None:
        """See `Objects`."""
        return self._at(key).part(key, start, stop)

    def put(self, key: str, data: bytes) -> None:
        """See `Objects`."""
        self._at(key).put(key, data)

    def put_vouched(self, key: str, data: bytes, sha256: str) -> bool:
        """See `Objects`."""
        return self._at(key).put_vouched(key, data, sha256)

    def create(self, key: str, data: bytes) -> bool:
        """See `Objects`."""
        return self._at(key).create(key, data)

    def delete(self, key: str) -> None:
        """See `Objects`."""
        self._at(key).delete(key)

    def age(self, key: str) -> float:
        """See `Objects`."""
        return self._at(key).age(key)

    def names(self) -> list[str]:
        """First path components of what is appended."""
        return self.own.names()

    def folders(self) -> list[str]:
        """Folders of what is appended."""
        return self.own.folders()

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """See `Objects`: what is appended, and shards and their records of the store before."""
        earlier = self.before.sizes(prefix)
        found = {key: size for key, size in earlier.items() if self._is_earlier(key)}
        return dict(sorted({**found, **self.own.sizes(prefix)}.items()))

    def is_trouble(self, error: Exception) -> bool:
        """See `Objects`."""
        return self.own.is_trouble(error)

    def failure(self, doing: str, where: str, error: Exception) -> StoreError:
        """See `Objects`."""
        return self.own.failure(doing, where, error)

    def _at(self, key: str) -> Objects:
        return self.before if self._is_earlier(key) else self.own

    def _is_earlier(self, key: str) -> bool:
        """Whether it is a shard's of the store before, or the record of one."""
        found = _SHARD.fullmatch(layout.leftover_of(key) or key)
        return found is not None and int(found.group(1) or found.group(2)) < self.first


def newest(root: Objects, rows: int | None = None) -> Objects:
    """The objects of a store with all that was appended to it, and counts.

    rows: of the state of it that is asked for, if it ever had so many. Raises StoreError if a
    record is damaged.
    """
    states = list(_states(root))
    found = [objects for objects, count in states if count == rows]
    return found[-1] if found else states[-1][0]


def next_state(state: Objects, first: int) -> Extended:
    """Where rows are appended to the newest state of a store. first: shard that is done there."""
    if isinstance(state, Extended):
        return Extended(state.root, state, state.number + 1, first)
    return Extended(state, state, 1, first)


def _states(root: Objects) -> Iterator[tuple[Objects, int | None]]:
    """What a store has been, oldest first, with its rows where a record says them."""
    state, number = root, 1
    while True:
        key = layout.appended_key(number)
        data = root.get(key)
        if data is None:
            break
        record = Appended.decode(data, f"{root.url}/{key}")
        if number == 1:
            yield root, record.before
        state = Extended(root, state, number, record.first)
        yield state, record.rows
        number += 1
    if number == 1:
        yield root, None
