"""Repositories of the Hugging Face hub: send what is not there yet, bring what is wanted.

Who may do that is the hub's client's business: it takes the token of `hf auth login` or HF_TOKEN.
No token is asked for, kept or shown here.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.locations.remote import in_order
from egapipe.pipeline.locations.urls import has_secrets

Kind = Literal["model", "dataset"]
Told = Callable[[int], None]
"""Is told how many files are done."""

MOST_FILES, MOST_BYTES = 100, 2 * 2**30
"""Of one commit: what was committed is not sent again after an interruption."""
_PIECE = 2**22
# Of files that are brought.
_STREAMS = 8
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class There(NamedTuple):
    """A file of a repository. sha256: of a large one; blob: git's hash of another."""

    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True)
class Content:
    """What is to be a file of a repository. data: a local file, or bytes when they are needed."""

    size: int
    data: Callable[[], Path | bytes]

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """These bytes."""
        return cls(len(data), lambda: data)

    @classmethod
    def of_file(cls, file: Path, root: Path) -> Self:
        """A file of a folder. Raises UsageError for a link: in a folder from elsewhere it could
        lead to anything."""
        if file.is_symlink() or not file.resolve().is_relative_to(root.resolve()):
            raise UsageError(f"{file} is a link, and egapipe makes none: nothing was sent")
        return cls(file.stat().st_size, lambda: file)

    def is_the_same(self, there: There) -> bool:
        """Whether a repository's file has these bytes."""
        if self.size != there.size:
            return False
        digest = hashlib.sha256() if there.sha256 else hashlib.sha1(usedforsecurity=False)
        if not there.sha256:
            digest.update(f"blob {self.size}\0".encode())
        for piece in _pieces(self.data()):
            digest.update(piece)
        return digest.hexdigest() == (there.sha256 or there.blob)


@dataclass(frozen=True)
class Repository:
    """One repository, `user/name`, on the hub that HF_ENDPOINT names or huggingface.co."""

    name: str
    kind: Kind
    revision: str | None = None

    @property
    def url(self) -> str:
        """Where people look at it."""
        prefix = "datasets/" if self.kind == "dataset" else ""
        return f"{self._api.endpoint}/{prefix}{self.name}"

    def create(self, *, private: bool) -> None:
        """Make it if it is not there. Raises UsageError or EgapipeError."""
        with self._explained("made"):
            self._api.create_repo(self.name, repo_type=self.kind, private=private, exist_ok=True)

    def commit(self) -> str:
        """The commit that the revision names now. Raises UsageError or EgapipeError."""
        with self._explained("read"):
            info = self._api.repo_info(self.name, repo_type=self.kind, revision=self.revision)
        return str(info.sha)

    def files(self, commit: str | None = None) -> dict[str, There]:
        """Its files by path. Raises UsageError or EgapipeError."""
        with self._explained("read"):
            listed = self._api.list_repo_tree(
                self.name,
                recursive=True,
                repo_type=self.kind,
                revision=commit or self.revision,
            )
            return {
                one.path: There(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
                for one in listed
                if hasattr(one, "blob_id")
            }

    def send(
        self,
        files: Mapping[str, Content],
        *,
        message: str,
        there: Mapping[str, There] | None = None,
        gone: Sequence[str] = (),
        told: Told | None = None,
    ) -> int:
        """Commit files, in this order, that are not there with the same bytes; how many were sent.

        there: the repository's files, where somebody has listed them. gone: those to remove with
        the last commit. Raises UsageError or EgapipeError; what was committed until then stays, and
        counts the next time.
        """
        import huggingface_hub as hub

        if there is None:
            there = self.files()
        missing = {
            path: content
            for path, content in files.items()
            if path not in there or not content.is_the_same(there[path])
        }
        done = len(files) - len(missing)
        removed = [hub.CommitOperationDelete(path) for path in gone if path in there]
        groups = plan_commits({path: content.size for path, content in missing.items()})
        for place, group in enumerate(groups or ([[]] if removed else [])):
            if told is not None:
                told(done)
            operations: list[Any] = [
                hub.CommitOperationAdd(path, _for_the_client(missing[path].data()))
                for path in group
            ]
            if place + 1 >= len(groups):
                operations += removed
            with self._explained("written"), _quiet():
                self._api.create_commit(
                    self.name,
                    operations,
                    commit_message=message,
                    repo_type=self.kind,
                    revision=self.revision,
                )
            done += len(group)
        if told is not None:
            told(done)
        return len(missing)

    def bring(self, paths: Sequence[str], commit: str, folder: Path) -> Iterator[Path]:
        """Files of a commit below a folder, in their order, several at a time; what was brought
        before stays.

        The paths must have been checked: see `is_plain`. Raises UsageError or EgapipeError.
        """
        api = self._api

        def one(path: str) -> Path:
            return Path(
                api.hf_hub_download(
                    self.name, path, repo_type=self.kind, revision=commit, local_dir=folder
                )
            )

        with self._explained("read"), _quiet():
            yield from in_order(one, paths, _STREAMS)

    @property
    def _api(self) -> Any:
        import huggingface_hub

        return huggingface_hub.HfApi()

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """In one line, without what may hold a signature: uploads go to signed URLs."""
        from huggingface_hub.errors import HFValidationError

        what = f"{self.kind} repository {self.name}"
        try:
            yield
        except HFValidationError as error:
            raise UsageError(f"{what}: {one_line(error)}") from None
        except EgapipeError:
            raise
        except Exception as error:  # the hub's client has those of its HTTP library
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403):
                raise UsageError(f"{what} cannot be {done}: {_LOGIN}") from None
            if status == 404:
                raise UsageError(
                    f"there is no {what}, or this user may not see it: {_LOGIN}"
                ) from None
            text = f"{type(error).__name__}: {one_line(error)}"
            reason = f"the hub answered {status}" if status else text
            if has_secrets(reason):
                reason = type(error).__name__
            raise EgapipeError(
                f"{what} cannot be {done} ({reason}): run the same command again to continue"
            ) from None


def plan_commits(sizes: Mapping[str, int]) -> list[list[str]]:
    """Paths in their order, in groups of at most MOST_FILES and, unless one alone is larger,
    MOST_BYTES."""
    groups: list[list[str]] = []
    total = 0
    for path, size in sizes.items():
        if not groups or len(groups[-1]) == MOST_FILES or total + size > MOST_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(path)
        total += size
    return groups


def is_plain(path: str) -> bool:
    """Whether a repository's path leads below the folder that it is put into, on every system, and
    to nothing hidden."""
    parts = path.split("/")
    return path.isprintable() and all(
        part and not part.startswith(".") and not set(part) & set('\\:*?"<>|') for part in parts
    )


def _for_the_client(data: Path | bytes) -> str | bytes:
    return data if isinstance(data, bytes) else str(data)


def _pieces(data: Path | bytes) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


@contextmanager
def _quiet() -> Iterator[None]:
    """One bar for all, which is ours."""
    import huggingface_hub.utils as hub

    bars: Any = hub
    hidden = bars.are_progress_bars_disabled()
    if not hidden:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            bars.enable_progress_bars()
