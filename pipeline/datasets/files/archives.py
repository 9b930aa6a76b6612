"""Official archives: where they are, their checksums, and how they become files to read from."""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from filelock import FileLock

from egapipe.pipeline.config.data import ArchiveSource
from egapipe.pipeline.datasets.files.download import fetch
from egapipe.pipeline.datasets.kinds.binaries import open_cifar100, open_stl10
from egapipe.pipeline.datasets.kinds.tinyimagenet import TinyImageNetDataset
from egapipe.pipeline.datasets.rows import RowsDataset
from egapipe.pipeline.disk.caches import ARCHIVES as ARCHIVES_CACHE
from egapipe.pipeline.disk.caches import lock_of, touch
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import path_of, with_variables
from egapipe.pipeline.terminal.progress import open_progress

_CHUNK_BYTES = 1 << 20


class Archive(NamedTuple):
    """An archive. `members` are unpacked from a tar; without any the archive is read as it is."""

    url: str
    checksum: str
    members: frozenset[str]
    open: Callable[[ArchiveSource, Path], RowsDataset]


# CIFAR-100's MD5 stands on its download page. STL-10's and TinyImageNet's pages give none: these
# are the ones that the public loaders check (torchvision for STL-10).
ARCHIVES = {
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "md5:03b5dce01913d631647c71ecec9e9cb8",
        frozenset({"train.bin", "test.bin", "fine_label_names.txt"}),
        open_cifar100,
    ),
    "stl10": Archive(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "md5:91f7769df0f17e558f3565bffb0c7dfb",
        frozenset(
            {
                *("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
                *("unlabeled_X.bin", "class_names.txt"),
            }
        ),
        open_stl10,
    ),
    "tinyimagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "md5:90528d7ca1a48142e341f4ef8d21d0de",
        frozenset(),
        TinyImageNetDataset,
    ),
}


def open_archive(source: ArchiveSource) -> RowsDataset:
    """The data set of an archive, downloaded and unpacked at the first time on this node.

    Raises UsageError: it cannot be downloaded, has another checksum, or another layout.
    """
    if source.folder is not None:
        folder = str(path_of(source.folder).absolute())
        source = source.model_copy(update={"folder": folder})
    return ARCHIVES[source.name].open(source, _prepared(source))


def _prepared(source: ArchiveSource) -> Path:
    """The folder with the archive's files: whole, or absent. Raises UsageError.

    It is named by the archive's checksum, so that another archive is another folder. An
    archive that was downloaded is not kept beside its content.
    """
    archive = ARCHIVES[source.name]
    checksum = f"sha256:{source.sha256}" if source.sha256 else archive.checksum
    url = with_variables(source.url) if source.url else archive.url
    root = Path(source.folder) if source.folder else cache_dir() / ARCHIVES_CACHE.folder
    ready = root / f"{source.name}-{checksum.partition(':')[2][:12]}"
    if ready.is_dir():
        touch(ready)
        return ready
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_of(ARCHIVES_CACHE, root, ready.name)):
            if not ready.is_dir():
                # By its published name, which is how somebody without a network brings it.
                file = root / PurePosixPath(archive.url).name
                downloaded = fetch(url, file, checksum)
                try:
                    _prepare(file, archive.members, ready)
                finally:
                    # Not beside its content; but what the user brought stays the user's.
                    if downloaded:
                        file.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or root}: {error.strerror}") from None
    return ready


def _prepare(file: Path, members: frozenset[str], ready: Path) -> None:
    """Make the folder, whole at once. Call it under the lock."""
    for killed in ready.parent.glob(f".{ready.name}.*"):
        shutil.rmtree(killed)
    with tempfile.TemporaryDirectory(dir=ready.parent, prefix=f".{ready.name}.") as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        if members:
            _unpack(file, members, content)
        else:
            shutil.copy2(file, content)
        os.replace(content, ready)


def _unpack(file: Path, members: frozenset[str], content: Path) -> None:
    """Copy the named members, and nothing else, under their own names. Raises UsageError."""
    missing = set(members)
    try:
        with (
            open(file, "rb") as raw,
            tarfile.open(fileobj=raw, mode="r:*") as tar,
            open_progress(f"unpack {file.name}", _mb(file.stat().st_size), unit="MB") as progress,
        ):
            for member in tar:
                name = PurePosixPath(member.name).name
                data = tar.extractfile(member) if member.isreg() and name in missing else None
                if data is None:
                    continue
                missing.discard(name)
                with open(content / name, "wb") as out:
                    while chunk := data.read(_CHUNK_BYTES):
                        out.write(chunk)
                        progress.update(_mb(raw.tell()))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UsageError(f"archive {file} cannot be unpacked: {error}") from None
    if missing:
        raise UsageError(f"archive {file} has no {', '.join(sorted(missing))}: is it another one?")


def _mb(size: int) -> int:
    return round(size / 1e6)
