"""Stores on the Hugging Face hub: `push` sends what is not there, `pull` brings and checks them."""

import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.filesize import decimal

from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.locations.hub import Content, Repository, There, is_plain
from egapipe.pipeline.store.commands.check import CheckReport, check_store
from egapipe.pipeline.store.find import DEPTH, find_stores
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.pipeline.store.objects.location import Place, open_objects

CARD = "README.md"
_FOLDERS = (layout.COMMITS, layout.INDEX.partition("/")[0], layout.APPENDED)
Told = Callable[[int, int], None]
"""Is told of files done, and planned."""


@dataclass(frozen=True)
class Pushed:
    """stores: their paths in the repository, empty for one at its top. sent: files that were not
    there before, of `files`."""

    url: str
    stores: list[str]
    files: int
    sent: int


def push_stores(
    place: Place, repository: Repository, *, private: bool = False, told: Told | None = None
) -> Pushed:
    """Send the stores at a place. Run it again after an interruption: it continues.

    Manifests go first and records last, as when a store is written. Raises UsageError (no store
    there, a file that is none of a store's, or another store in the repository), StoreError or
    EgapipeError.
    """
    files: dict[str, Content] = {}
    stores = []
    root = open_objects(place)
    for found in find_stores(place):
        if isinstance(found, StoreError):
            raise found
        prefix = found.url.removeprefix(root.url).strip("/")
        stores.append(prefix)
        files |= {_joined(prefix, key): one for key, one in _contents(found).items()}
    if not stores:
        raise UsageError(f"no store at {root.url}, nor up to {DEPTH} folders below it")
    repository.create(private=private)
    there = repository.files()
    _refuse_others(files, there, stores, repository)
    # Those that an earlier state of the store had, and nothing else of the repository.
    gone = [path for path in there if path not in files and _of_store(path, stores, files)]
    if CARD not in there:
        files[CARD] = Content.of_bytes(_card(stores, repository).encode())
    ordered = dict(sorted(files.items(), key=lambda item: (_turn(item[0]), item[0])))
    total = len(ordered)
    sent = repository.send(
        ordered,
        message="egapipe store push",
        there=there,
        gone=gone,
        told=None if told is None else lambda done: told(done, total),
    )
    return Pushed(repository.url, stores, total, sent)


@dataclass(frozen=True)
class Pulled:
    """folder: where the stores are. reports: what `store check` says of each."""

    folder: Path
    commit: str
    reports: list[CheckReport]


def pull_stores(repository: Repository, folder: Path, *, told: Told | None = None) -> Pulled:
    """Bring the stores of a repository into a new folder, which appears when all of them passed
    `store check`. Run it again after an interruption: it continues.

    Nothing else of the repository is brought. Raises UsageError (no store there, something is at
    the folder, another process is pulling there, too little space), StoreError (a store is not what
    its records say; nothing is kept) or EgapipeError.
    """
    folder = folder.absolute()
    beside = folder.with_name(f".{folder.name}.pulling")
    _require_new(folder)
    with alone(beside):
        # Another process may have been the first.
        _require_new(folder)
        commit = repository.commit()
        wanted = wanted_files(repository.files(commit))
        if not wanted:
            raise UsageError(f"there is no store of egapipe in {repository.url}")
        _require_room(beside, sum(one.size for one in wanted.values()))
        tell = told or (lambda done, planned: None)
        tell(0, len(wanted))
        for done, _ in enumerate(repository.bring(list(wanted), commit, beside), 1):
            tell(done, len(wanted))
        # Of an earlier commit, if an interrupted pull was of that.
        _remove_others(beside, wanted)
        found = list(find_stores(beside))
        reports = [check_store(one) for one in found if not isinstance(one, StoreError)]
        problems = [str(one) for one in found if isinstance(one, StoreError)]
        problems += [problem for report in reports for problem in report.problems]
        if problems or not reports:
            shutil.rmtree(beside)
            raise StoreError(
                f"what was pulled from {repository.url} is not a store as it was written, nothing "
                f"is kept: {problems[0] if problems else 'it cannot be opened'}"
            )
        beside.rename(folder)
    for report in reports:
        report.url = str(folder) + report.url.removeprefix(str(beside))
    return Pulled(folder, commit, reports)


