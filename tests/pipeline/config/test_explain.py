"""What the user is told: one line, each place by its full name, for an unknown key a valid one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.base import Section
from egapipe.pipeline.config.data import SourceConfig
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import UsageError

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def keys(section: Section, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all keys of a configuration."""
    for name in type(section).model_fields:
        yield prefix + name
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from keys(value, f"{prefix}{name}.")


KEYS = list(keys(load_config("quickstart")))
KINDS = ", ".join(
    name
    for member in get_args(get_args(SourceConfig)[0])
    for name in get_args(member.model_fields["kind"].annotation)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def mistake(*overrides: str) -> str:
    """What is said of the quickstart with these overrides, without the name of the file."""
    with pytest.raises(UsageError) as caught:
        load_config("quickstart", overrides)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text.removeprefix("config quickstart: ")


def tree(**sections: Any) -> dict[str, Any]:
    source = {"kind": "digits"}
    teacher = {"backend": "transformers", "model": "x"}
    return {"name": "x", "dataset": {"train": source}, "teacher": teacher, **sections}


def told(content: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        check(content, "a.yaml")
    assert str(caught.value).startswith("config a.yaml: ")
    return str(caught.value).removeprefix("config a.yaml: ")


def test_there_are_keys_to_test() -> None:
    assert len(KEYS) > 80
    assert {"name", "distill.objective.ega.edge_weight", "dataset.train.split"} < set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_with_a_letter_too_many_is_refused_and_the_right_one_named(key: str) -> None:
    last = key.split(".")[-1]
    assert mistake(f"{key}{key[-1]}=1") == (f"{key}{key[-1]} is not a key, did you mean {last!r}?")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lr=1", "lr is not a key, did you mean 'distill.lr' or 'distill.head.lr'?"),
        (
            "distill.node_weight=1",
            "distill.node_weight is not a key, did you mean 'distill.objective.ega.node_weight'?",
        ),
        ("store.seed=1", "store.seed is not a key, did you mean 'distill.seed' or 'views.seed' or"),
        (
            "dataset.train.path=x",
            "dataset.train.path is not a key, it belongs to the kind folder",
        ),
        (
            "dataset.train.revision=x",
            "dataset.train.revision is not a key, it belongs to the kind hub",
        ),
        (
            "distill.student.zzz=x",
            "distill.student.zzz is not a key, valid keys: args, name",
        ),
    ],
)
def test_a_key_that_belongs_elsewhere(override: str, said: str) -> None:
    assert mistake(override).startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill.lr=fast", "distill.lr must be a number (got 'fast')"),
        ("distill.lr='0.1'", "distill.lr must be a number (got '0.1')"),
        ("distill.lr=true", "distill.lr must be a number (got true)"),
        ("distill.lr=", "distill.lr must be a number (it is empty)"),
        ("distill.lr=-1", "distill.lr must be greater than or equal to 0 (got -1)"),
        ("distill.lr=.inf", "distill.lr must be a number (got '.inf')"),
        ("distill.epochs=1.5", "distill.epochs must be an integer (got 1.5)"),
        ("distill.epochs=true", "distill.epochs must be an integer (got true)"),
        ("distill.epochs=0", "distill.epochs must be greater than or equal to 1 (got 0)"),
        ("distill.epochs=[1]", "distill.epochs must be an integer"),
        ("name=5", "name must be text (got 5)"),
        ("name=", "name must be text (it is empty)"),
        ("runs=''", "runs must have at least 1 character (got '')"),
        ("store.dtype=fp16", "store.dtype must be 'float16', 'bfloat16' or 'float32' (got 'fp16')"),
        ("extract.device=tpu", "extract.device must be 'auto', 'cpu' or 'cuda' (got 'tpu')"),
        ("views=3", "views must be a section of keys (got 3)"),
        ("distill=", "distill must be a section of keys (it is empty)"),
        ("distill.student.args=3", "distill.student.args must be a section of keys (got 3)"),
        ("distill.milestones=3", "distill.milestones must be a list (got 3)"),
        ("distill.milestones=[1, x]", "distill.milestones.1 must be a number (got 'x')"),
        ("views.scale=[0.1]", "views.scale.1 is missing"),
        ("views.scale=[0.1, 0.2, 0.3]", "views.scale must have at most 2 items, not 3"),
        ("compare.seeds=[]", "compare.seeds must have at least 1 item, not 0"),
        ("compare.variants={a-b: 3}", "compare.variants.a-b must be a section of keys (got 3)"),
        (
            "extract.max_failures=2.5",
            "extract.max_failures must be an integer or must be less than or equal to 1 (got 2.5)",
        ),
        (
            "extract.max_failures=true",
            "extract.max_failures must be an integer or must be a number (got true)",
        ),
        (
            "dataset.train={kind: parqet}",
            f"dataset.train.kind must be one of {KINDS} (got 'parqet')",
        ),
        ("dataset.train={}", f"dataset.train.kind must be one of {KINDS}"),
        ("dataset.train={kind: folder}", "dataset.train.path is missing"),
        ("dataset={}", "dataset.train is missing"),
        (
            "distill.objective.ega=x",
            "distill.objective.ega.weight must be a number or must be 'auto' (got 'x')",
        ),
        (
            "distill.student.args={a: &x [*x]}",
            "distill.student.args.a contains itself or is nested too deeply",
        ),
    ],
)
def test_a_value_that_does_not_fit(override: str, said: str) -> None:
    assert mistake(override) == said


def test_all_findings_are_told_at_once() -> None:
    said = mistake("distill.lr=x", "distil.lr=1", "extract.batch_size=0")
    assert sorted(said.split("; ")) == [
        "distil is not a key, did you mean 'distill'?",
        "distill.lr must be a number (got 'x')",
        "extract.batch_size must be greater than or equal to 1 or must be 'auto' (got 0)",
    ]


def test_a_file_without_the_sections_it_needs() -> None:
    assert told({}) == "name is missing; dataset is missing; teacher is missing"


def test_a_key_that_a_terminal_would_not_show_is_escaped() -> None:
    assert told(tree(**{"a\n\x1b[31m": 1})).startswith(r"'a\n\x1b[31m' is not a key")


def test_a_long_value_is_cut() -> None:
    said = mistake(f"store.dtype={'x' * 1000}")
    assert len(said) < 200


@given(st.sampled_from(KEYS), VALUES)
def test_any_value_anywhere_is_a_configuration_or_one_line(path: str, value: object) -> None:
    content = load_config("quickstart").model_dump(mode="json")
    *sections, last = path.split(".")
    section = content
    for name in sections:
        section = section[name]
    section[last] = value
    try:
        assert isinstance(check(content, "a.yaml"), Config)
    except UsageError as error:
        text = str(error)
        assert len(text.splitlines()) == 1
        assert text.isprintable()
        # The place itself or one below; a rule over several keys names their section.
        above = path.rpartition(".")[0]
        assert f" {path}" in text or f" {above}:" in text


@given(st.text(min_size=1).filter(lambda key: key not in Config.model_fields))
def test_any_other_key_is_refused(key: str) -> None:
    said = told(tree(**{key: 1}))
    assert " is not a key, " in said
    assert said.isprintable()


def test_shown_in_full_for_a_run_folder(tmp_path: Path) -> None:
    """The file's own name is part of the message."""
    file = tmp_path / "config.yaml"
    file.write_text("name: x\n")
    with pytest.raises(UsageError) as caught:
        load_config(str(file))
    assert str(caught.value) == f"config {file}: dataset is missing; teacher is missing"
