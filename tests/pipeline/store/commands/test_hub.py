"""Stores go to the hub and come back the same, whatever happens between."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.locations import hub as locations
from egapipe.pipeline.locations.hub import Repository, There
from egapipe.pipeline.store.commands.hub import alone, pull_stores, push_stores, wanted_files
from tests.hub_server import TOKEN, Hub, running, use
from tests.pipeline.store import test_growth as growth
from tests.pipeline.store.samples import finished

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "stores"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        use(found, monkeypatch)
        yield found


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "golden", tmp_path / "stores"))


REPOSITORY = Repository("ann/digits", "dataset")


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_comes_back_is_the_same_byte_for_byte(
    server: Hub, stores: Path, tmp_path: Path
) -> None:
    (stores / "notes.txt").write_text("mine", "utf-8")
    done = push_stores(stores, REPOSITORY)
    assert done.stores == ["test.zarr", "train.zarr"]
    assert done.sent == done.files == len(files(stores))
    again = push_stores(stores, REPOSITORY)
    assert (again.sent, len(server.commits)) == (0, 1)
    pulled = pull_stores(REPOSITORY, tmp_path / "here")
    assert files(tmp_path / "here") == {k: v for k, v in files(stores).items() if k != "notes.txt"}
    assert [report.complete for report in pulled.reports] == [True, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "stores"]
    with pytest.raises(UsageError, match="is there already"):
        pull_stores(REPOSITORY, tmp_path / "here")


def test_one_store_lies_at_the_top(server: Hub, stores: Path, tmp_path: Path) -> None:
    push_stores(stores / "test.zarr", REPOSITORY)
    assert "zarr.json" in server.repositories["dataset/ann/digits"]
    for path in ("LICENSE", "setup.py", "photos/0.png"):
        server.repositories["dataset/ann/digits"][path] = b"beside"
    assert push_stores(stores / "test.zarr", REPOSITORY).sent == 0
    assert "LICENSE" in server.repositories["dataset/ann/digits"]
    pull_stores(REPOSITORY, tmp_path / "test.zarr")
    assert files(tmp_path / "test.zarr") == files(stores / "test.zarr")


@pytest.mark.parametrize("name", ["", "train.zarr"], ids=["at the top", "in a folder"])
def test_a_store_that_has_grown_goes_with_all_its_states(
    server: Hub, tmp_path: Path, name: str
) -> None:
    url = str(tmp_path / "stores" / "train.zarr")
    finished(url, growth.manifest_of(growth.BEFORE))
    growth.append(url)
    push_stores(tmp_path / "stores" if name else url, REPOSITORY)
    [report] = pull_stores(REPOSITORY, tmp_path / "here").reports
    assert (report.rows, report.problems) == (growth.AFTER, [])
    assert files(tmp_path / "here" / name) == files(Path(url))


def test_a_half_finished_store_is_pushed_continued_and_pushed_again(
    server: Hub, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(GOLDEN / "half", tmp_path / "half"))
    push_stores(half, REPOSITORY)
    [report] = pull_stores(REPOSITORY, tmp_path / "one").reports
    assert (report.complete, report.ok) == (False, True)
    # What a later state no longer has goes from the repository, too.
    server.repositories["dataset/ann/digits"]["train.zarr/commits/old.json"] = b"{}"
    push_stores(half, REPOSITORY)
    assert "train.zarr/commits/old.json" not in server.repositories["dataset/ann/digits"]


def test_another_store_is_not_mixed_in(server: Hub, stores: Path) -> None:
    push_stores(stores / "train.zarr", REPOSITORY)
    with pytest.raises(UsageError, match="has another store at its top"):
        push_stores(stores / "test.zarr", REPOSITORY)


def test_manifests_go_first_and_what_vouches_last(
    server: Hub, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations, "MOST_FILES", 1)
    push_stores(stores / "train.zarr", REPOSITORY)
    order = [path for [path] in server.commits]
    assert order[0].endswith("zarr.json")
    chunks = [place for place, path in enumerate(order) if "/c/" in path]
    records = [place for place, path in enumerate(order) if path.startswith("commits")]
    assert max(chunks) < min(records)
    assert order[-1] == "commits/finished.json"
    assert ".gitattributes" in server.repositories["dataset/ann/digits"]


def test_a_pull_that_was_interrupted_continues(
    server: Hub, stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_stores(stores, REPOSITORY)
    seen: list[int] = []

    def stop(done: int, planned: int) -> None:
        seen.append(done)
        if done == planned // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_stores(REPOSITORY, tmp_path / "here", told=stop)
    assert not (tmp_path / "here").exists()
    brought = len(files(tmp_path / ".here.pulling"))
    assert brought >= seen[-1] > 0
    pull_stores(REPOSITORY, tmp_path / "here")
    assert "train.zarr/zarr.json" in files(tmp_path / "here")
    assert not (tmp_path / ".here.pulling").exists()


def test_a_store_that_is_not_what_it_says_is_not_kept(
    server: Hub, stores: Path, tmp_path: Path
) -> None:
    push_stores(stores, REPOSITORY)
    there = server.repositories["dataset/ann/digits"]
    chunk = next(path for path in there if "/c/" in path)
    there[chunk] = bytes(byte ^ 255 for byte in there[chunk])
    with pytest.raises(StoreError, match="nothing is kept") as raised:
        pull_stores(REPOSITORY, tmp_path / "here")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["stores"]


@pytest.mark.parametrize(
    "path",
    [
        "train.zarr/commits/../../../../escaped",
        "train.zarr/embedding/.git/hooks/x",
        "train.zarr/commits/a\\..\\b",
    ],
)
def test_a_repository_leads_to_no_file_outside(
    server: Hub, stores: Path, tmp_path: Path, path: str
) -> None:
    push_stores(stores, REPOSITORY)
    server.repositories["dataset/ann/digits"][path] = b"harm"
    with pytest.raises(UsageError, match="which no store has"):
        pull_stores(REPOSITORY, tmp_path / "a" / "here")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.read_bytes() == b"harm"]


def test_nothing_but_stores_is_brought(server: Hub, stores: Path, tmp_path: Path) -> None:
    push_stores(stores, REPOSITORY)
    for path in (
        "setup.py",
        "../../x",
        "train.zarr/../../y",
        "train.zarr/pyarrow.py",
        "other/data.bin",
    ):
        server.repositories["dataset/ann/digits"][path] = b"harm"
    pull_stores(REPOSITORY, tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "test.zarr",
        "train.zarr",
    ]
    assert wanted_files({"zarr.json": There(1, "", None)}) == {}


def test_a_link_in_a_store_from_elsewhere_sends_nothing(
    server: Hub, stores: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret", "utf-8")
    (stores / "train.zarr" / "commits" / "more.json").symlink_to(secret)
    with pytest.raises(UsageError, match="is a link"):
        push_stores(stores, REPOSITORY)
    assert server.repositories == {}


def test_two_at_once_do_not_pull_into_one_folder(server: Hub, stores: Path, tmp_path: Path) -> None:
    push_stores(stores, REPOSITORY)
    refused: list[str] = []

    def other(done: int, planned: int) -> None:
        if not done:
            with pytest.raises(UsageError, match="another process is pulling") as raised:
                pull_stores(REPOSITORY, tmp_path / "here")
            refused.append(str(raised.value))

    pull_stores(REPOSITORY, tmp_path / "here", told=other)
    assert len(refused) == 1


def test_whose_folder_was_renamed_keeps_nobody_away(tmp_path: Path) -> None:
    """The next one begins with a folder of its own, and of a lock no file is left."""
    beside = tmp_path / ".here.pulling"
    with alone(beside):
        beside.rename(tmp_path / "here")
        refused = pytest.raises(UsageError, match="another process is pulling")
        with alone(beside), refused, alone(beside):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".here.pulling", "here"]


def test_files_come_several_at_a_time_and_in_their_order(
    server: Hub, stores: Path, tmp_path: Path
) -> None:
    push_stores(stores, REPOSITORY)
    paths = sorted(wanted_files(REPOSITORY.files()), reverse=True)
    brought = REPOSITORY.bring(paths, REPOSITORY.commit(), tmp_path / "here")
    assert [path.relative_to(tmp_path / "here").as_posix() for path in brought] == paths


def test_no_store_is_said_in_one_line(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store at"):
        push_stores(tmp_path, REPOSITORY)
    server.repositories["dataset/ann/digits"] = {"README.md": b"# empty"}
    with pytest.raises(UsageError, match="no store of egapipe in"):
        pull_stores(REPOSITORY, tmp_path / "here")
    with pytest.raises(EgapipeError, match="there is no dataset repository"):
        pull_stores(Repository("ann/none", "dataset"), tmp_path / "here")
    assert list(tmp_path.iterdir()) == [tmp_path / ".here.pulling"]


def test_the_commands_say_no_token_and_leave_none(
    server: Hub, stores: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    said = ""
    for arguments in (["push", str(stores), "--repo", "ann/digits"], ["pull", "ann/digits", "got"]):
        run = subprocess.run(
            [sys.executable, "-m", "egapipe.pipeline.cli", "store", *arguments],
            cwd=tmp_path,
            env=server.environment(home=str(home)),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert run.returncode == 0, run.stderr
        said += run.stdout + run.stderr
    assert "complete" in said
    assert "of 1" not in said.splitlines()[0]
    assert TOKEN not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
