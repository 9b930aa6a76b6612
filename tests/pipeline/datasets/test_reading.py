"""Trouble of the machine is never recorded as a fact about the data."""

import errno
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from egapipe.pipeline.config.data import WebDatasetSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.datasets.decoding.images import FORMATS, SUFFIXES, decode
from egapipe.pipeline.datasets.files.zips import Zip
from egapipe.pipeline.datasets.kinds.folder import FolderDataset
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import ImageError, MachineError
from tests.pipeline.datasets.samples import encode, folder, images, pixels, write_folder, write_tar

MACHINE = ("ESTALE", "EIO", "EMFILE", "ENFILE", "ETIMEDOUT", "ENOMEM", "EACCES", "ECONNRESET")
MISSING = ("ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "EISDIR")


class Failing(FolderDataset):
    """Opening any of its files fails so often."""

    error: BaseException
    left = 0

    def _read(self, row: int) -> bytes:
        if self.left:
            self.left -= 1
            raise self.error
        return super()._read(row)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def failing(tmp_path: Path) -> Failing:
    write_folder(tmp_path / "set", {f"{i}.png": data for i, data in enumerate(images(3))})
    return Failing(folder(tmp_path / "set"))


def system_error(name: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


TROUBLES = [*map(system_error, MACHINE), MemoryError(), TimeoutError("timed out")]


@pytest.mark.parametrize("error", TROUBLES, ids=repr)
def test_what_passes_is_tried_again(failing: Failing, error: BaseException) -> None:
    failing.error, failing.left = error, 3
    assert failing.image(1).size == (10, 12)


@pytest.mark.parametrize("error", TROUBLES, ids=repr)
def test_what_stays_names_row_and_host_in_one_line(failing: Failing, error: BaseException) -> None:
    failing.error, failing.left = error, 10**6
    with pytest.raises(MachineError) as caught:
        failing.image(1)
    said = str(caught.value)
    assert said.startswith("row 1 (1.png) of data set folder/set cannot be read on ")
    assert os.uname().nodename in said
    assert "\n" not in said
    # Between processes too.
    assert str(pickle.loads(pickle.dumps(caught.value))) == said  # noqa: S301


def test_no_fingerprint_is_made_of_it(failing: Failing) -> None:
    failing.error, failing.left = system_error("EIO"), 10**6
    with pytest.raises(MachineError):
        failing.fingerprint()
    assert not (cache_dir() / "digests").exists()
    failing.left = 0
    assert failing.fingerprint() == open_dataset(failing.source).fingerprint()


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_file_is_a_fact_about_the_data(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise system_error(name)

    monkeypatch.setattr(reading, "read_regular", refuse)
    with pytest.raises(ImageError, match="the file cannot be read: "):
        reading.read_bytes(tmp_path / "0.png")


EXHAUSTED = """
import resource, sys
from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.errors import MachineError
reading.PAUSES = (0.0, 0.0, 0.0)
dataset = open_dataset(FolderSource(kind="folder", path=sys.argv[1]))
what = getattr(resource, sys.argv[2])
before = resource.getrlimit(what)
if sys.argv[2] == "RLIMIT_NOFILE":
    limit = 3
else:
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (1 << 20)
resource.setrlimit(what, (limit, before[1]))
found = []
for ask in (lambda: dataset.image(0), lambda: dataset.encoded(0)):
    try:
        found.append(type(ask()).__name__)
    except MachineError as error:
        found.append(str(error))
resource.setrlimit(what, before)
print("\\n".join(found))
print(dataset.image(0).size[0])
"""


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("RLIMIT_NOFILE", ["Too many open files (EMFILE)"] * 2),
        # The file fits, its pixels do not.
        ("RLIMIT_AS", ["MemoryError", "bytes"]),
    ],
)
def test_a_process_that_runs_out_of_files_or_memory(
    tmp_path: Path, limit: str, said: list[str]
) -> None:
    """Of the real thing, in a process of its own."""
    write_folder(tmp_path, {"0.png": encode(Image.new("RGB", (3000, 3000)))})
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED, str(tmp_path), limit],
        capture_output=True,
        text=True,
        check=True,
    )
    *found, width = done.stdout.splitlines()
    assert width == "3000"
    for line, expected in zip(found, said, strict=True):
        assert expected in line
    assert found[0].startswith("row 0 (0.png) of data set ")


def test_content_that_asks_for_any_memory_is_at_fault_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or one hostile image would end every extraction."""

    def exhaust(*_: object) -> None:
        raise OSError("codec: out of memory")

    encoded = encode(pixels())
    monkeypatch.setattr(Image.Image, "load", exhaust)
    with pytest.raises(ImageError, match="more memory than any image needs"):
        decode(encoded)


def test_a_size_that_a_damaged_index_names_asks_for_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(ImageError, match="ends 1152921504606846974 bytes before"):
        reading.read_slice(tmp_path / "a", 1, 1 << 60)
    assert reading.read_slice(tmp_path / "a", 1, 2) == b"bc"


def test_no_image_is_read_that_is_larger_than_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file, a tar or a zip, whose members are read into memory whole."""
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    members = {"fits.png": b"a" * 100, "more.png": b"b" * 101}
    write_folder(tmp_path, members)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    tar = write_tar(tmp_path / "a.tar", members)
    source = WebDatasetSource(kind="webdataset", files=[str(tar)])
    of_tar, of_zip = open_dataset(source), Zip(tmp_path / "a.zip")
    for read in (
        lambda name: reading.read_bytes(tmp_path / name),
        lambda name: of_tar.encoded(of_tar.keys.index(name.removesuffix(".png"))),
        of_zip.read,
    ):
        assert read("fits.png") == members["fits.png"]
        with pytest.raises(ImageError, match="it is larger than 100 bytes"):
            read("more.png")


def test_every_ending_of_the_formats_is_read() -> None:
    """Of all that Pillow knows, but for floating-point pixels, which have no known range."""
    Image.init()
    known = {e for e, format in Image.registered_extensions().items() if format in FORMATS}
    assert set(SUFFIXES) == known - {".pfm"} | {".pnm"}


@pytest.mark.parametrize("ending", ["jfif", "jpe", "avif", "j2c"])
def test_a_folder_has_the_images_of_rare_endings(tmp_path: Path, ending: str) -> None:
    format = {"avif": "AVIF", "j2c": "JPEG2000"}.get(ending, "JPEG")
    write_folder(tmp_path, {f"a.{ending.upper()}": encode(pixels(), format)})
    assert open_dataset(folder(tmp_path)).image(0).size == (10, 12)
