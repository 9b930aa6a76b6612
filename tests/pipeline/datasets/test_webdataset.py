import gzip
import io
import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.config.data import WebDatasetSource
from egapipe.pipeline.datasets import UNLABELLED, Dataset, open_dataset
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import ImageError, UsageError
from tests.pipeline.datasets.samples import encode, images, member, pixels, write_tar

PNG = encode(pixels())


def opened(*tars: Path, **fields: Any) -> Dataset:
    files = [str(tar) for tar in tars]
    return open_dataset(WebDatasetSource(kind="webdataset", files=files, **fields))


def labels(dataset: Dataset) -> dict[str, int]:
    return dict(zip(dataset.keys, dataset.labels.tolist(), strict=True))


def values(dataset: Dataset) -> dict[str, str | None]:
    """Names of the classes."""
    names = [*(dataset.classes or []), None]
    return {key: names[label] for key, label in labels(dataset).items()}


def test_members_of_one_name_are_one_sample(tmp_path: Path) -> None:
    data = images(3)
    tar = write_tar(
        tmp_path / "train-0.tar",
        {
            "./b/1.jpg": data[0],
            "./b/1.cls": b"7\n",
            "a/2.json": b'{"label": 3, "caption": "x"}',
            "a/2.PNG": data[1],
            "3.webp": data[2],
            "3.txt": b"a caption",
        },
    )
    dataset = opened(tar)
    assert values(dataset) == {"b/1": "7", "a/2": "3", "3": None}
    assert [dataset.encoded(row) for row in range(3)] == data
    np.testing.assert_array_equal(np.asarray(dataset.image(1)), pixels(1))
    assert dataset.name == "webdataset/train-0"
    assert dataset.labels.dtype == np.int64


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_and_long_names(tmp_path: Path, format: int) -> None:
    name = f"{'folder/' * 12}{'ä' * 20 if format != tarfile.USTAR_FORMAT else 'a'}"
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as tar:
        tar.addfile(member(f"{name}.png", len(PNG)), io.BytesIO(PNG))
    dataset = opened(tmp_path / "a.tar")
    assert list(dataset.keys) == [name]
    assert dataset.encoded(0) == PNG


def test_rows_go_tar_by_tar_and_patterns_are_sorted(tmp_path: Path) -> None:
    data = images(4)
    for n in (1, 0, 2):
        write_tar(tmp_path / f"t{n}.tar", {f"{n}.png": data[n]})
    extra = write_tar(tmp_path / "extra[0].tar", {"e.png": data[3]})
    dataset = opened(extra, tmp_path / "t*.tar")
    assert list(dataset.keys) == ["e", "0", "1", "2"]
    assert [dataset.encoded(row) for row in range(4)] == [data[3], *data[:3]]
    assert list(opened(tmp_path / "t*.tar", limit={"rows": 2, "choose": "first"}).keys) == [
        "0",
        "1",
    ]


