"""Secrets are never written down, and what is meant as a URL never becomes a folder."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from egapipe.pipeline import cli
from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.config.located import Url
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.urls import has_secrets, path_of, redacted, text_of
from egapipe.pipeline.store.objects.location import open_objects
from tests.pipeline.datasets.samples import images, write_folder

SECRET = "hunter2"  # noqa: S105
ANY_URL: TypeAdapter[str] = TypeAdapter(Url, config={"hide_input_in_errors": True})
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


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_the_text_of_a_path_means_that_path(name: str) -> None:
    path = Path("/somewhere", name)
    assert path_of(text_of(path)) == Path(os.path.abspath(path))
    # A relative one too, which may look like a home folder or a scheme.
    assert path_of(text_of(Path(name))) == Path(os.path.abspath(name))


def test_a_folder_that_looks_like_a_variable_has_its_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "$HOME", {"a.png": images(1)[0]})
    source = FolderSource(kind="folder", path=text_of(tmp_path / "$HOME"))
    assert open_dataset(source).encoded(0) == images(1)[0]


NAMES = ["X-Amz-Signature", "sig", "token", "Signature", "AccessKeyId", "X-Goog-Credential"]
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
secrets = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ+=/%", min_size=6, max_size=20)


@given(st.sampled_from(["https", "s3", "gs", "http"]), words, secrets, st.sampled_from(NAMES))
def test_no_type_of_url_takes_a_secret_and_no_error_repeats_it(
    scheme: str, word: str, secret: str, name: str
) -> None:
    for url in (
        f"{scheme}://{word}:{secret}@{word}/x",
        f"{scheme}://{word}/x?{name}={secret}",
        f"{scheme}://{word}/x?{word}=1&{name.lower()}={secret}&z=1",
    ):
        assert has_secrets(url)
        assert secret not in str(UsageError(f"cannot read {url}: it is gone"))
        with pytest.raises(ValidationError) as caught:
            ANY_URL.validate_python(url)
        assert secret not in str(caught.value)


@given(st.sampled_from(["https", "s3", "gs"]), words, words)
def test_a_url_without_a_secret_is_taken_and_said_as_it_is(scheme: str, a: str, b: str) -> None:
    url = f"{scheme}://{a}/{b}"
    assert ANY_URL.validate_python(url) == url
    assert str(UsageError(f"{url} is gone")) == f"{url} is gone"


HIDDEN = f"https://me:{SECRET}@host/x"


@pytest.mark.parametrize(
    "override",
    [
        f"runs={HIDDEN}",
        f"store.cache_dir={HIDDEN}",
        f"cluster.address=ray://me:{SECRET}@host:1",
        f"dataset.train={{kind: parquet, files: '{HIDDEN}'}}",
        f"dataset.train={{kind: hub, name: '{HIDDEN}'}}",
        f"teacher={{backend: onnx, model: '{HIDDEN}', preprocessing: {{size: 8}}}}",
        f"teacher={{backend: python, model: 'a:b', args: {{u: '{HIDDEN}'}}, preprocessing: "
        "{size: 8}}",
        f"compare.variants={{a: {{store.url: '{HIDDEN}'}}}}",
        f"distill.epochs={HIDDEN}",
        f"distill.nothing={HIDDEN}",
        f"distill.lr={{'{HIDDEN}': 1}}",
        f"{HIDDEN}",
        f"runs='{HIDDEN}",
        f"distill.device={'https://' + 'u' * 45}:{SECRET}@host",
    ],
)
def test_a_secret_anywhere_in_a_configuration_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("quickstart", [override])
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "info", HIDDEN),
        ("store", "diff", "a", f"s3://me:{SECRET}@b"),
        ("store", "export", "x", f"https://host/a.npy?sig={SECRET}"),
        ("store", "import", f"https://host/a.npy?sig={SECRET}"),
        ("report", HIDDEN),
        ("config", "show", "-c", HIDDEN),
        ("config", "show", "--set", f"store.url={HIDDEN}"),
        ("submit", "status", "job", "--address", HIDDEN),
    ],
)
def test_no_command_prints_or_keeps_a_secret(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["egapipe", *arguments])
    with pytest.raises(SystemExit):
        cli.main()
    said = "".join(capfd.readouterr())
    assert "error: " in said
    assert SECRET not in said
    assert not list(tmp_path.iterdir())


def test_a_secret_that_came_by_a_variable_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", f"s3://me:{SECRET}@bucket")
    config = load_config("quickstart", ["store.url=$PLACE"])
    assert SECRET not in to_yaml(config)
    with pytest.raises(UsageError) as caught:
        open_objects(config.store_url("train"))
    assert SECRET not in str(caught.value)


def test_a_variable_is_expanded_in_a_url_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "memory://b")
    assert open_objects("$BUCKET/x").url == "memory://b/x"
    with pytest.raises(UsageError, match="variable"):
        open_objects("memory://$NOT_SET_AT_ALL/x")
