"""What egapipe keeps in a node's cache folder: every kind of it, and how an entry is built once.

An entry is one or more files of one key in the folder of its kind. While it is built, a lock file
of that key is held and its first file has the name `<key>.partial`; it is whole as soon as that is
renamed. What the folder holds otherwise is not egapipe's, and is neither read nor removed.
"""

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from egapipe.pipeline.disk.files import PARTIAL
from egapipe.pipeline.disk.turns import turn
from egapipe.pipeline.errors import StoreError

T = TypeVar("T")

LOCK = ".lock"
REMEDY = "set store.cache_dir or EGAPIPE_CACHE to another folder"
# A used entry says so by its date, for a file system may note no access; once a day is enough.
_TOUCH_SECONDS = 86_400.0
# Small files are written under a name of their own and without a lock: what was not written to for
# so long is of no living process.
_ABANDONED_SECONDS = 3600.0
# What is taken up again may have cost hours, but is not kept for ever where nobody comes back.
_RESUMED_SECONDS = 2 * 86_400.0


@dataclass(frozen=True)
class Kind:
    """A kind of cache. what: for people. folder: its folder's name in the cache folder.

    key: what the key of an entry matches. suffixes: of an entry's files, by which the first one
    decides whether there is one. tree: entries are folders, which are named by the key alone.
    locked: whether they are built under a lock; small files are only written whole. resumed:
    whether what a killed builder left is taken up again, and kept for a while.
    """

    what: str
    folder: str
    key: str
    suffixes: tuple[str, ...]
    tree: bool = False
    locked: bool = True
    resumed: bool = False

    def file(self, root: Path, key: str) -> Path:
        """An entry's first file. root: the cache folder. key: one that `key` matches."""
        return root / self.folder / f"{key}{self.suffixes[0]}"


_HASH, _SHORT = "[0-9a-f]{64}", "[0-9a-f]{32}"
# What is made of features has a name that continues that of the first of them.
NEIGHBOURS = Kind(
    "neighbour table", "features", rf"{_HASH}-.+-nearest\d+-[0-9a-f]{{16}}", (".npy",)
)
FEATURES = Kind("features", "features", rf"{_HASH}-.+", (".arrow",), resumed=True)
STATISTICS = Kind(
    "statistics", "features", rf"{_HASH}-.+-(moments|rotation)-[0-9a-f]{{16}}", (".npz",)
)
ANCHORS = Kind("anchors", "features", rf"{_HASH}-.+-anchors\d+-[0-9a-f]{{16}}", (".npy",))
INDEXES = Kind("index", "indexes", rf"{_HASH}-.+-[a-z]+", (".faiss", ".faiss.json"))
PIXELS = Kind("decoded images", "pixels", _SHORT, (".npy", ".json"))
NODES = Kind("student's nodes", "nodes", _SHORT, (".npz",))
DIGESTS = Kind("digest", "digests", _HASH, ("",), locked=False)
TARS = Kind("tar index", "tars", _HASH, (".parquet",), locked=False)
ARCHIVES = Kind("unpacked archive", "archives", r"[a-z][a-z0-9]*-[0-9a-f]{12}", ("",), tree=True)
# Two copies of a run may be on one machine: the one that a training works in, and what was fetched
# to be read.
RUNS = Kind("copy of a run elsewhere", "runs", rf"run{_HASH}-(?:work|read)", ("",), tree=True)

KINDS = (
    *(NEIGHBOURS, STATISTICS, ANCHORS, FEATURES, INDEXES),
    *(PIXELS, NODES, DIGESTS, TARS, ARCHIVES, RUNS),
)
"""All there are. The first one that knows a file's name has it."""


@dataclass(frozen=True)
class Entry:
    """What is there of one key. files: by name; a folder where the kind is a `tree`.

    bytes: of all files. used: when one was last opened or written to, in seconds since 1970.
    partial: a builder's, which is at work or was killed.
    """

    kind: Kind
    key: str
    files: tuple[Path, ...]
    bytes: int
    used: float
    partial: bool

    def remove(self, *, dry_run: bool = False) -> bool:
        """Remove the entry, unless somebody builds it at this moment; whether it went, or would go.

        Readers that have it mapped keep it until they end. Its lock file stays: removing that would
        let two processes hold a lock of one name. Raises OSError.
        """
        lock = lock_of(self.kind, self.files[0].parent, self.key)
        # Who only looks leaves no lock file behind: without one nobody builds.
        locked = self.kind.locked and (lock.exists() or not dry_run)
        holding = FileLock(lock, timeout=0) if locked else nullcontext()
        with suppress(Timeout), holding:
            for file in self.files if not dry_run else ():
                _remove(file)
            return True
        return False


def lock_of(kind: Kind, folder: Path, key: str) -> Path:
    """The lock file of a key. folder: of the kind."""
    # An archive's lock is that of all its versions: they are downloaded to one file.
    return folder / (f".{key.rpartition('-')[0]}{LOCK}" if kind.tree else f"{key}{LOCK}")


