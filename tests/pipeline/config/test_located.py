"""Every text of the configuration and of the command line that names a place is of one type."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic.fields import FieldInfo

from egapipe.pipeline import cli
from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.base import Section
from egapipe.pipeline.config.located import located, places, with_places
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import run_folder
from egapipe.pipeline.terminal.options import as_path, as_place, as_service

# Texts that name no place. A new text is a place, see `config.located`, or is added here.
NAMES = {
    *("Config.name", "HubSource.config", "HubSource.revision", "TransformersTeacher.revision"),
    *("ColumnsSource.split", "ColumnsSource.image_column", "ColumnsSource.label_column"),
    *("ColumnsSource.key_column", "ColumnsSource.class_names", "WebDatasetSource.image"),
    *("WebDatasetSource.label_field", "WebDatasetSource.class_names", "ArchiveSource.sha256"),
    *("ImportedTeacher.model", "OnnxTeacher.output", "OnnxTeacher.logits", "PythonTeacher.model"),
    *(
        "PythonTeacher.output",
        "PythonTeacher.logits",
        "StudentConfig.name",
        "Dimension.when",
    ),
    *("DistillConfig.teacher_output", "DistillConfig.teacher_grid", "SweepConfig.metric"),
    *(f"ArraysSource.{name}" for name in ("column", "label_column", "key_column", "split")),
    *(
        "ArraysSource.class_names",
        "CustomOptions.call",
        "DistillConfig.sampler",
        "DistillConfig.no_decay",
    ),
    *("MlflowTracking.experiment", "WandbTracking.project"),
    *("OutputConfig.at", "OutputConfig.shape", "FeaturesConfig.student", "FeaturesConfig.teacher"),
    *(f"{o}Options.features" for o in ("Fitnet", "Sp", "Unic", "Gram", "Custom")),
    *(f"{o}Options.features" for o in ("At", "Iusp", "Dreamteacher", "Lsp")),
}
OPTIONS = {
    *("split", "column", "key_column", "from_split", "output", "config", "overrides", "formats"),
    *("outputs", "licence", "job", "arguments", "only", "what", "name", "repo", "revision"),
}


def sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections(field.annotation)
    for part in typing.get_args(annotation):
        yield from sections(part)


def is_text(annotation: Any) -> bool:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is str:
        return True
    return origin not in (dict, typing.Literal) and any(is_text(one) for one in inner)


def owner(kind: type[Section], name: str) -> str:
    return next(
        base.__name__
        for base in kind.__mro__[::-1]
        if name in vars(base).get("__annotations__", {})
    )


def is_bare(field: FieldInfo) -> bool:
    return is_text(field.annotation) and located(field.annotation, field.metadata) is None


def test_every_text_of_the_configuration_is_a_place_or_known_as_a_name() -> None:
    bare = {
        f"{owner(kind, name)}.{name}"
        for kind in sections(Config)
        for name, field in kind.model_fields.items()
        if is_bare(field)
    }
    assert bare - NAMES == set()


def parameters(app: typer.Typer) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and parser of every parameter of the commands."""
    for command in app.registered_commands:
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            inner, *marks = (
                typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
            )
            yield name, inner, next((mark.parser for mark in marks), None)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from parameters(group.typer_instance)


def names_a_place(annotation: Any) -> bool:
    return is_text(annotation) or annotation is Path or Path in typing.get_args(annotation)


def test_every_place_on_the_command_line_is_read_by_one_of_three_functions() -> None:
    cli._assemble()
    found = [one for one in parameters(cli.app) if names_a_place(one[1])]
    assert {"to", "url", "address", "run", "images"} <= {name for name, _, _ in found}
    bare = {name for name, _, parser in found if parser not in (as_path, as_place, as_service)}
    assert bare - OPTIONS == set()


CHANGES = {
    "runs": "runs={}",
    "store.url": "store.url={}",
    "store.cache_dir": "store.cache_dir={}",
    "dataset.train.path": "dataset.train={{kind: folder, path: '{}'}}",
    "dataset.train.files": "dataset.train={{kind: parquet, files: '{}'}}",
    "dataset.test.files": "dataset.test={{kind: webdataset, files: ['{}']}}",
    "dataset.train.folder": "dataset.train={{kind: archive, name: stl10, folder: '{}'}}",
    "teacher.model": "teacher={{backend: run, model: '{}'}}",
    "dataset.pairs": "dataset.pairs={}",
    "dataset.validation.source.path": "dataset.validation={{kind: folder, path: '{}'}}",
}


@pytest.mark.parametrize("wrong", ["s3:/bucket", "gs:bucket", "file://host/x"])
@pytest.mark.parametrize("key", CHANGES)
def test_what_is_no_folder_is_refused_with_its_key(key: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=f"^{key}: ") as caught:
        load_config("quickstart", [CHANGES[key].format(wrong)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", CHANGES)
def test_a_zero_byte_is_refused_with_its_key(key: str) -> None:
    change = CHANGES[key].format("X").replace("'X'", "X").replace("X", '"a\\0b"')
    with pytest.raises(UsageError, match=f"^{key}: .* zero byte"):
        load_config("quickstart", [change])


ELSEWHERE = (".path", ".files", ".pairs", "runs")


@pytest.mark.parametrize("key", ["store.url", *(key for key in CHANGES if key.endswith(ELSEWHERE))])
def test_stores_runs_and_images_may_lie_elsewhere(key: str) -> None:
    config = load_config("quickstart", [CHANGES[key].format("s3://bucket/x")])
    assert {k: t for k, t, _ in places(config)}[key] == "s3://bucket/x"


@pytest.mark.parametrize("key", ["store.cache_dir", "dataset.train.folder", "teacher.model"])
def test_a_url_is_no_path_of_this_machine(key: str) -> None:
    with pytest.raises(UsageError, match=f"^{key}: .* is a URL"):
        load_config("quickstart", [CHANGES[key].format("s3://bucket/x")])


@pytest.mark.parametrize("key", CHANGES)
def test_the_text_stays_as_it_was_written(key: str) -> None:
    config = load_config("quickstart", [CHANGES[key].format("~/x")])
    assert {k: t for k, t, _ in places(config)}[key] == "~/x"
    tree = with_places(config, lambda text, _: text.replace("~", "/home"))
    assert "/home/x" in str(tree)
    assert Config.model_validate(tree).name == config.name


def test_runs_are_below_the_home_folder_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WORK", str(tmp_path / "work"))
    for text, where in (
        ("~/x", tmp_path / "x"),
        ("$WORK/x", tmp_path / "work" / "x"),
        (f"file://{tmp_path}/x", tmp_path / "x"),
    ):
        config = load_config("quickstart", [f"runs={text}"])
        assert run_folder(config).path.is_relative_to(where)
        assert config.runs == text
    plain = load_config("quickstart", ["runs=runs"])
    assert run_folder(plain).path.name == run_folder(config).path.name
