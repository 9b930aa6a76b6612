"""The canonical text of a manifest, written here as docs/store.md says it, without Python's own."""

import json
import math
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.manifest import canonical
from egapipe.pipeline.store.records.record import sha256
from tests.pipeline.store.samples import create, make_manifest
from tests.pipeline.store.test_create import rewrite_manifest

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


_WIDE = Context(prec=2000)


def text_of(value: Any) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return '"' + "".join(map(character, value)) + '"'
        case int():
            return f"{value:d}"
        case float():
            return number(value)
        case list():
            return "[" + ",".join(map(text_of, value)) + "]"
    members = (f"{text_of(name)}:{text_of(value[name])}" for name in sorted(value, key=code_points))
    return "{" + ",".join(members) + "}"


def code_points(text: str) -> list[int]:
    return [ord(character) for character in text]


def character(one: str) -> str:
    return ESCAPES.get(one, f"\\u{ord(one):04x}" if ord(one) < 32 else one)


def number(value: float) -> str:
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    sign, figures, shift = shortest(value).as_tuple()
    assert isinstance(shift, int)
    digits = "".join(map(str, figures)).rstrip("0")
    exponent = shift + len(figures) - 1
    minus = "-" if sign else ""
    if -4 <= exponent <= 15:
        if exponent < 0:
            return f"{minus}0.{'0' * (-exponent - 1)}{digits}"
        digits = digits.ljust(exponent + 1, "0")
        return f"{minus}{digits[: exponent + 1]}.{digits[exponent + 1 :] or '0'}"
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{minus}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def shortest(value: float) -> Decimal:
    """The decimal of fewest digits that reads back as the same double, the nearest of them."""
    exact = Decimal(value)
    for digits in range(17):
        unit = Decimal(1).scaleb(exact.adjusted() - digits)
        # Below a power of two doubles lie closer: there only the farther one may read back.
        near = [exact.quantize(unit, rounding, _WIDE) for rounding in (ROUND_DOWN, ROUND_UP)]
        same = [found for found in near if float(found) == value]
        if same:
            return min(
                same, key=lambda found: (abs(found - exact), found.as_tuple().digits[-1] % 2)
            )
    raise AssertionError(value)


@given(VALUES)
@example(2.0**-24)
@example(2.0**-1074)
@example(9007199254740993.0)
def test_it_is_the_text_that_is_specified(value: Any) -> None:
    text = canonical(value)
    assert text == text_of(value)
    assert canonical(json.loads(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (1, "1"),
        (4 / 3, "1.3333333333333333"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        ({"ä": 1, "z": 2, "a": []}, '{"a":[],"z":2,"ä":1}'),
        # By UTF-16 code units, as in RFC 8785, the second would come first.
        ({"\uffff": 1, "\U0001f600": 2}, '{"\uffff":1,"\U0001f600":2}'),
        ('"\\/\x7f\x1f\n', '"\\"\\\\/\x7f\\u001f\\n"'),
    ],
)
def test_examples(value: Any, text: str) -> None:
    assert canonical(value) == text == text_of(value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_there_is_no_text_of_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(value)


def test_the_hash_of_a_manifest_stays() -> None:
    """A hash that moved would make another content of every store."""
    manifest = make_manifest(
        teacher={"name": "größer", "scale": 1.0, "tiny": 1e-7, "sizes": [1, 2]}
    )
    assert manifest.hash() == "4f36eee7dce3e2ee69d0538fadfe9532ec12777b0f2542e6d449d84a36627345"


def test_the_hash_is_of_what_is_stored(memory: str) -> None:
    """Another program may write a whole number as an integer."""
    store = create(memory)
    views = {**store.manifest.views.model_dump(mode="json"), "flip": 1, "scale": [0.5, 1]}
    tree = rewrite_manifest(store, views=views)
    manifest = FeatureStore.open(memory).manifest
    assert manifest.hash() == sha256(text_of(tree).encode())
    assert manifest.plan.flip == 1.0
    assert not manifest.changes(manifest.asking(views={**views, "flip": 1.0, "scale": (0.5, 1.0)}))
