"""The hub kind, without a network: local folders, the offline error, and `datasets`' own cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from tests.pipeline.datasets.samples import images, write_folder, write_parquet

IMAGES = images(5)
COMMIT = "0123456789abcdef0123456789abcdef01234567"

OPEN = """
import json, pickle, sys
from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError

answers = []
for fields in json.load(sys.stdin):
    try:
        dataset = open_dataset(HubSource(kind="hub", **fields))
        dataset = pickle.loads(pickle.dumps(dataset))
        answers.append([dataset.name, dataset.source.revision, dataset.labels.tolist()])
    except UsageError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder laid out as a hub repository."""
    root = tmp_path / "animals"
    (root / "data").mkdir(parents=True)
    write_parquet(root / "data" / "train-00000.parquet", IMAGES[:3], label=[0, 1, 2])
    write_parquet(root / "data" / "test-00000.parquet", IMAGES[3:], label=[1, 0])
    return root


def hub(name: Path | str, **fields: object) -> HubSource:
    return HubSource.model_validate({"kind": "hub", "name": str(name), **fields})


def mistake(source: HubSource) -> str:
    with pytest.raises(UsageError) as caught:
        open_dataset(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def open_offline(cache: Path, *sources: dict[str, object]) -> list[object]:
    """What another process, which knows no network, makes of hub sources."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", OPEN],
        input=json.dumps(sources),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[object] = json.loads(done.stdout)
    return answers


def test_a_local_folder_in_the_layout_of_a_repository(repository: Path) -> None:
    train, test = (open_dataset(hub(repository, split=split)) for split in ("train", "test"))
    assert train.name == "animals/train"
    assert [train.encoded(row) for row in range(3)] == IMAGES[:3]
    assert list(test.keys) == ["test/00000000", "test/00000001"]
    assert test.labels.tolist() == [1, 0]


def test_all_splits_together(repository: Path) -> None:
    dataset = open_dataset(hub(repository, split="all"))
    rows = {key: dataset.encoded(row) for row, key in enumerate(dataset.keys)}
    expected = [f"train/{row:08d}" for row in range(3)] + [f"test/{row:08d}" for row in range(2)]
    assert rows == dict(zip(expected, IMAGES, strict=True))


def test_mistakes_in_one_line(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "Unknown split \"dev\". Should be one of ['train', 'test']" in mistake(
        hub(repository, split="dev")
    )
    assert "BuilderConfig 'other' not found. Available: ['default']" in mistake(
        hub(repository, config="other")
    )
    assert "doesn't contain any data files" in mistake(hub(tmp_path / "empty"))
    assert mistake(hub("./absent")) == "data set folder ./absent does not exist"
    assert "use `kind: parquet`" in mistake(hub("parquet"))
    assert "use `kind: folder`" in mistake(hub("imagefolder"))


def test_a_script_in_a_repository_is_never_run(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (repository / "animals.py").write_text(f"open({str(ran)!r}, 'w')")
    assert "animals.py" in mistake(hub(repository))
    assert not ran.exists()


def test_a_repository_of_image_files(tmp_path: Path) -> None:
    files = {f"train/{'cat' if row % 2 else 'dog'}/{row}.png": IMAGES[row] for row in range(4)}
    dataset = open_dataset(hub(write_folder(tmp_path / "photos", files)))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert [dataset.encoded(row) for row in range(4)] == [IMAGES[row] for row in (1, 3, 0, 2)]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    (answer,) = open_offline(tmp_path, {"name": "uoft-cs/cifar100"})
    assert answer == (
        "data set uoft-cs/cifar100, split 'train': the hub cannot be reached and the data set is"
        " not in this machine's cache: connect, or set `name` to a local folder of its parquet"
        " files (Couldn't reach 'uoft-cs/cifar100' on the Hub (OfflineModeIsEnabled))"
    )


def test_without_a_network_the_commit_in_the_cache_is_used_and_pinned(
    repository: Path, tmp_path: Path, caches: Path
) -> None:
    """The cache is laid out as `datasets` leaves it after downloading `zoo/animals`."""
    source = tmp_path / "cache" / "zoo___animals" / "default" / "0.0.0" / COMMIT
    local = datasets.load_dataset(str(repository), split="train").cache_files[0]["filename"]
    source.parent.mkdir(parents=True)
    Path(local).parent.rename(source)

    other = "f" * 40
    found, wrong = open_offline(
        tmp_path / "cache", {"name": "zoo/animals"}, {"name": "zoo/animals", "revision": other}
    )
    assert found == ["zoo/animals/train", COMMIT, [0, 1, 2]]
    assert f"this machine has only commit {COMMIT} in its cache, not {other}" in str(wrong)


def test_another_file_of_the_same_size_and_date_in_a_local_folder(tmp_path: Path) -> None:
    """The cache of `datasets` took one for the other."""
    seen = []
    for content in (b"a" * 90, b"b" * 90):
        file = write_parquet(tmp_path / "train.parquet", [content], label=[0])
        os.utime(file, (1_600_000_000, 1_600_000_000))
        dataset = open_dataset(HubSource(kind="hub", name=str(tmp_path)))
        seen.append((dataset.encoded(0), dataset.fingerprint()))
    assert seen[0][0] == b"a" * 90
    assert seen[1][0] == b"b" * 90
    assert seen[0][1] != seen[1][1]