def wanted_files(there: Mapping[str, There]) -> dict[str, There]:
    """The files of stores among those of a repository.

    Raises UsageError if one of them would lie outside of the folder that they are put into.
    """
    made = {path for path in there if path == layout.CREATED or path.endswith(f"/{layout.CREATED}")}
    stores = [path.removesuffix(layout.CREATED).strip("/") for path in made]
    stores = [s for s in stores if _joined(s, layout.GROUP) in there and s.count("/") < DEPTH]
    # What was appended to a store is no store of its own.
    stores = [s for s in stores if f"/{layout.APPENDED}/" not in f"/{s}"]
    wanted = {path: one for path, one in sorted(there.items()) if _of_store(path, stores, there)}
    for path in wanted:
        if not is_plain(path):
            raise UsageError(
                f"the repository has a file {path!r} in a store, which no store has: nothing was "
                "pulled"
            )
    return wanted


def _of_store(path: str, stores: list[str], known: Container[str]) -> bool:
    """Whether a file is one of a store's: at the top of a repository others lie beside them.

    known: all paths; a folder is of a store if it is an array.
    """
    for store in stores:
        if store and not path.startswith(f"{store}/"):
            continue
        first, slash, _ = path.removeprefix(f"{store}/" if store else "").partition("/")
        if not slash:
            return first in (layout.GROUP, layout.FAILURES, layout.COMMIT_TABLE)
        return first in _FOLDERS or _joined(store, first, layout.GROUP) in known
    return False


def _joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _contents(objects: Objects) -> dict[str, Content]:
    """Every object of a store."""
    contents = {}
    for key, size in objects.sizes().items():
        if layout.leftover_of(key):
            continue
        if isinstance(objects, LocalObjects):
            root = Path(objects.url)
            contents[key] = Content.of_file(root / key, root)
        else:
            contents[key] = Content(size, partial(_bytes, objects, key))
    return contents


def _bytes(objects: Objects, key: str) -> bytes:
    data = objects.get(key)
    if data is None:
        raise StoreError(f"{objects.url}/{key} is gone: is somebody changing the store?")
    return data


def _refuse_others(
    files: Mapping[str, Content],
    there: Mapping[str, There],
    stores: list[str],
    repository: Repository,
) -> None:
    for store in stores:
        path = _joined(store, layout.GROUP)
        if path in there and not files[path].is_the_same(there[path]):
            raise UsageError(
                f"{repository.url} has another store at {store or 'its top'}: choose another "
                "repository"
            )


def _turn(path: str) -> int:
    """Manifests, then what is stored, what vouches for it, and that appended rows count."""
    if path.endswith(f"/{layout.COUNTS}"):
        return 4
    if path.endswith(layout.GROUP):
        return 0
    name = path.rpartition("/")[2]
    vouches = f"{layout.COMMITS}/" in path or name in (layout.FAILURES, layout.COMMIT_TABLE)
    if path.endswith(layout.FINISHED):
        return 3
    return 2 if vouches else 1


def _card(stores: list[str], repository: Repository) -> str:
    names = ", ".join(f"`{store}`" for store in stores if store) or "at the top"
    return (
        "---\ntags:\n- egapipe\n- embeddings\n- knowledge-distillation\n---\n\n"
        f"# {repository.name}\n\nEmbeddings of a frozen teacher, extracted once, to distil "
        f"students from. Stores of egapipe: {names}.\n\n```sh\n"
        f"egapipe store pull {repository.name} stores/NAME\n```\n"
    )


def _remove_others(beside: Path, wanted: Mapping[str, There]) -> None:
    shutil.rmtree(beside / ".cache", ignore_errors=True)
    for file in [path for path in beside.rglob("*") if path.is_file() or path.is_symlink()]:
        if file.relative_to(beside).as_posix() not in wanted:
            file.unlink()


def _require_room(beside: Path, size: int) -> None:
    here = sum(file.stat().st_size for file in beside.rglob("*") if file.is_file())
    free = shutil.disk_usage(beside).free
    if size - here > free:
        raise UsageError(
            f"the stores take {decimal(size)}, and {beside.parent} has {decimal(free)} left: make "
            "room or choose another place"
        )


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder} is there already: name a new folder")


@contextmanager
def alone(beside: Path) -> Iterator[None]:
    """The beside folder, made if it is not there, for one process at a time.

    The lock is the system's, on the folder itself: it is gone with the process, and leaves no file.
    """
    try:
        handle = _own(beside)
    except OSError as error:
        raise UsageError(f"cannot write {beside}: {error.strerror}") from None
    try:
        yield
    finally:
        os.close(handle)


def _own(beside: Path) -> int:
    """A locked descriptor of the folder that has this name. Raises OSError, UsageError."""
    try:
        import fcntl
    except ImportError:
        raise UsageError("this system has no flock: pull stores on Linux or macOS") from None
    while True:
        beside.mkdir(parents=True, exist_ok=True)
        handle = os.open(beside, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have renamed or removed it meanwhile.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), beside.stat()):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"another process is pulling to {beside.parent}: wait for it"
            ) from None
        os.close(handle)
