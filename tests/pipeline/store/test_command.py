"""`egapipe store info` and `egapipe store check`: what they say, and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Failure
from egapipe.pipeline.store.command import register
from tests.permissions import unprivileged
from tests.pipeline.store.samples import complete, create, finished, make_arrays, write

app = typer.Typer()
register(app)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["store", *arguments])


def fields(shown: Result) -> dict[str, str]:
    """Names and values, a line each."""
    pairs = (line.split("  ", 1) for line in shown.stdout.splitlines())
    return {name: value.strip() for name, value in pairs}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """stores/: quickstart/ with a complete and an unfinished store, and a store beside it."""
    stores = tmp_path / "stores"
    finished(str(stores / "quickstart" / "train.zarr"))
    write(create(str(stores / "quickstart" / "test.zarr")), 1)
    finished(str(stores / "single.zarr"))
    (stores / "notes").mkdir()
    return stores


def test_info_of_a_store(url: str) -> None:
    store = create(url)
    arrays = make_arrays(store.manifest, range(4))
    arrays["logits"][0] = float("nan")
    store.write_shard(0, arrays, failures=[Failure(3, "train/3", "no image")])
    shown = run("info", url)
    assert shown.exit_code == 0
    lines = fields(shown)
    assert lines["store"] == store.url
    assert lines["state"] == "unfinished: `egapipe extract` continues it"
    assert lines["shards"] == "1 of 3"
    assert lines["rows"] == "10"
    assert lines["views"] == "2 (the clean one included)"
    assert (lines["embedding dim"], lines["logits dim"]) == ("3", "2")
    assert lines["dtype"] == "float16"
    assert lines["failures"] == "2 rows, 1 of them not finite"
    assert lines["dataset"] == f"sample ({'f' * 12})"
    assert lines["teacher model"] == "vit"
    complete(store)
    assert fields(run("info", url))["state"] == "complete"


def test_info_as_json(url: str) -> None:
    store = finished(url)
    (shown,) = run("info", url, "--json").stdout.splitlines()
    tree = json.loads(shown)
    manifest = store.manifest.model_dump(mode="json")
    assert tree["complete"] is True
    assert tree["shards"] == {"committed": 3, "planned": 3}
    assert (tree["rows"], tree["views"], tree["failures"], tree["nonfinite"]) == (10, 2, 0, 0)
    assert tree["bytes"] == sum(store.objects.sizes().values())
    for key in ("dataset", "teacher", "preprocessing", "outputs", "dtype", "versions"):
        assert tree[key] == manifest[key]


def test_info_of_a_folder_lists_all_stores_up_to_two_folders_below(folder: Path) -> None:
    urls = [f"{folder}/quickstart/test.zarr", f"{folder}/quickstart/train.zarr"]
    for where, expected in (
        (folder / "quickstart", urls),
        (folder, [*urls, f"{folder}/single.zarr"]),
        (folder / "single.zarr", [f"{folder}/single.zarr"]),
    ):
        shown = run("info", str(where), "--json")
        assert shown.exit_code == 0
        assert [json.loads(line)["url"] for line in shown.stdout.splitlines()] == expected
        plain = run("info", str(where)).stdout
        assert [line.split()[1] for line in plain.splitlines() if line[:6] == "store "] == expected


def test_folders_of_a_remote_place_are_looked_into_too(memory: str) -> None:
    finished(memory)
    above = memory.rpartition("/")[0]
    assert json.loads(run("info", above, "--json").stdout)["url"] == memory
    assert run("check", above).stdout.startswith(f"{memory}: complete")


def test_info_shows_the_others_when_one_store_is_damaged(folder: Path) -> None:
    (folder / "quickstart" / "train.zarr" / "zarr.json").write_bytes(b"{}")
    shown = run("info", str(folder), "--json")
    assert shown.exit_code == 1
    assert [json.loads(line)["url"].rpartition("/")[2] for line in shown.stdout.splitlines()] == [
        "test.zarr",
        "single.zarr",
    ]
    (error,) = shown.stderr.splitlines()
    assert error.startswith(f"error: {folder}/quickstart/train.zarr/zarr.json has not the recorded")


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_folder_that_cannot_be_looked_into_hides_no_store(command: str, folder: Path) -> None:
    """A link to itself, folders that may not be listed or entered, a pipe where a file belongs."""
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("gone")
    (folder / "notes" / "zarr.json").mkdir()
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "zarr.json")
    assert run(command, str(folder)).exit_code == 1
    for name, mode in (("closed", 0), ("unlisted", 0o111)):
        (folder / name).mkdir(mode)
    with unprivileged(folder.parent):
        shown = run(command, str(folder))
    assert shown.exit_code == 1
    assert shown.stdout.count("quickstart/test.zarr") == 1
    assert shown.stdout.count("quickstart/train.zarr") == 1
    assert shown.stdout.count("single.zarr") == 1
    where = [line.split(": ")[1] for line in shown.stderr.splitlines()]
    assert where == [
        f"cannot read {folder}/closed/commits/created.json",
        f"cannot read {folder}/loop/commits/created.json",
        f"cannot read {folder}/pipe/zarr.json",
        f"cannot list {folder}/unlisted",
    ]
    for name in ("closed", "unlisted"):
        (folder / name).chmod(0o700)


def test_a_place_that_cannot_be_read_itself_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreError, match=r"loop/commits/created\.json: Too many levels"):
        raise run("info", str(tmp_path / "loop")).exception or AssertionError


def test_places_are_expanded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a variable holds is, nor what a folder is called."""
    stores = tmp_path / "a$HOME" / "~"
    finished(str(stores / "$NOT_SET.zarr").replace("$", "$$"))
    monkeypatch.setenv("PLACE", str(stores))
    shown = run("info", "$PLACE", "--json")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["url"] == f"{stores}/$NOT_SET.zarr"
    monkeypatch.chdir(stores.parent)
    for where in ("./~", f"{stores}/$NOT_SET.zarr".replace("$", "$$")):
        assert run("check", where).stdout.startswith(f"{stores}/$NOT_SET.zarr: complete")
    out = str(tmp_path / "a$$b.npy")
    assert run("export", "./~", out).exit_code == 0
    assert (tmp_path / "a$b.npy").is_file()
    assert run("diff", "$PLACE", "./~").stdout.endswith("equal\n")


