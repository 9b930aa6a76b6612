import os
import threading
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config, override, to_yaml
from egapipe.pipeline.config.files import is_part, read_tree, shipped
from egapipe.pipeline.config.load import check, parse_overrides
from egapipe.pipeline.config.merge import merge
from egapipe.pipeline.config.syntax import parse
from egapipe.pipeline.errors import UsageError

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

MINIMAL = """
name: mine
dataset: {train: {kind: folder, path: photos}}
teacher: {backend: transformers, model: facebook/dinov2-small}
"""

TEXT = st.text(st.characters(codec="utf-8"), min_size=1)
REALS = st.floats(0, 1e6) | st.integers(0, 10**6)
ARGS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
SOURCES = (
    st.builds(lambda n: {"kind": "digits", "limit": n}, st.none() | st.integers(1))
    | st.builds(lambda path: {"kind": "folder", "path": path}, TEXT)
    | st.builds(lambda files: {"kind": "parquet", "files": files}, st.lists(TEXT, min_size=1))
    | st.builds(lambda n, r: {"kind": "hub", "name": n, "revision": r}, TEXT, st.none() | TEXT)
)
SETTINGS = {
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True),
    "runs": TEXT,
    "dataset.train": SOURCES,
    "dataset.test": st.none() | SOURCES,
    "store.url": st.none() | TEXT,
    "views.scale": st.tuples(st.floats(1e-9, 0.5), st.floats(0.5, 1)).map(list),
    "extract.max_failures": st.integers(0, 10**9) | st.floats(0, 1),
    "distill.seed": st.integers(0, 2**32 - 1),
    "distill.student.args": ARGS,
    "distill.objective": st.just({}) | st.builds(lambda w: {"ega": w}, REALS),
    "distill.lr": REALS,
    "distill.milestones": st.lists(REALS),
    "distill.normalize": st.none() | st.just({"mean": [0.1, 0.2, 0.3], "std": [1, 0.5, 0.25]}),
    "compare.variants": st.dictionaries(TEXT, st.just({"distill.objective": {}, "distill.lr": 1})),
}
TREES = st.fixed_dictionaries({}, optional=SETTINGS).map(
    lambda values: override(read_tree("quickstart"), values)
)


def mistake(name: str | None, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(name, overrides)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def overridden(*overrides: str) -> Config:
    return load_config("quickstart", overrides)


# ------------------------------------------------------------------------------------ which file


def test_every_yaml_file_of_the_package_is_listed_and_loads() -> None:
    folder = Path(str(resources.files("egapipe.configs")))
    assert shipped() == sorted(file.stem for file in folder.glob("*.yaml"))
    assert {"cifar100", "quickstart"} <= set(shipped())
    for name in shipped():
        assert is_part(name) or load_config(name).name == name


def test_nothing_is_the_quickstart() -> None:
    assert load_config() == load_config("quickstart")


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL)
    config = load_config(str(tmp_path / "mine.yaml"))
    assert config.name == "mine"
    monkeypatch.chdir(tmp_path)
    assert load_config("mine.yaml") == config


