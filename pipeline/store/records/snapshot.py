"""A snapshot: what of a store was there when its records were listed."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.create import require_equal, require_software
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.manifest import Manifest
from egapipe.pipeline.store.records.commits import Commits, decode_commits
from egapipe.pipeline.store.records.failures import decode_failures
from egapipe.pipeline.store.records.record import (
    IMAGES,
    Commit,
    Failure,
    Finished,
    checksums_of,
    content_hash,
    failures_of,
    images_root,
    sha256,
)

if TYPE_CHECKING:
    from egapipe.pipeline.store.store import FeatureStore

Checksums = Sequence[tuple[int, Mapping[str, str]]]

_RUN_EXTRACT = "run `egapipe extract` to finish it"


class Snapshot:
    """The records of a store at one moment. Take it with `FeatureStore.snapshot`.

    It costs one listing. Of a finished store three more objects are read, whatever the number of
    shards, when it is asked for more than `pending`; of an unfinished one, and of those that older
    egapipes have finished, every record. Each at most once.

    sizes: key -> bytes of what was listed, the records among it.
    """

    def __init__(self, store: "FeatureStore", sizes: Mapping[str, int]) -> None:
        self.store = store
        self.sizes = sizes

    @cached_property
    def committed(self) -> list[int]:
        """Shards that have a record."""
        return [i for i in range(len(self.store.shards)) if layout.commit_key(i) in self.sizes]

    @cached_property
    def pending(self) -> list[int]:
        """Shards to be written: planned minus committed."""
        return sorted(set(range(len(self.store.shards))).difference(self.committed))

    @property
    def rows(self) -> int:
        """Rows of the finished shards."""
        return sum(len(self.store.shards[shard]) for shard in self.committed)

    @cached_property
    def commits(self) -> Mapping[int, Commit]:
        """The record of every finished shard. Raises StoreError if one is damaged."""
        return self._vouched if self._vouched is not None else self._records

    @cached_property
    def complete(self) -> bool:
        """Whether every shard is committed and the store was finished since."""
        if self._vouched is not None:
            return True
        record, failures, table = self._end
        if table is not None or record is None or failures is None or self.pending:
            return False
        return record == self.finished_record(failures).encode()

    @cached_property
    def failures(self) -> list[Failure]:
        """Failed rows of all committed shards, by row."""
        if self._vouched is not None:
            return self._vouched.failures
        return failures_of(self.commits)

    @cached_property
    def computed(self) -> list[dict[str, str]]:
        """What shards were computed on, each kind once; nothing of those of older egapipes."""
        kinds: list[dict[str, str]] = []
        for commit in self.commits.values():
            if commit.computed and commit.computed not in kinds:
                kinds.append(commit.computed)
        return kinds

    def content_hash(self) -> str:
        """SHA-256 of the manifest and of every shard: the identity of the content.

        Raises StoreError if a shard is missing.
        """
        return content_hash(self.store.manifest.hash(), self._checksums())

    def embeddings_hash(self) -> str:
        """SHA-256 of every shard's embeddings alone, whatever the manifest says of them and of
        which images they were. Raises as `content_hash`."""
        outputs = self.store.manifest.outputs
        embeddings = (
            (shard, {name: digest for name, digest in arrays.items() if name in outputs})
            for shard, arrays in self._checksums()
        )
        return content_hash("", embeddings)

    def images_root(self) -> str | None:
        """The identity of the images that the store was made of; None where the manifest has it.

        Raises StoreError if a shard is missing.
        """
        dataset = self.store.manifest.dataset
        return images_root(dataset.fingerprint, self._checksums()) if dataset.images else None

    def image_digests(self) -> list[str]:
        """Digest of the images of every shard, of a store that has them; raises likewise."""
        return [arrays[IMAGES] for _, arrays in self._checksums()]

    def finished_record(self, failures: bytes) -> Finished:
        """The record that all this is complete, and vouches for the table of failures.

        Raises StoreError if a shard is missing.
        """
        return _finished(self.store.manifest, self._checksums(), failures)

    def require_continued(self, manifest: Manifest, *, same_software: bool) -> None:
        """Raise StoreError, with the differences, if the store is not that of a manifest.

        same_software: also if other software has begun what is not finished; else that is logged.
        """
        stored = self.store.manifest
        require_equal(stored, manifest, self.store.url)
        if stored.software(manifest) and self.pending:
            require_software(stored, manifest, self.store.url, same=same_software)

    def require_complete(self) -> None:
        """Raise StoreError if the store is not complete."""
        if not self.complete:
            self.require_all()
            raise StoreError(f"store {self.store.url} is not complete: {_RUN_EXTRACT}")

    def require_all(self) -> None:
        """Raise StoreError if a shard is missing."""
        done, planned = len(self.committed), len(self.store.shards)
        if done < planned:
            raise StoreError(
                f"store {self.store.url} is not complete ({done} of {planned} shards): "
                f"{_RUN_EXTRACT}"
            )

    def _checksums(self) -> Checksums:
        self.require_all()
        vouched = self._vouched
        return checksums_of(self.commits) if vouched is None else vouched.checksums()

    @cached_property
    def _records(self) -> dict[int, Commit]:
        """Read one by one. A record that is gone by now is none."""
        shards = self.committed
        found = self.store.objects.get_many(map(layout.commit_key, shards))
        pairs = zip(shards, found, strict=True)
        return {shard: self.store.decode(shard, data) for shard, data in pairs if data is not None}

    @cached_property
    def _end(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The record that the store is finished, its failures and its table of records."""
        keys = [layout.FINISHED, layout.FAILURES, layout.COMMIT_TABLE]
        if self.pending or layout.FINISHED not in self.sizes:
            return None, None, None
        record, failures, table = self.store.objects.get_many(keys)
        return record, failures, table

    @cached_property
    def _vouched(self) -> Commits | None:
        """The table of records, where the last record vouches for it: a shard may have been redone
        since, also by an egapipe that knows no table."""
        record, failures, table = self._end
        if record is None or failures is None or table is None:
            return None
        try:
            listed = decode_failures(failures, layout.FAILURES)
            commits = decode_commits(table, listed, layout.COMMIT_TABLE)
        except StoreError:
            return None
        lengths = [self.sizes[layout.commit_key(shard)] for shard in self.committed]
        if commits.record_bytes != lengths:
            return None
        ours = _finished(self.store.manifest, commits.checksums(), failures)
        return commits if record == ours.encode() else None


def _finished(manifest: Manifest, checksums: Checksums, failures: bytes) -> Finished:
    """The record that a store of some shards is complete. failures: bytes of their table."""
    dataset = manifest.dataset
    return Finished(
        content=content_hash(manifest.hash(), checksums),
        sha256={layout.FAILURES: sha256(failures)},
        images=images_root(dataset.fingerprint, checksums) if dataset.images else None,
    )
