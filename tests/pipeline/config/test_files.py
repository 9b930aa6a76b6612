"""Configurations built from others: bases, and parts joined by `+`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.config.files import parts, read_tree, shipped
from egapipe.pipeline.config.syntax import parse
from egapipe.pipeline.errors import UsageError
from tests.command import fresh_egapipe

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write `name.yaml` for each keyword, in an empty folder that commands run in."""
    monkeypatch.chdir(tmp_path)

    def files(**contents: str) -> str:
        for name, content in contents.items():
            Path(f"{name}.yaml").write_text(content)
        return f"{next(iter(contents))}.yaml"

    return files


def mistake(name: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(name)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


# ----------------------------------------------------------------------------------------- bases


def test_a_files_own_keys_come_after_those_of_its_base(write: Write) -> None:
    mine = write(mine="base: quickstart\nname: mine\ndistill: {lr: 0.5, head: {dim: 8}}")
    config, base = load_config(mine), load_config("quickstart")
    assert (config.name, config.distill.lr, config.distill.head.dim) == ("mine", 0.5, 8)
    head = base.distill.head.model_copy(update={"dim": 8})
    distill = base.distill.model_copy(update={"lr": 0.5, "head": head})
    assert config == base.model_copy(update={"name": "mine", "distill": distill})


def test_several_bases_are_merged_in_their_order(write: Write) -> None:
    c = write(c="base: [a.yaml, b.yaml]\nz: 3", a="x: 1\ny: 1\nz: 1", b="y: 2\nz: 2")
    assert read_tree(c) == {"x": 1, "y": 2, "z": 3}
    write(c="base: [b.yaml, a.yaml]")
    assert read_tree(c) == {"x": 1, "y": 1, "z": 1}


def test_a_base_is_looked_for_beside_the_file_that_names_it(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(top="x: 1", base="x: 2")
    (tmp_path / "deep" / "low.yaml").write_text("base: ../top.yaml")
    (tmp_path / "deep" / "lower.yaml").write_text("base: low.yaml")
    (tmp_path / "deep" / "top.yaml").write_text("x: 3")
    assert read_tree("deep/lower.yaml") == {"x": 1}
    absolute = tmp_path / "deep" / "top.yaml"
    assert read_tree(write(mine=f"base: {absolute}")) == {"x": 3}


def test_a_base_that_two_bases_share_does_not_undo_the_first(write: Write) -> None:
    last = write(
        last="base: [one.yaml, two.yaml]",
        one="base: root.yaml\nx: 1",
        two="base: ./root.yaml\ny: 1",
        root="x: 0\ny: 0\nz: 0",
    )
    assert read_tree(last) == {"x": 1, "y": 1, "z": 0}


def test_a_base_that_is_named_again_counts_again(write: Write) -> None:
    last = write(last="base: [one.yaml, root.yaml]", one="base: root.yaml\nx: 1", root="x: 0")
    assert read_tree(last) == {"x": 0}
    assert read_tree(write(beyond="base: last.yaml")) == {"x": 0}


def test_many_shared_bases_are_read_once_each(write: Write) -> None:
    """Two ways at each of 40 levels are 2^40 ways to the root."""
    files = {"f0": "x: 0"} | {f"f{n}": f"base: [f{n - 1}.yaml, s{n}.yaml]" for n in range(1, 41)}
    files |= {f"s{n}": f"base: f{n - 1}.yaml\ny{n}: {n}" for n in range(1, 41)}
    write(**files)
    assert read_tree("f40.yaml") == {"x": 0} | {f"y{n}": n for n in range(1, 41)}


def test_overrides_come_after_merging_and_what_is_shown_has_no_base(write: Write) -> None:
    mine = write(mine="base: quickstart\nname: mine\ndistill: {lr: 0.5}")
    shown = fresh_egapipe("config", "show", "-c", mine, "--set", "distill.lr=0.25").stdout
    assert shown == to_yaml(load_config(mine, ["distill.lr=0.25"]))
    tree = parse(shown)
    assert tree["distill"]["lr"] == 0.25
    assert "base" not in tree


def test_no_base_at_all(write: Write) -> None:
    assert read_tree(write(mine="base: []\nx: 1")) == {"x": 1}


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a": "base: a.yaml"}, "a.yaml -> a.yaml"),
        ({"a": "base: ./b.yaml", "b": "base: a.yaml"}, "a.yaml -> b.yaml -> a.yaml"),
        (
            {"a": "base: [quickstart, b.yaml]", "b": "base: c.yaml", "c": "base: b.yaml"},
            "a.yaml -> b.yaml -> c.yaml -> b.yaml",
        ),
    ],
)
def test_a_circle_of_bases_is_shown(write: Write, files: dict[str, str], circle: str) -> None:
    said = mistake(write(**files))
    assert said == f"config a.yaml has bases that lead in a circle: {circle}"


