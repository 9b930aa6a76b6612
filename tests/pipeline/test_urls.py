"""Secrets are never written down, and what is meant as a URL never becomes a folder."""

from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.store.location import open_objects
from egapipe.pipeline.urls import redacted

SECRET = "hunter2"  # noqa: S105
ARCHIVE = "dataset.train={kind: archive, name: stl10, url: '%s'}"


@pytest.mark.parametrize(
    "override",
    [
        f"store.url=s3://me:{SECRET}@bucket",
        f"sweep.track={{kind: mlflow, uri: 'https://me:{SECRET}@host'}}",
        f"sweep.track={{kind: mlflow, uri: 'https://{SECRET}@host/x'}}",
        ARCHIVE % f"https://host/a.tgz?X-Amz-Signature={SECRET}",
        ARCHIVE % f"https://host/a.tgz?sv=1&sig={SECRET}",
        ARCHIVE % f"https://host/a.tgz?access_token={SECRET}",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(override: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("quickstart", [override])
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plain_query_is_no_secret() -> None:
    load_config("quickstart", [ARCHIVE % "https://host/a.tgz?download=1"])


def test_what_a_library_says_is_printed_without_secrets() -> None:
    for said in (
        f"403 for url: https://host/x?X-Amz-Signature={SECRET}&y=1",
        f"Max retries exceeded with url: /x?sig={SECRET} (Caused by ...)",
        f"cannot connect to postgresql://me:{SECRET}@host/db",
    ):
        assert SECRET not in one_line(RuntimeError(said))
        assert redacted(said) != said


@pytest.mark.parametrize("url", ["s3:/bucket", "gs:bucket", "file://host/x", "$NOT_SET_AT_ALL/x"])
def test_what_is_no_folder_does_not_become_one(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_objects(url)
    assert "\n" not in str(caught.value)


def test_paths_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("$SCRATCH/x", "${SCRATCH}/x", "~/x", f"file://{tmp_path}/x"):
        assert open_objects(url).url == str(tmp_path / "x")
    assert open_objects(f"file://localhost{tmp_path}/x").url == str(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    assert open_objects("./s3:bucket").url == str(tmp_path / "s3:bucket")
