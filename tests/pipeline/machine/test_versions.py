"""The commit of a source tree, read from the files that git keeps."""

import shutil
import subprocess
from pathlib import Path

import pytest

from egapipe.pipeline.machine.versions import source_commit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "some/branch")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "one")
    return folder


@needs_git
@pytest.mark.parametrize("then", [[], ["pack-refs", "--all"], ["checkout", "--quiet", "--detach"]])
def test_the_commit_is_what_git_says(tree: Path, then: list[str]) -> None:
    if then:
        git(tree, *then)
    assert source_commit(tree) == git(tree, "rev-parse", "HEAD")


@needs_git
def test_a_work_tree_beside_the_main_one_has_its_own_commit(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "beside"))
    git(tmp_path / "beside", "commit", "--quiet", "--allow-empty", "--message", "two")
    found = source_commit(tmp_path / "beside")
    assert found == git(tmp_path / "beside", "rev-parse", "HEAD") != source_commit(tree)
    git(tree, "pack-refs", "--all")
    assert source_commit(tmp_path / "beside") == found


@needs_git
def test_a_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert source_commit(tmp_path) is None


def test_what_is_no_checkout_has_none(tmp_path: Path) -> None:
    assert source_commit(tmp_path) is None
    (tmp_path / ".git").write_bytes(b"\xff\xfe")
    assert source_commit(tmp_path) is None