def entries(root: Path, kinds: Collection[Kind] = KINDS) -> list[Entry]:
    """Everything that egapipe has made in a cache folder, by kind and key. Raises OSError."""
    found: dict[tuple[int, str, bool], list[Path]] = defaultdict(list)
    for folder in sorted({kind.folder for kind in kinds}):
        for path in _listed(root / folder):
            known = owner(path.relative_to(root))
            if known is None or path.name.endswith(LOCK):
                continue
            kind, key, partial = known
            # A link was not made by egapipe, whatever it is called.
            if not path.is_symlink() and path.is_dir() == kind.tree:
                found[KINDS.index(kind), key, partial].append(path)
    listed = (_entry(KINDS[n], key, paths, partial) for (n, key, partial), paths in found.items())
    return sorted(filter(None, listed), key=lambda e: (KINDS.index(e.kind), e.key, e.partial))


def owner(path: Path) -> tuple[Kind, str, bool] | None:
    """Kind and key of a file, and whether it is a builder's unfinished one; None if it is not ours.

    path: relative to the cache folder. Lock files are their key's.
    """
    if len(path.parts) < 2:
        return None
    for kind in KINDS:
        if kind.folder == path.parts[0] and (kind.tree or len(path.parts) == 2):
            match = _name(kind).fullmatch(path.parts[1])
            if match is not None:
                return kind, match["key"] or match["archive"], bool(match["partial"])
    return None


def is_abandoned(entry: Entry) -> bool:
    """Whether a builder's unfinished file is of no living one, as far as its name and date say.

    One that is written under its key's lock is judged by the lock.
    """
    locked = all(file.name == f"{entry.key}{PARTIAL}" for file in entry.files)
    return locked or entry.used < time.time() - _ABANDONED_SECONDS


def build_once(
    kind: Kind, path: Path, known: Callable[[], T | None], build: Callable[[Path], object]
) -> T:
    """What an entry holds; it is built by the first process that asks, while others wait.

    path: its first file, see `Kind.file`. known: opens what is there; None if there is nothing or
    it is damaged, and then it is built. build: writes the first file to the path that it is given,
    and others of the entry whole to their places. A process that is killed leaves nothing that
    counts. Raises StoreError if the folder cannot be written, and what `known` and `build` do.
    """
    result = known()
    if result is None:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with turn(path.with_suffix(LOCK), f"{kind.what} {path}"):
                result = known()
                if result is None:
                    remove_abandoned(kind, path.parent, _RESUMED_SECONDS if kind.resumed else 0)
                    _build(kind, path, build)
                    result = known()
        if result is None:
            raise StoreError(f"{path} does not hold what was written to it: {REMEDY}")
    touch(path)
    return result


def touch(path: Path) -> None:
    """Note that an entry is used, where its date may be set."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
            os.utime(path)


def remove_abandoned(kind: Kind, folder: Path, idle: float = 0) -> None:
    """Remove what killed builders left in the folder of a kind. idle: seconds for which it was not
    written to. What is being built stays. Raises OSError."""
    # That of the key that is being built stays too, for its lock is taken, and is written over.
    for entry in entries(folder.parent, [kind]):
        if entry.partial and is_abandoned(entry) and entry.used <= time.time() - idle:
            entry.remove()


def _build(kind: Kind, path: Path, build: Callable[[Path], object]) -> None:
    # Its lock file has the same name but for the suffix.
    partial = path.with_suffix(PARTIAL)
    try:
        build(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        if not kind.resumed:
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one line why a cache cannot be written, and what to do."""
    # The store's own modules import this one.
    from egapipe.pipeline.store.objects.base import unusable

    try:
        yield
    except OSError as error:
        raise unusable("write", str(path), error, REMEDY) from error


def _name(kind: Kind) -> re.Pattern[str]:
    suffixes = "|".join(map(re.escape, kind.suffixes))
    own = rf"\.{_SHORT}{re.escape(PARTIAL)}"  # see `whole_file`
    unfinished = rf"(?P<partial>(?:{suffixes}){own}|{re.escape(PARTIAL)}(?:{own})?)"
    if kind.tree:
        # What is unpacked lies in a folder of `tempfile` at first, beside the lock of the archive.
        return re.compile(
            rf"(?P<key>{kind.key})|\.(?P<archive>{kind.key})(?P<partial>\.[^.]+)"
            rf"|\.(?:[a-z][a-z0-9]*){LOCK}"
        )
    return re.compile(
        rf"(?P<key>{kind.key})(?P<archive>)(?:{unfinished}|{suffixes}|{re.escape(LOCK)})"
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entry(kind: Kind, key: str, paths: list[Path], partial: bool) -> Entry | None:
    """None if it has gone meanwhile: a builder may have renamed it."""
    try:
        below = [f for path in paths for f in (path.rglob("*") if kind.tree else [path])]
        status = [file.stat() for file in below if file.is_file()]
        # Looking into a folder is an access to it.
        changed = [path.stat().st_mtime for path in paths]
    except FileNotFoundError:
        return None
    used = max(*changed, *(max(s.st_atime, s.st_mtime) for s in status), 0.0)
    size = sum(s.st_size for s in status)
    return Entry(kind, key, tuple(paths), size, used, partial)


def _remove(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    # Whoever opens it finds all of it or nothing, also where this process is killed.
    aside = path.with_name(f".{path.name}.removed") if path.name[0] != "." else path
    path.replace(aside)
    shutil.rmtree(aside)
