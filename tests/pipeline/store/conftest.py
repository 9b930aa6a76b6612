import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def make_folder() -> Path:
    """A new folder, in memory where that is possible.

    Stores flush every object and folder; on a disk that is shared, waiting for it is most of what
    these tests would do.
    """
    usable = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="egapipe-", dir=SHARED_MEMORY if usable else None))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node-local folder of this test."""
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[str]:
    """A URL that fsspec opens and that is no file."""
    folder = uuid.uuid4().hex
    yield f"memory://{folder}/train.zarr"
    forget(folder)


def forget(folder: str) -> None:
    """Remove what is below a folder of memory://."""
    for path in [path for path in MemoryFileSystem.store if path.startswith(f"/{folder}/")]:
        del MemoryFileSystem.store[path]


@pytest.fixture(params=["path", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, memory: str) -> str:
    """Where a store may be: a local path, a file:// URL, an fsspec URL."""
    folder = str(tmp_path / "train.zarr")
    return {"path": folder, "file": f"file://{folder}", "memory": memory}[request.param]