def test_a_shipped_name_comes_before_a_file_and_a_path_reaches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quickstart").write_text(MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart").name == "quickstart"
    assert load_config("./quickstart").name == "mine"


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """What a shell makes of `-c <(egapipe config show ...)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(MINIMAL,))
    writer.start()
    assert load_config(str(pipe)).name == "mine"
    writer.join()


@pytest.mark.parametrize("name", ["quickstrat", "nowhere/x.yaml", "", ".", "a\0b", "x" * 5000])
def test_a_missing_file_is_told_with_the_names_there_are(name: str) -> None:
    said = mistake(name)
    if len(name) < 1000:
        assert said == (
            f"no config {name!r}: give the path of a YAML file or one of: {', '.join(shipped())}"
        )
    else:
        assert said.endswith("cannot be read: File name too long")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", " is empty: it must be a mapping of sections"),
        (b"# nothing\n", " is empty: it must be a mapping of sections"),
        (b"- a\n", " is a list: it must be a mapping of sections"),
        (b"text", " is a str: it must be a mapping of sections"),
        (b"name: \xff", " is not UTF-8 text: invalid start byte"),
        (b"name: a\nname: b", " is not usable YAML: line 2, column 1: the key 'name' comes twice"),
        (b"a: [", " is not usable YAML: line 1, column 5: expected the node content"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    text = mistake(str(file))
    assert str(file) in text
    assert said in text


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    made, file = tmp_path / "made", tmp_path / "a.yaml"
    file.write_text(f"{MINIMAL}runs: !!python/object/apply:os.mkdir [{str(made)!r}]\n")
    assert mistake(str(file)).endswith(
        "line 5, column 7: the tag !!python/object/apply:os.mkdir is refused:"
        " configurations are plain values"
    )
    assert "is refused" in mistake("quickstart", f"runs=!!python/object/apply:os.mkdir [{made}]")
    assert not made.exists()


# ------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("distill.lr=0.1", 0.1),
        ("distill.lr=1e-3", 0.001),
        ("distill.lr=1", 1.0),
        (" distill.lr = 0.5 ", 0.5),
        ("distill.labels_per_class=null", None),
        ("distill.labels_per_class=~", None),
        ("distill.labels_per_class=", None),
        ("distill.milestones=[0.5, 0.75]", (0.5, 0.75)),
        ("distill.milestones=[]", ()),
        ("distill.student.args={width: 8, act: relu}", {"width": 8, "act": "relu"}),
        ("distill.student.args.width=8", {"width": 8}),
        ("distill.student.args.deep.er=1e3", {"deep": {"er": 1000.0}}),
        ("distill.student.name=package.module:make", "package.module:make"),
        ("store.url=s3://bucket/a=b", "s3://bucket/a=b"),
        ("runs='007'", "007"),
        ("runs=no", "no"),
        ("compare.seeds=[5]", (5,)),
        ("extract.max_failures=1", 1),
        ("extract.max_failures=1.0", 1.0),
    ],
)
def test_a_value_is_yaml(override: str, value: object) -> None:
    config: Any = overridden(override)
    for name in override.partition("=")[0].strip().split("."):
        if isinstance(config, dict):
            break
        config = getattr(config, name)
    assert config == value
    assert type(config) is type(value)


@pytest.mark.parametrize(
    "override", ["distill.lr", "=1", "", " =1", ".lr=1", "distill.=1", "distill..lr=1", "a\nb=1"]
)
def test_an_override_of_another_form(override: str) -> None:
    assert mistake("quickstart", override) == (
        f"--set {override!r} is not of the form section.key=value"
    )


def test_a_value_that_is_not_yaml_says_how_to_quote_it() -> None:
    assert mistake("quickstart", "dataset.train.files=*.parquet") == (
        "--set dataset.train.files: '*.parquet' is not a YAML value (line 1, column 2: expected"
        " alphabetic or numeric character, but found '.'); put special characters in quotes:"
        " --set 'dataset.train.files=\"...\"'"
    )


def test_a_path_through_a_value() -> None:
    assert mistake("quickstart", "distill.lr=0.5", "distill.lr.x=1") == (
        "cannot set distill.lr.x: distill.lr is 0.5, not a section"
    )
    assert mistake("quickstart", "compare.seeds=[3]", "compare.seeds.0=1") == (
        "cannot set compare.seeds.0: compare.seeds is [3], not a section"
    )
    assert mistake("quickstart", "dataset.test.kind.x.y=1") == (
        "cannot set dataset.test.kind.x.y: dataset.test.kind is 'digits', not a section"
    )


def test_later_overrides_come_after_earlier_ones() -> None:
    assert overridden("distill.lr=1", "distill.lr=2").distill.lr == 2
    inner, whole = "distill.student.args.a=1", "distill.student.args={b: 2}"
    assert overridden(inner, whole).distill.student.args == {"b": 2}
    assert overridden(whole, inner).distill.student.args == {"a": 1, "b": 2}
    assert overridden(inner, whole, inner).distill.student.args == {"a": 1, "b": 2}


def test_an_objective_may_be_given_by_its_weight_first() -> None:
    config = load_config(
        "quickstart", ["distill.objective.ega=2", "distill.objective.ega.edge_weight=3"]
    )
    ega = config.distill.objective.ega
    assert ega is not None
    assert (ega.weight, ega.edge_weight) == (2, 3)
    with pytest.raises(UsageError, match=r"distill\.lr is 0\.01, not a section"):
        load_config("quickstart", ["distill.lr.weight=1"])


NUMBERS = st.floats(0, 9)
TERMS = st.none() | st.floats(0, 9) | st.dictionaries(st.sampled_from(["weight", "form"]), NUMBERS)
OBJECTIVES = st.dictionaries(st.sampled_from(["ega", "kd"]), TERMS)
UNDER = st.sampled_from(["ega", "kd", "ega.weight", "ega.form", "kd.weight"])


@given(OBJECTIVES, UNDER, NUMBERS)
def test_a_value_that_is_set_does_what_it_does_in_a_file(
    objective: dict[str, Any], path: str, value: float
) -> None:
    """`--set distill.objective.ega=1` keeps the options that a file's `ega: 1` keeps."""
    tree = {"distill": {"objective": objective}}
    above: Any = value
    for name in reversed(f"distill.objective.{path}".split(".")):
        above = {name: above}
    set_, merged = override(tree, {f"distill.objective.{path}": value}), merge([tree, above])
    # Either form of a weight is one.
    assert merge([{}, set_]) == merged


