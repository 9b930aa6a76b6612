"""Own files are replaced by name; whatever else lies there is somebody's."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.disk.replacing import replacing
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder

MARK = b"mark"
NAMES = st.sets(st.sampled_from(["record", "a", "b", "below/c"]), max_size=4)


def write(folder: Path, names: set[str], before: list[str] | None, content: str) -> None:
    with replacing(folder, "record", before, MARK) as beside:
        for name in names:
            (beside / name).parent.mkdir(exist_ok=True)
            (beside / name).write_text(content)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@settings(max_examples=50, deadline=None)
@given(first=NAMES, second=NAMES, foreign=st.sets(st.sampled_from(["a", "x", "below/y"])))
def test_nothing_foreign_changes(
    first: set[str],
    second: set[str],
    foreign: set[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("somebodys")
    for name in foreign:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    theirs = contents(folder)
    first, second = first | {"record"}, second | {"record"}
    if first & foreign:
        with pytest.raises(UsageError, match="egapipe did not write it"):
            write(folder, first, None, "one")
        assert contents(folder) == theirs
        return
    write(folder, first, None, "one")
    write(folder, second, sorted(first), "two")
    assert contents(folder) == theirs | dict.fromkeys(second, "two")
    with pytest.raises(ZeroDivisionError), replacing(folder, "record", None, MARK):
        raise ZeroDivisionError
    assert contents(folder) == theirs | dict.fromkeys(second, "two")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to("../mine")
    write(tmp_path / "out", {"a", "record"}, ["a"], "new")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere"])
def test_a_place_that_cannot_be_written_is_one_line(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write(tmp_path / place, {"record"}, None, "")
    assert os.listdir(tmp_path) == ["file"]


def test_a_run_that_begins_anew_keeps_the_users_notes(tmp_path: Path) -> None:
    for name in ("checkpoints/mine/notes.txt", "notes.txt", "summary.json", "trials/1/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    RunFolder(tmp_path).clear()
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "c").write_text("theirs")
    write(tmp_path / "out", {"record"}, None, "one")
    (tmp_path / "out" / "below").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="is a link"):
        write(tmp_path / "out", {"record", "below/c"}, ["record", "below/c"], "two")
    assert (tmp_path / "theirs" / "c").read_text() == "theirs"
    # Nor is what lies there taken for an earlier writer's.
    write(tmp_path / "out", {"record"}, ["record", "below/c"], "three")
    assert (tmp_path / "theirs" / "c").read_text() == "theirs"
