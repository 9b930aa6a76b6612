"""What is kept of a configuration does not change when the configuration grows."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, create_model

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.base import Section
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.extract import ExtractConfig
from egapipe.pipeline.results import durable as module
from egapipe.pipeline.results.durable import FORMAT_1, durable, later
from egapipe.pipeline.results.identity import run_identity
from egapipe.pipeline.store.format.stored import StoredViews, unknown_members
from egapipe.pipeline.views import plan_hash
from egapipe.stages.sweep.folder import sweep_identity
from tests.pipeline.store.samples import make_manifest

# Neither stored nor part of a run's identity.
OTHER_SECTIONS = {"extract", "compare", "cluster"}
NORMALIZE = "{mean: [0.5, 0.5, 0.5], std: [1, 1, 1]}"
ENSEMBLE = (
    "{backend: ensemble, teachers: {a: {backend: timm, model: vit}, b: {backend: onnx, "
    "model: b.onnx, preprocessing: {size: 8}}}}"
)
CONFIGS = {
    "quickstart": [],
    "cifar100-hub+dinov2-small+vgg13": ["distill.objective={ega: 1, crd: {negatives: 9}, kd: 1}"],
    "digits": [f"teacher={ENSEMBLE}", "dataset.unlabelled=[{kind: digits}, {kind: digits}]"],
    "several": [
        f"distill.normalize={NORMALIZE}",
        "dataset.train={kind: several, sources: [{kind: folder, path: a}, {kind: archive, "
        "name: stl10}, {kind: webdataset, files: b.tar}, {kind: parquet, files: c.parquet}]}",
    ],
    "imported": [f"teacher={{backend: imported, model: m, normalize: {NORMALIZE}}}"],
}


def config(name: str) -> Config:
    return load_config(name if "+" in name else "quickstart", CONFIGS[name])


def extended(value: Any, added: Any = 7) -> Any:
    """The same tree as a later version has it: a new member with a default in every section.

    added: the value of all of them.
    """
    if isinstance(value, ExtractConfig):
        return value
    if isinstance(value, BaseModel):
        kind = type(value)
        later = create_model(kind.__name__, __base__=kind, added=(int, Field(7, description="x")))
        members = {name: extended(getattr(value, name), added) for name in kind.model_fields}
        return later.model_construct(**members, added=added)
    if isinstance(value, list | tuple):
        return type(value)(extended(part, added) for part in value)
    if isinstance(value, dict):
        return {key: extended(part, added) for key, part in value.items()}
    return value


def sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type):
        if issubclass(annotation, Section):
            yield annotation
            for name, field in annotation.model_fields.items():
                if annotation is not Config or name not in OTHER_SECTIONS:
                    yield from sections(field.annotation)
        return
    for part in typing.get_args(annotation):
        yield from sections(part)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_new_setting_at_its_default_changes_nothing(name: str) -> None:
    old = config(name)
    new = extended(old)
    assert new.distill.student.added == 7
    # Sections that are no part of an identity may have what they like.
    kept = {key: value for key, value in durable(new).items() if key not in OTHER_SECTIONS}
    assert kept == {k: v for k, v in durable(old).items() if k not in OTHER_SECTIONS}
    assert set(FORMAT_1["DistillConfig"].split()) <= kept["distill"].keys()
    assert run_identity(new) == run_identity(old)
    assert sweep_identity(new) == sweep_identity(old)
    assert plan_hash(new.views) == plan_hash(old.views)
    manifests = [
        make_manifest(views=c.views, teacher=durable(c.teacher), views_hash=plan_hash(c.views))
        for c in (old, new)
    ]
    assert manifests[0].hash() == manifests[1].hash()
    assert not manifests[0].differences(manifests[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_new_setting_that_is_used_counts(name: str) -> None:
    old = config(name)
    new = extended(old, added=8)
    assert run_identity(new) != run_identity(old)
    assert sweep_identity(new) != sweep_identity(old)
    assert durable(new.teacher)["added"] == 8
    assert plan_hash(new.views) != plan_hash(old.views)
    # Views that the stored format cannot express are not stored as others.
    with pytest.raises(ValidationError, match="added"):
        StoredViews.of(new.views)


def test_what_absence_means_stays_when_a_default_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Format 1 had no such setting and did as for 3; a later version has 7 as its default."""
    monkeypatch.setattr(module, "LATER", {"ViewsConfig": {"added": 3}})
    assert durable(extended(ViewsConfig(), added=3)) == durable(ViewsConfig())
    assert durable(extended(ViewsConfig()))["added"] == 7


def test_what_absence_means_is_said_once_for_all_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATER", {"Source": {"added": 3}})
    source = config("quickstart").dataset.train
    assert durable(extended(source, added=3)) == durable(source)
    assert durable(extended(source))["added"] == 7
    assert later(type(source)) == {"added": 3}


def test_every_setting_is_of_format_1_or_says_what_its_absence_means() -> None:
    """Add a new setting to LATER, with the value that describes what was done without it."""
    missing = {
        f"{section.__name__}.{name}"
        for section in sections(Config)
        for name in section.model_fields
        if name not in FORMAT_1.get(section.__name__, "").split()
        and name not in later(section)
        and section.__name__ in FORMAT_1
    }
    assert missing == set()


def test_no_teacher_of_today_is_unknown() -> None:
    for name in CONFIGS:
        found = {"class": "ViT", "sha256": "0" * 64, "files": "0" * 64, "runtime": "1"}
        assert list(unknown_members({**durable(config(name).teacher), **found})) == []


def test_a_plan_is_stored_and_replayed_as_it_was() -> None:
    plan = ViewsConfig(seed=5, count=3, crop="scale", scale=(0.1, 0.5), flip=0.0)
    assert StoredViews.of(plan).plan() == plan
    assert StoredViews.of(plan).model_dump(mode="json") == durable(plan)


def test_every_part_of_a_plan_can_be_stored() -> None:
    """A new one becomes a member of StoredViews that may be absent, and of LATER."""
    assert set(StoredViews.model_fields) == set(ViewsConfig.model_fields)
