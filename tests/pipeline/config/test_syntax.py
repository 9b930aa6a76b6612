import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config.syntax import dump, parse

# A busy machine may stall any example: its time is not what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

TEXT = st.text(st.characters(codec="utf-8"))
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
LOOKALIKES = st.sampled_from(
    [
        *(
            "no",
            "1e3",
            "010",
            "08",
            "0o17",
            "0x1f",
            "12:30",
            "~",
            "",
            "null",
            "2001-01-01",
            "1_000",
        ),
        *("=", "<<", ".inf", "- x", "a: b", "#", "*a", "&a", "!x", "%", "@", "\x85", "\u2028"),
    ]
)
TREES = st.recursive(
    SCALARS | TEXT | LOOKALIKES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | LOOKALIKES, inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-.5E2", -50.0),
        ("5.", 5.0),
        ("+5", 5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, 1.0, a]", [1, 1.0, "a"]),
        ("{a: {b: null}}", {"a": {"b": None}}),
    ],
)
def test_the_core_types_of_yaml_1_2(text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "12:30", "2001-01-01", "1_000", "=", ".inf", ".nan", "0b11", "1e"]
)
def test_what_yaml_1_1_would_take_for_something_else_is_text(text: str) -> None:
    assert parse(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' comes twice"),
        ("a:\n  b: {c: 1, c: 2}", "line 2, column 13: the key 'c' comes twice"),
        ("1: x", "line 1, column 1: the key '1' is not text: quote it"),
        ("null: x", "line 1, column 1: the key 'null' is not text: quote it"),
        ("[a]: x", "line 1, column 1: the key of several values is not text: quote it"),
        ("a: 1e999", "line 1, column 4: '1e999' is not a finite number"),
        ("!!int x", "line 1, column 1: 'x' is not an integer"),
        ("!!int [1]", "line 1, column 1: 'a list or mapping' is not an integer"),
        ("!!bool maybe", "line 1, column 1: 'maybe' is not true or false"),
        ("9" * 5000, f"line 1, column 1: '{'9' * 20}' is not an integer"),
        ("a: [1,", "line 1, column 7: expected the node content, but found '<stream end>'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("--- 1\n--- 2", "expected a single document in the stream, but found another document"),
        ("a\0b", "special characters are not allowed"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "tag",
    [
        *(f"!!python/{kind}:os.mkdir" for kind in ("object/apply", "object/new", "name", "module")),
        *("!!python/tuple", "!!binary", "!!timestamp", "!!set", "!!omap", "!!pairs", "!!merge"),
        "!own",
    ],
)
def test_no_other_tag_is_constructed(tag: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(ValueError, match=f"^line 1, column 4: the tag {tag} is refused"):
        parse(f"a: {tag} [{str(made)!r}]")
    assert not made.exists()


def test_anchors_and_merges_are_plain_yaml() -> None:
    tree = parse("base: &b {x: 1, y: 2}\nmore: {<<: *b, x: 3}\nlist: [*b, *b]")
    assert tree["more"] == {"x": 3, "y": 2}
    assert dump(tree).count("&") == 0
    assert parse(dump(tree)) == tree


@given(st.dictionaries(TEXT | LOOKALIKES, TREES))
def test_what_is_dumped_is_parsed_back(tree: dict[str, object]) -> None:
    again = parse(dump(tree))
    # `repr` tells 1 from 1.0 and True, and the order of the keys.
    assert repr(again) == repr(tree)


@given(st.dictionaries(TEXT | LOOKALIKES, TEXT | LOOKALIKES | st.integers()))
def test_readers_of_yaml_1_1_see_the_same(tree: dict[str, object]) -> None:
    assert yaml.safe_load(dump(tree)) == tree


@given(st.text())
def test_any_text_is_a_value_or_a_mistake_of_one_line(text: str) -> None:
    try:
        value, problem = parse(text), "none"
    except ValueError as error:
        value, problem = None, str(error)
    assert value is None or isinstance(value, bool | int | float | str | list | dict)
    assert not isinstance(value, float) or math.isfinite(value)
    assert len(problem.splitlines()) == 1


def test_json_is_read_as_it_was_written() -> None:
    """It has two escapes for one character where YAML has one."""
    tree = {"cat \U0001f408": ["\U0001f408", "a\nb"]}
    assert parse(json.dumps(tree)) == tree
    for half in ('"\\ud83d"', '"\\udc08 x"', '{"\\ud83d": 1}'):
        with pytest.raises(ValueError, match=r"line 1, column .*half a character"):
            parse(half)
