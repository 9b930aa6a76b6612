"""One feature store: create it, write its shards in any order from any process, read it."""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import pyarrow as pa

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.create import (
    create_store,
    open_store,
    require_equal,
    require_same_rows,
)
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.chunks import Chunks
from egapipe.pipeline.store.format.dtypes import Floats, Stored
from egapipe.pipeline.store.format.index import Rows, StoredIndex
from egapipe.pipeline.store.format.manifest import Manifest
from egapipe.pipeline.store.format.shard import prepare_shard
from egapipe.pipeline.store.growth import Extended, newest
from egapipe.pipeline.store.lock import locked
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.location import Place, open_objects
from egapipe.pipeline.store.records.commits import encode_commits
from egapipe.pipeline.store.records.digests import Digests, changed_rows, image_digests
from egapipe.pipeline.store.records.failures import encode_failures
from egapipe.pipeline.store.records.record import IMAGES, Commit, Created, Failure, Finished
from egapipe.pipeline.store.records.snapshot import Snapshot

_RUN_EXTRACT = "run `egapipe extract` to finish it"


class FeatureStore:
    """Embeddings of N rows in V views, as Zarr arrays [N, V, *shape] at a URL.

    It carries the URL and the manifest. It may be pickled, and used after a fork or a spawn: the
    process that writes opens zarr itself.
    """

    def __init__(self, objects: Objects, manifest: Manifest, created: Created) -> None:
        self.manifest = manifest
        self.created = created
        self.objects = objects
        self.chunks = Chunks(objects, manifest, created)
        self.shards = layout.plan_shards(manifest.rows, manifest.shard_rows)
        self.listing = StoredIndex(objects, created, manifest.rows)
        self._reopened = False

    @classmethod
    def create(
        cls, place: Place, manifest: Manifest, index: Rows, *, same_software: bool = False
    ) -> Self:
        """A new store, or an equal one that exists, to be continued.

        index: row int64 (0 to N - 1), key string (unique), label int64 (-1 = none), source string;
        a table, or anything else that gives a part of one at a time.
        same_software: refuse to continue what other versions have begun, which is else only logged.
        Raises StoreError if the place holds anything else, and lists the differences.
        """
        objects = newest(open_objects(place))
        create_store(objects.home, manifest, index)
        store = cls(objects, *open_store(objects))
        require_equal(store.manifest, manifest, store.url)
        require_same_rows(store.listing, index, store.url)
        if store.manifest.software(manifest):
            store.snapshot().require_continued(manifest, same_software=same_software)
        return store

    @classmethod
    def open(cls, place: Place, rows: int | None = None) -> Self:
        """The store at a place, complete or not, with all rows that were appended to it.

        rows: of the state of it that is asked for, if it ever had so many: what was appended later
        is not in it. Raises StoreError if there is none.
        """
        return cls.at(newest(open_objects(place), rows))

    @classmethod
    def at(cls, objects: Objects) -> Self:
        """The store of some objects, whatever has been appended to it and whether that counts."""
        return cls(objects, *open_store(objects))

    @classmethod
    def exists(cls, place: Place) -> bool:
        """Whether a store was created at a place; it may be unfinished."""
        return open_objects(place).get(layout.CREATED) is not None

    @property
    def url(self) -> str:
        """Where it is; a local path is absolute."""
        return self.objects.url

    def snapshot(self, *, everything: bool = False) -> Snapshot:
        """What of the store is there now. everything: list all objects, not the records alone."""
        return Snapshot(self, self.objects.sizes("" if everything else layout.COMMITS))

    def commits(self) -> Mapping[int, Commit]:
        """The record of every finished shard. Raises StoreError if one is damaged."""
        return self.snapshot().commits

    def commit(self, shard: int) -> Commit | None:
        """The record of a shard, None if it is not finished. Raises StoreError if it is damaged."""
        self._rows_of(shard)
        data = self.objects.get(layout.commit_key(shard))
        return None if data is None else self.decode(shard, data)

    def pending(self) -> list[int]:
        """Shards to be written: planned minus committed."""
        return self.snapshot().pending

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other extractions away for the length of a block.

        Whoever hands out shards holds it, not those who write them. Raises StoreError if another
        process has it.
        """
        return locked(self.objects)

    def write_shard(
        self,
        shard: int,
        arrays: Mapping[str, Floats],
        *,
        failures: Sequence[Failure] = (),
        seconds: Mapping[str, float] | None = None,
        versions: Mapping[str, str] | None = None,
        computed: Mapping[str, str] | None = None,
        images: Mapping[int, bytes] | None = None,
    ) -> Commit:
        """Store a whole shard: its data, then its commit record.

        arrays: output -> float32 [rows, V, *shape]. failures: rows without an embedding; they are
        stored as NaN. A row with a value that is not finite in the stored type becomes one too.
        seconds: time by phase, recorded together with the time of this call as `write`. versions:
        of the software that made the arrays. computed: on which device they were, see `Commit`.
        images: row -> SHA-256 of its image's bytes, 32 of them, for a store that keeps them; rows
        that could not be read are left out.

        One writer a shard; different shards may be written by different processes at once. A shard
        that is committed is left as it is, and its record returned. Raises IndexError if no such
        shard is planned, ValueError if the arguments are not of it, StoreError if the bytes cannot
        be stored, or the shard was committed with other images.
        """
        started = time.perf_counter()
        rows = self._rows_of(shard)
        digests = image_digests(rows, images or {}) if self.manifest.dataset.images else None
        done = self.commit(shard)
        if done is not None:
            if digests is not None:
                self.require_images(done, digests)
            return done
        if not self._reopened or self._is_earlier(shard):
            self.reopen(shard)
        ready = prepare_shard(self.manifest, rows, arrays, failures, self.keys, digests)
        checksums = {n: self.chunks.write(shard, n, b) for n, b in ready.blocks.items()}
        commit = Commit(
            shard=shard,
            start=rows.start,
            stop=rows.stop,
            sha256=checksums,
            nonfinite=ready.nonfinite,
            failures=ready.failures,
            seconds={**(seconds or {}), "write": round(time.perf_counter() - started, 6)},
            host=socket.gethostname(),
            versions=dict(versions or {}),
            computed=dict(computed or {}),
        )
        return self._recorded(commit)

    def _recorded(self, commit: Commit) -> Commit:
        """Put the record of a shard that was written, unless another run has put one of the same
        bytes meanwhile: what `finish` has listed of a record is not to change."""
        key = layout.commit_key(commit.shard)
        if self.objects.create(key, commit.encode()):
            return commit
        other = self.commit(commit.shard)
        if (
            other is not None
            and other.sha256 == commit.sha256
            and other.failures == commit.failures
        ):
            return other
        self.objects.put(key, commit.encode())
        return commit

    def reopen(self, shard: int | None = None) -> None:
        """Remove the record that the store is finished, before a shard is done again.

        shard: the one. What the store was before rows were appended may have it, too.

        Whoever hands out shards does so before the first one. Who writes one does it once until
        `finish`: a store is finished when all that write to it are done.
        """
        if self.objects.get(layout.FINISHED) is not None:
            self.objects.delete(layout.FINISHED)
        self._reopened = True
        if isinstance(self.objects, Extended) and shard is not None and self._is_earlier(shard):
            self.at(self.objects.before).reopen(shard)

    def forget_failed(self) -> list[int]:
        """Make every shard that has recorded failures pending again, and return them.

        Of a store that has grown only those that were appended: the others are of what it was, too.
        Only records go: a shard without one does not count, whatever its data are, and a store of
        such shards is not complete. Whoever calls it keeps other extractions away, see `exclusive`.
        """
        commits = self.commits()
        failed = [
            shard
            for shard in sorted(commits)
            if commits[shard].failures and not self._is_earlier(shard)
        ]
        if failed:
            self.reopen()
        for shard in failed:
            self.objects.delete(layout.commit_key(shard))
        return failed

    def finish(self) -> None:
        """Complete the store: list its failures and its records, and remove what killed writers
        left.

        Only temporary files of this store's own objects are removed. Records are read once; a store
        that is complete is left as it is. Raises StoreError if a shard is missing.
        """
        self._reopened = False
        found = self.snapshot(everything=True)
        found.require_all()
        self._remove_leftovers(found.sizes)
        if not found.complete:
            self._end(found)
        parent = self.manifest.dataset.parent
        if isinstance(self.objects, Extended) and parent is not None:
            # Whoever made one of its shards again has left it unfinished.
            earlier = self.at(self.objects.before)
            if not earlier.complete:
                earlier.finish()
            if not self.objects.published:
                self.objects.publish(self.manifest.rows, parent.rows)

    def _end(self, found: Snapshot) -> None:
        commits, failures = found.commits, encode_failures(found.failures)
        # What vouches for the others comes last.
        for key, data in (
            (layout.FAILURES, failures),
            (layout.COMMIT_TABLE, encode_commits(commits)),
            (layout.FINISHED, found.finished_record(failures).encode()),
        ):
            # An interrupted `finish` may have put it.
            if self.objects.get(key) != data:
                self.objects.put(key, data)

    @property
    def published(self) -> bool:
        """Whether its rows count: of what was appended, whether that was finished once."""
        return not isinstance(self.objects, Extended) or self.objects.published

    @property
    def complete(self) -> bool:
        """Whether every shard is committed and `finish` has been called since."""
        return self.snapshot().complete

    def finished(self) -> Snapshot:
        """The snapshot of a complete store. Raises StoreError if it is not complete."""
        found = self.snapshot()
        found.require_complete()
        return found

    def read_shard(self, shard: int, name: str = "embedding") -> Stored:
        """[rows, V, *shape] in the stored type (bfloat16 as uint16), read-only.

        Raises StoreError if the shard is missing or its bytes have not the recorded checksum.
        """
        self.require_output(name)
        commit = self.commit(shard)
        if commit is None:
            raise StoreError(f"store {self.url} has no shard {shard} yet: {_RUN_EXTRACT}")
        return self.chunks.read(commit, name)[: len(self.shards[shard])]

    def read_digests(self, commit: Commit) -> Digests:
        """[rows, 32] uint8: the SHA-256 of the bytes of each image of a shard, of a store that has
        them; zeros where none could be read.

        Raises StoreError if they are missing or have not the recorded checksum.
        """
        return self.chunks.read(commit, IMAGES)[: len(self.shards[commit.shard])]

    def require_images(self, commit: Commit, digests: Digests) -> None:
        """Raise StoreError, which names the row, if a shard was made of other images than those of
        some digests, [rows, 32]. Rows of which one of both has none are not compared."""
        if self.chunks.digest(IMAGES, digests) == commit.sha256[IMAGES]:
            return
        changed = changed_rows(self.read_digests(commit), digests)
        if len(changed):
            row = commit.start + int(changed[0])
            record = self.objects.located(layout.commit_key(commit.shard))
            raise StoreError(
                f"shard {commit.shard} of store {self.url} was made of other images on "
                f"{commit.host} than there are on {socket.gethostname()}: {len(changed)} of "
                f"{len(digests)} differ, the first is row {row} ({self.keys([row])[0]}): give both "
                f"hosts the same images; if those of {commit.host} are wrong, delete "
                f"{record} there and run `egapipe extract` again"
            )

    def read_view(self, row: int, view: int, name: str = "embedding") -> Stored:
        """[*shape]: one view of one row, in the stored type, without reading the rest of its shard.

        No checksum is over so few bytes. Raises StoreError if they are not there.
        """
        self.require_output(name)
        shard = row // self.manifest.shard_rows
        return self.chunks.read_view(shard, row - self._rows_of(shard).start, view, name)

    def require_output(self, name: str) -> None:
        """Raise StoreError, listing the arrays there are, unless `name` is one of them."""
        if name not in self.manifest.outputs:
            outputs = ", ".join(self.manifest.outputs)
            raise StoreError(f"store {self.url} has no array {name!r}: it has {outputs}")

    def index(self) -> pa.Table:
        """Columns row int64, key string, label int64 (-1 = none), source string; N rows."""
        return self.listing.table()

    def keys(self, rows: Sequence[int]) -> list[str]:
        """Keys of some rows; of the index is read what has them, if there are any."""
        return self.listing.keys(rows)

    def failures(self) -> list[Failure]:
        """Failed rows of all committed shards, by row."""
        return self.snapshot().failures

    def content_hash(self) -> str:
        """SHA-256 of the manifest and of every shard: the identity of the content.

        Raises StoreError if a shard is missing.
        """
        return self.snapshot().content_hash()

    def ended(self) -> Finished | None:
        """The last record, None if the store was never finished.

        One small object: shards that were removed since do not show. Raises StoreError if it is
        damaged.
        """
        record = self.objects.get(layout.FINISHED)
        where = self.objects.named(layout.FINISHED)
        return None if record is None else Finished.decode(record, where)

    def decode(self, shard: int, data: bytes) -> Commit:
        """The record in the stored bytes of a shard's. Raises StoreError if it is damaged, or is
        not what its name says."""
        where = self.objects.named(layout.commit_key(shard))
        commit = Commit.decode(data, where)
        rows = self.shards[shard]
        if (commit.shard, commit.start, commit.stop) != (shard, rows.start, rows.stop):
            raise StoreError(f"{where} is damaged (it is of another shard): {Commit.remedy()}")
        if commit.sha256.keys() != set(self.manifest.arrays):
            raise StoreError(f"{where} is damaged (it has other arrays): {Commit.remedy()}")
        if not all(rows.start <= failure.row < rows.stop for failure in commit.failures):
            raise StoreError(
                f"{where} is damaged (it has a failure of another shard): {Commit.remedy()}"
            )
        return commit

    def _is_earlier(self, shard: int) -> bool:
        """Whether a shard is one of the store before rows were appended."""
        return isinstance(self.objects, Extended) and shard < self.objects.first

    def _rows_of(self, shard: int) -> range:
        # A negative number would count from the end, and overwrite another shard's chunk.
        if not 0 <= shard < len(self.shards):
            raise IndexError(f"shard {shard} is not in 0..{len(self.shards) - 1}")
        return self.shards[shard]

    def _remove_leftovers(self, keys: Iterable[str]) -> None:
        planned = layout.planned_keys(self.manifest)
        for key in keys:
            if layout.leftover_of(key) in planned:
                self.objects.delete(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reopened": False}

    def __repr__(self) -> str:
        return f"FeatureStore({self.url!r})"