def test_check_of_whole_stores(folder: Path) -> None:
    shown = run("check", str(folder))
    assert (shown.exit_code, shown.stderr) == (0, "")
    unfinished, complete_, single = shown.stdout.splitlines()
    assert unfinished.startswith(
        f"{folder}/quickstart/test.zarr: unfinished (`egapipe extract` continues it), 1 of 3 shards"
    )
    assert complete_.startswith(
        f"{folder}/quickstart/train.zarr: complete, 3 of 3 shards, read 240 bytes in "
    )
    assert all(line.endswith("problems: 0") for line in (unfinished, complete_, single))


def test_check_lists_the_problems_of_each_store(folder: Path) -> None:
    chunk = folder / "quickstart" / "train.zarr" / "embedding" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    (folder / "single.zarr" / "zarr.json").unlink()
    shown = run("check", str(folder))
    assert shown.exit_code == 1
    _, broken, problem = shown.stdout.splitlines()
    assert broken.endswith("problems: 1")
    assert problem.startswith(f"  shard 1 of store {folder}/quickstart/train.zarr is damaged: ")
    assert problem.endswith(
        "delete commits/000001.json there and run `egapipe extract` again to redo the shard"
    )
    assert shown.stderr.startswith(f"error: {folder}/single.zarr/zarr.json is missing: restore")


def test_check_of_a_sample_reads_some_shards_and_every_record(folder: Path) -> None:
    store = folder / "quickstart" / "train.zarr"
    shown = run("check", str(store), "--sample", "2")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "complete, 3 of 3 shards, read 160 bytes of 2 in " in shown.stdout
    # Of the first and of the last: what is between them is not read.
    chunk = store / "embedding" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert run("check", str(store), "--sample", "2").exit_code == 0
    assert run("check", str(store)).exit_code == 1
    (store / "commits" / "000001.json").unlink()
    assert "commits/000001.json is missing" in run("check", str(store), "--sample", "2").stdout


@pytest.mark.parametrize("command", ["info", "check"])
def test_another_zarr_group_is_no_store(command: str, tmp_path: Path) -> None:
    import zarr

    zarr.create_group(str(tmp_path / "theirs.zarr"))
    shown = run(command, str(tmp_path / "theirs.zarr"))
    assert shown.exit_code == 1
    assert shown.stderr.strip().endswith("is not an egapipe store: point store.url elsewhere")
    # Nobody asked for it by name.
    finished(str(tmp_path / "ours.zarr"))
    assert run(command, str(tmp_path)).exit_code == 0


@pytest.mark.parametrize("command", ["info", "check"])
def test_no_store_is_a_users_mistake(command: str, tmp_path: Path, folder: Path) -> None:
    for where in ("nowhere", "stores/notes", "memory://nowhere"):
        shown = run(command, where if "://" in where else str(tmp_path / where))
        assert isinstance(shown.exception, UsageError)
        assert "nor up to 2 folders below it: run `egapipe extract`, or" in str(shown.exception)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["info", "nowhere"], 2, "error: no store at nowhere, nor up to 2 folders below it"),
        (["check", "foo://bucket/s"], 2, "error: cannot open foo://bucket/s: Protocol not known"),
        (["info", "half.zarr"], 1, "was interrupted while it was created: run `egapipe extract`"),
        (["check", "damaged.zarr"], 1, "created.json is damaged (it has not its checksum)"),
    ],
)
def test_the_command_itself_ends_in_one_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    create(str(tmp_path / "half.zarr")).objects.delete("commits/created.json")
    damaged = finished(str(tmp_path / "damaged.zarr"))
    record = damaged.objects.get("commits/created.json") or b""
    damaged.objects.put("commits/created.json", record.replace(b"\n}", b"\n }"))
    ended = subprocess.run(
        [sys.executable, "-m", "egapipe.pipeline.cli", "store", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == code
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert said in line


def test_a_pipe_gets_whole_lines(tmp_path: Path) -> None:
    """However narrow a terminal is taken for: a URL that is folded cannot be found again."""
    url = str(tmp_path / ("long" * 40) / "train.zarr")
    finished(url)
    assert fields(run("info", url))["store"] == url