def test_a_missing_base_is_told_with_the_file_that_names_it(write: Write) -> None:
    said = mistake(write(a="base: b.yaml", b="base: quickstrat"))
    assert said == (
        "config b.yaml, base 'quickstrat': no config 'quickstrat': give the path of a YAML file"
        f" or one of: {', '.join(shipped())}"
    )


@pytest.mark.parametrize("value", ["5", "null", "{a: b}", "[quickstart, 5]", "[[quickstart]]"])
def test_a_base_that_is_no_name(write: Write, value: str) -> None:
    said = mistake(write(a=f"base: {value}"))
    assert said == ("config a.yaml: base must be the name of a configuration or a list of names")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- x", "config b.yaml is a list: it must be a mapping of sections"),
        ("", "config b.yaml is empty: it must be a mapping of sections"),
        ("x: [", "config b.yaml is not usable YAML: line 1"),
    ],
)
def test_a_base_that_is_no_configuration(write: Write, content: str, said: str) -> None:
    assert mistake(write(a="base: b.yaml", b=content)).startswith(said)


def test_a_mistake_of_the_command_is_one_line(write: Write) -> None:
    done = fresh_egapipe("config", "show", "-c", write(a="base: a.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: config a.yaml has bases that lead in a circle: a.yaml -> a.yaml\n"


# ----------------------------------------------------------------------------------------- parts


def test_joined_parts_are_the_bases_of_a_file(write: Write) -> None:
    mine = write(mine="base: [cifar100, dinov2-small, vgg13]\nname: cifar100-dinov2-small")
    assert load_config("cifar100+dinov2-small+vgg13") == load_config(mine)


def test_the_name_is_of_those_parts_that_have_one(write: Write) -> None:
    """The store is filed under it: the students of one data set and teacher share it."""
    assert load_config("cifar100").name == "cifar100"
    assert load_config("cifar100+vgg13").name == "cifar100"
    assert load_config("cifar100+dinov2-small").name == "cifar100-dinov2-small"
    one, two = (load_config(f"stl10+dinov2-base+{s}") for s in ("vgg13-64", "resnet8x4"))
    assert one.store_url("train") == two.store_url("train") == "stores/stl10-dinov2-base/train.zarr"
    mine = write(mine="base: stl10")
    assert load_config(f"stl10+{mine}").name == "stl10"


def test_a_part_that_a_base_has_too_counts_where_it_is_named() -> None:
    config = load_config("cifar100+vgg13+resnet8x4")
    assert config == load_config("cifar100")
    assert load_config("cifar100+resnet8x4+vgg13").distill.student.name == "vgg13"


def test_files_are_joined_too(write: Write) -> None:
    mine = write(mine="distill: {lr: 0.125}")
    config = load_config(f"cifar100+{mine}+sequential")
    assert (config.distill.lr, config.distill.head.mode) == (0.125, "sequential")


def test_a_file_with_a_plus_in_its_name_is_one_part(write: Write, tmp_path: Path) -> None:
    (tmp_path / "a+b.yaml").write_text("x: 1")
    assert parts("a+b.yaml") == ["a+b.yaml"]
    assert read_tree("a+b.yaml") == {"x": 1}
    assert parts("a+c.yaml") == ["a", "c.yaml"]


@pytest.mark.parametrize("name", ["cifar100+", "+vgg13", "cifar100++vgg13", "cifar100+vgg31"])
def test_a_part_that_there_is_not(name: str) -> None:
    missing = next(part for part in name.split("+") if part not in shipped())
    assert mistake(name).startswith(f"no config {missing!r}: give the path of a YAML file or one")


def test_parts_alone_say_what_they_lack() -> None:
    assert mistake("vgg13+sequential") == (
        "config vgg13+sequential is a part without a data set:"
        " join it to one, -c cifar100+vgg13+sequential"
    )