def test_names_that_repeat_need_the_tars_name(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{n}.tar", {"0.png": PNG}) for n in "ab"]
    with pytest.raises(
        UsageError, match=r"sample '0' is in both .*a.tar and .*b.tar: list each once, or set"
    ):
        opened(*tars)
    assert list(opened(*tars, tar_in_key=True).keys) == ["a/0", "b/0"]


def test_which_of_several_images(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": PNG, "0.png": PNG, "0.seg.png": b"mask"})
    with pytest.raises(
        UsageError, match=r"sample '0' has several images \(jpg, png\): set `image`"
    ):
        opened(tar)
    assert opened(tar, image="png").encoded(0) == PNG
    assert opened(tar, image="seg.png").encoded(0) == b"mask"


def test_class_names_from_the_configuration(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.cls": b"1"})
    assert opened(tar, class_names=["cat", "dog"]).classes == ["cat", "dog"]
    with pytest.raises(UsageError, match="webdataset/a has the label 1 and names for 1 classes"):
        opened(tar, class_names=["cat"])


def test_a_label_from_another_field(tmp_path: Path) -> None:
    content = json.dumps({"label": "cat", "class_id": 4}).encode()
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.json": content})
    assert values(opened(tar, label_field="class_id")) == {"0": "4"}
    assert labels(opened(tar, label_field="absent")) == {"0": UNLABELLED}
    assert values(opened(tar)) == {"0": "cat"}


@pytest.mark.parametrize(
    ("name", "contents", "names"),
    [
        ("cls", [b"cat", b"ant\n", b"cat"], ["ant", "cat"]),
        ("cls", [b"1000", b"5", b"-1"], ["5", "1000"]),
        ("cls", [b"10", b"b", b"10"], ["10", "b"]),
        ("json", [b'{"label": true}', b'{"label": false}', b"{}"], ["false", "true"]),
        ("json", [b'{"label": 1e3}', b'{"label": 5.0}', b'{"label": null}'], ["5", "1000"]),
    ],
)
def test_classes_are_named_by_what_is_there(
    tmp_path: Path, name: str, contents: list[bytes], names: list[str]
) -> None:
    members = {f"{row}.png": PNG for row in range(3)}
    members |= {f"{row}.{name}": content for row, content in enumerate(contents)}
    dataset = opened(write_tar(tmp_path / "a.tar", members))
    assert dataset.classes == names
    assert dataset.numbered == names[0].isdecimal() if "b" not in names else not dataset.numbered


def test_names_that_the_configuration_does_not_have(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.cls": b"cat"})
    with pytest.raises(
        UsageError, match=r"webdataset/a: class 'cat' is not among class_names \(dog"
    ):
        opened(tar, class_names=["dog", "ant"])
    assert opened(tar, class_names=["dog", "cat"]).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("0.cls", b"-2", "is '-2'"),
        ("0.cls", b"", "is ''"),
        ("0.cls", b"9" * 30, "is '999"),
        ("0.cls", b"a\nb", "labels are names or whole numbers"),
        ("0.json", b'{"label": 1.5}', "is '1.5'"),
        ("0.json", b'{"label": [1]}', "is '[1]'"),
        ("0.json", b"\x80\x04N.", "'0.json' is not JSON"),
        ("0.json", b"[" * 100_000, "'0.json' is not JSON"),
    ],
)
def test_a_label_that_is_no_number(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, name: content})
    with pytest.raises(UsageError) as caught:
        opened(tar)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_member_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    evil = pickle.dumps(Bomb())
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.pkl": evil, "0.pyd": evil, "1.jpg": evil})
    dataset = opened(tar)
    with pytest.raises(ImageError, match="not an image"):
        dataset.image(1)
    assert dataset.image(0).mode == "RGB"
    assert not (tmp_path / "executed").exists()


def test_samples_without_a_readable_image_are_rows_that_fail(tmp_path: Path) -> None:
    link = member("link.png", kind=tarfile.SYMTYPE)
    link.linkname = "/etc/hostname"
    tar = write_tar(
        tmp_path / "a.tar",
        {"0.png": PNG, "1.cls": b"4", "1.npy": b"x", "2.png": b"", "3.png": PNG[:-30]},
        link,
        member("folder.png", kind=tarfile.DIRTYPE),
    )
    dataset = opened(tar)
    reasons = {}
    for row, key in enumerate(dataset.keys):
        try:
            dataset.image(row)
        except ImageError as error:
            reasons[key] = str(error).partition(":")[0]
    assert reasons == {
        "1": "no image among its members (cls, npy)",
        "2": "the file is empty",
        "3": "damaged",
        "link": "the image is a link or a device, not a file",
    }
    assert values(dataset)["1"] == "4"
    assert len(dataset) == 5


def test_hidden_files_and_files_without_an_ending_are_no_samples(tmp_path: Path) -> None:
    names = ["a.png", "._a.png", "x/.DS_Store", "README"]
    assert list(opened(write_tar(tmp_path / "a.tar", dict.fromkeys(names, PNG))).keys) == ["a"]


def test_every_truncation_is_found(tmp_path: Path) -> None:
    """At each block of 512 bytes and in between: never fewer rows without a word."""
    whole = write_tar(tmp_path / "a.tar", {"0.png": PNG, "1.png": PNG, "1.cls": b"3"})
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + 512
    for size in sorted({*range(0, end, 512), *range(100, end, 700), end}):
        whole.write_bytes(data[:size])
        with pytest.raises(UsageError, match="truncated") as caught:
            opened(whole)
        assert "\n" not in str(caught.value)
    whole.write_bytes(data[: end + 512])
    assert len(opened(whole)) == 2


def test_a_damaged_header_is_found(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "1.png": PNG})
    with tarfile.open(tar) as read:
        second = read.getmembers()[1].offset
    data = bytearray(tar.read_bytes())
    data[second] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UsageError, match=f"truncated or damaged at byte {second:,}"):
        opened(tar)


