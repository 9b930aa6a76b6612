"""Where a node keeps what can be made again."""

import os
from pathlib import Path

import pytest

from egapipe.pipeline.disk.paths import cache_dir, own_folder
from egapipe.pipeline.errors import UsageError


def test_a_folder_of_the_user_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "not yet"))
    assert cache_dir() == tmp_path / "not yet"
    assert own_folder(tmp_path) == tmp_path


def test_in_a_folder_of_several_each_user_has_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    own = own_folder(tmp_path)
    assert own == tmp_path / f"user-{os.geteuid()}"
    own.mkdir(mode=0o755)
    assert own_folder(tmp_path) == own
    own.chmod(0o777)
    with pytest.raises(UsageError, match="everybody may write it"):
        own_folder(tmp_path)
    own.rmdir()
    own.symlink_to(tmp_path.parent)
    with pytest.raises(UsageError, match="another user"):
        own_folder(tmp_path)
