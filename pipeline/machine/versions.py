"""Which state of egapipe's source is running, and with what."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def source_commit(root: Path = _ROOT) -> str | None:
    """The git commit, in hex, that a source tree has checked out; changes since do not show.

    root: the tree, by default the one that egapipe runs from. None if it is no checkout, as an
    installed package is none, or has no commit yet.
    """
    git = _git_folder(root)
    if git is None:
        return None
    head = _text(git / "HEAD")
    name = head.removeprefix("ref: ")
    commit = _resolved(git, name) if name != head else head
    return commit if _COMMIT.fullmatch(commit) else None


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions of those of the named distributions that are installed.

    Not all need be: training in one process does without Ray, and egapipe runs from a checkout.
    """
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_folder(root: Path) -> Path | None:
    """The folder with HEAD; a work tree beside the main one has a file that names its own."""
    git = root / ".git"
    if git.is_file():
        git = root / _text(git).removeprefix("gitdir: ")
    return git if git.is_dir() else None


def _resolved(git: Path, name: str) -> str:
    """What a reference points at, or nothing. Work trees share the references of the main one."""
    common = git / (_text(git / "commondir") or ".")
    loose = _text(git / name) or _text(common / name)
    if loose:
        return loose
    packed = (line.split(" ", 1) for line in _text(common / "packed-refs").splitlines())
    return next((line[0] for line in packed if line[1:] == [name]), "")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