def test_the_weight_of_an_objective_leaves_its_options() -> None:
    ega = overridden("distill.objective.ega.edge_weight=3", "distill.objective.ega=2").distill
    assert ega.objective.ega is not None
    assert (ega.objective.ega.weight, ega.objective.ega.edge_weight) == (2, 3)
    whole = overridden("distill.objective.ega.edge_weight=3", "distill.objective={ega: 2}").distill
    assert whole.objective.ega is not None
    assert whole.objective.ega.edge_weight == 0.24


def test_a_section_that_is_set_forgets_its_other_keys() -> None:
    assert overridden("distill.epochs=7", "distill.lr=1").distill.epochs == 7
    assert overridden("distill.epochs=7", "distill={lr: 1}").distill.epochs == 240
    source = overridden("dataset.train={kind: folder, path: x}").dataset.train
    assert source.model_dump() == {"kind": "folder", "path": "x", "limit": None}


def test_a_missing_section_is_made() -> None:
    plain = override({"a": None}, {"a.b": 1, "c.d.e": 2})
    assert plain == {"a": {"b": 1}, "c": {"d": {"e": 2}}}


NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
SECTIONS = st.recursive(
    st.integers(), lambda inner: st.dictionaries(NAMES, inner), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


def leads_through_a_value(tree: dict[str, Any], path: str) -> bool:
    here: Any = tree
    for name in path.split(".")[:-1]:
        here = here.get(name, {})
        if not isinstance(here, dict):
            return True
    return False


@given(SECTIONS, PATHS, st.integers())
def test_an_override_sets_one_value_and_leaves_the_rest(
    tree: dict[str, Any], path: str, value: int
) -> None:
    before = deepcopy(tree)
    if leads_through_a_value(tree, path):
        with pytest.raises(UsageError, match=f"^cannot set {path}: "):
            override(tree, {path: value})
        assert tree == before
        return
    after = override(tree, {path: value})
    assert tree == before
    *sections, last = path.split(".")
    changed, original = after, before
    for name in sections:
        assert {k: v for k, v in changed.items() if k != name} == {
            k: v for k, v in original.items() if k != name
        }
        changed, original = changed[name], original.get(name, {})
    assert changed == {**original, last: value}


@given(st.lists(st.tuples(PATHS, st.integers()), max_size=6))
def test_overrides_are_applied_in_their_order(pairs: list[tuple[str, int]]) -> None:
    parsed = parse_overrides([f"{path}={value}" for path, value in pairs])
    last = list(dict.fromkeys(path for path, _ in reversed(pairs)))[::-1]
    assert list(parsed.items()) == [(path, dict(pairs)[path]) for path in last]


# ------------------------------------------------------------------------------------ round trip


@settings(max_examples=40)
@given(TREES)
def test_what_is_shown_loads_as_the_same_configuration(tree: dict[str, Any]) -> None:
    config = check(tree, "a.yaml")
    text = to_yaml(config)
    again = check(parse(text), "again.yaml")
    assert again == config
    assert to_yaml(again) == text


def test_what_is_shown_has_every_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINIMAL)
    config = load_config(str(tmp_path / "mine.yaml"))
    shown = parse(to_yaml(config))
    assert list(shown) == list(Config.model_fields)
    assert list(shown["distill"]) == list(type(config.distill).model_fields)
    assert shown["dataset"]["test"] is None
    assert shown["distill"]["student"] == {"name": "resnet8x4", "args": {}}
    (tmp_path / "shown.yaml").write_text(to_yaml(config))
    assert load_config(str(tmp_path / "shown.yaml")) == config
