"""Rules of single sections that their types do not say."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise

import pytest
from pydantic import BaseModel

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.base import Section
from egapipe.pipeline.config.explain import find
from egapipe.pipeline.errors import UsageError


def loaded(*overrides: str) -> Config:
    return load_config("quickstart", overrides)


def sections(model: type[BaseModel] = Section) -> Iterator[type[BaseModel]]:
    for section in model.__subclasses__():
        if section.__module__.startswith("egapipe.pipeline.config"):
            yield section
            yield from sections(section)


def described(section: type[BaseModel]) -> Iterator[str]:
    """The fields of a section, and of those that it is made from, below which there is a text."""
    for one in section.__mro__:
        if one is BaseModel:
            return
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if text and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                yield field.target.id


@pytest.mark.parametrize("section", [*sections()], ids=lambda section: section.__name__)
def test_every_key_is_described(section: type[BaseModel]) -> None:
    """The docstrings are the reference of the configuration."""
    assert section.__doc__
    assert {*described(section), "kind", "backend"} >= set(section.model_fields)


def test_a_configuration_cannot_be_changed() -> None:
    config = loaded()
    with pytest.raises(ValueError, match="frozen"):
        config.distill.lr = 1.0  # type: ignore[misc]


def test_an_objective_may_be_a_weight_alone() -> None:
    objective = loaded("distill.objective={ega: 2}").distill.objective
    assert objective.ega is not None
    assert objective.ega.weight == 2.0
    assert objective.ega.edge_weight == 0.24
    assert loaded("distill.objective={}").distill.objective.ega is None


def test_one_parquet_file_may_stand_without_a_list() -> None:
    source = loaded("dataset.train={kind: parquet, files: a.parquet}").dataset.train
    assert source.model_dump()["files"] == ["a.parquet"]


def test_failures_are_a_count_or_a_share() -> None:
    """1 is one image, 1.0 is all of them."""
    for text, value in (("0", 0), ("1", 1), ("0.0", 0.0), ("1.0", 1.0), ("1e-2", 0.01)):
        found = loaded(f"extract.max_failures={text}").extract.max_failures
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("views.scale=[0.5, 0.25]", "views: scale must be 0 < low <= high <= 1, got 0.5, 0.25"),
        ("views.scale=[0, 1]", "views: scale must be 0 < low <= high <= 1, got 0.0, 1.0"),
        ("views.ratio=[2, 1]", "views: ratio must be 0 < low <= high, got 2.0, 1.0"),
        (
            "distill.augment.scale=[1, 2]",
            "distill.augment: scale must be 0 < low <= high <= 1, got 1.0, 2.0",
        ),
        (
            "extract={min_workers: 3, max_workers: 2}",
            "extract: min_workers (3) is above max_workers (2)",
        ),
        ("distill={workers: 5, batch_size: 4}", "distill: batch_size 4 is below workers 5"),
        ("distill.seed=4294967296", "distill.seed must be less than 4294967296 (got 4294967296)"),
        (
            "compare.variants={a: {distill: {lr: 1}}}",
            "compare: variant 'a' would replace the whole section distill: write dotted paths,"
            " e.g. {distill.lr: ...}",
        ),
        ("name=../up", "name must match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$' (got '../up')"),
    ],
)
def test_values_that_do_not_go_together(override: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(override)
    assert str(caught.value) == f"config quickstart: {said}"


def test_stores_are_filed_under_the_name_or_at_the_url() -> None:
    assert loaded("name=mine").store_url("train") == "stores/mine/train.zarr"
    assert loaded("store.url=s3://bucket/x/").store_url("test") == "s3://bucket/x/test.zarr"


def test_test_images_have_the_clean_view_alone() -> None:
    config = loaded("views.count=3")
    assert config.view_plan("train") == config.views
    assert config.view_plan("test") == config.views.model_copy(update={"count": 0})


def test_the_test_split_may_be_missing() -> None:
    config = loaded("dataset.test=null")
    assert config.splits() == ["train"]
    assert config.source("test") is None
    assert config.source("train") == config.dataset.train
    assert loaded().splits() == ["train", "test"]


class Inner(Section):
    """One member of a union."""

    a: int


class Outer(Section):
    """A union without a discriminator, which no shipped section has so far."""

    member: Inner | int


def test_the_members_of_a_plain_union_are_no_keys() -> None:
    assert find(Outer, ("member", "Inner", "a")).name == "member.a"
    assert find(Outer, ("member", "int")).name == "member"
    assert find(Outer, ("member", "Inner", "b"), unknown=True).name == "member.b"