def test_mistakes_in_one_line(tmp_path: Path) -> None:
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", {"0.png": PNG}).read_bytes()))
    cases = {
        packed: "is compressed, which has no random access",
        tmp_path / "absent-*.tar": "no tar matches",
        tmp_path: "cannot be read: Is a directory",
        write_tar(tmp_path / "texts.tar", {"0.txt": b"a"}): r"no image that can be read: .*\(txt\)",
        write_tar(tmp_path / "empty.tar", {}): "has no images",
    }
    for path, said in cases.items():
        with pytest.raises(UsageError, match=said):
            opened(path)
    double = tmp_path / "double.tar"
    with tarfile.open(double, "w") as tar:
        for _ in range(2):
            tar.addfile(member("0.png", len(PNG)), io.BytesIO(PNG))
    with pytest.raises(UsageError, match=r"has the member '0.png' twice"):
        opened(double)


def test_the_index_is_made_once(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.cls": b"1"})
    opened(tar)
    # Another question is another index.
    opened(tar, label_field="other")
    first, second = (cache_dir() / "tars").iterdir()
    # What is remembered is taken: the tar is not scanned again.
    for entry in (first, second):
        pq.write_table(pq.read_table(entry).slice(0, 0), entry)
    with pytest.raises(UsageError, match="has no images"):
        opened(tar)


def test_another_tar_of_the_same_size_and_time_is_indexed_again(tmp_path: Path) -> None:
    """As `cp -a` leaves it."""
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG, "0.cls": b"1"})
    other = write_tar(tmp_path / "b.tar", {"0.png": PNG, "0.cls": b"0"})
    for file in (tar, other):
        os.utime(file, (1_600_000_000, 1_600_000_000))
    assert values(opened(tar)) == {"0": "1"}
    tar.write_bytes(other.read_bytes())
    os.utime(tar, (1_600_000_000, 1_600_000_000))
    assert values(opened(tar)) == {"0": "0"}


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG})
    opened(tar)
    (entry,) = (cache_dir() / "tars").iterdir()
    entry.write_bytes(b"not parquet")
    assert list(opened(tar).keys) == ["0"]


def test_a_tar_that_shrinks_gives_image_errors(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"0.png": PNG})
    dataset = opened(tar)
    os.truncate(tar, 600)
    with pytest.raises(ImageError, match="bytes before the image does"):
        dataset.encoded(0)
    tar.unlink()
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        dataset.encoded(0)


def test_threads_and_other_processes_read_the_same(tmp_path: Path, monkeypatch) -> None:
    data = images(20)
    write_tar(tmp_path / "a.tar", {f"{n}.png": image for n, image in enumerate(data)})
    monkeypatch.chdir(tmp_path)
    dataset = opened(Path("a.tar"))
    monkeypatch.chdir("/")
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    received = pickle.loads(sent)  # noqa: S301
    rows = np.random.default_rng(0).integers(0, 20, 500).tolist()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(received.encoded, rows))
    assert seen == [data[row] for row in rows]


def test_the_fingerprint_covers_the_samples_not_the_tars(tmp_path: Path) -> None:
    a, b, c = images(3)
    one = write_tar(tmp_path / "one.tar", {"0.png": a, "1.png": b, "1.cls": b"2"})
    two = [
        write_tar(tmp_path / "x.tar", {"0.png": a}),
        write_tar(tmp_path / "y.tar", {"1.png": b, "1.cls": b"2"}),
    ]
    other = write_tar(tmp_path / "z.tar", {"0.png": a, "1.png": c, "1.cls": b"2"})
    assert opened(one).fingerprint() == opened(*two).fingerprint()
    assert opened(one).fingerprint() != opened(other).fingerprint()
