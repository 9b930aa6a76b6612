"""Names in Markdown come back as they are, and make nothing: no markup, link, formula or cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from egapipe.pipeline.terminal.markdown import code, markdown, sentence, table
from egapipe.pipeline.terminal.text import visible

PARSER = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
NAMES = [
    "plain name",
    "digits_cnn",
    "__init__",
    "$x$ and $y",
    "{a} }b{",
    r"back\slash \| \\",
    "a|b||c|",
    "`tick` ``two`` `",
    "&amp; & &#65; <b>bold</b> <!-- x -->",
    "[link](https://example.org) ![x](y) <https://example.org> https://www.example.org",
    "*em* **strong** ~~gone~~ ^up^",
    "# heading",
    "- item",
    "1. first",
    "1) first",
    "+ item",
    "=====",
    "---",
    "> quote",
    "two\nlines\n\nand a third",
    "| a | b |\n|---|---|",
    " spaces at both ends ",
    "trailing dots...",
    "猫と犬 🐈\u200d⬛ Zwölf",
    ":smile: @user #1",
    "\x1b[31mred",
    "",
]
shown = st.text(st.sampled_from("ab \\`*_{}[]<>#|~$&!:.-+=()\n\t1猫"), max_size=12)


def words(tokens: list[Token]) -> str:
    """The text of a line; anything but text and code fails."""
    kinds = {token.type for token in tokens}
    assert kinds <= {"text", "text_special", "code_inline"}, kinds
    return "".join(token.content for token in tokens)


def inline(source: str) -> list[Token]:
    [*_, paragraph, _close] = PARSER.parse(f"Words {source}.")
    return paragraph.children or []


def cells(lines: list[str]) -> list[list[str]]:
    tokens = PARSER.parse("\n".join(lines))
    assert {token.type.removesuffix("_open").removesuffix("_close") for token in tokens} <= {
        *("table", "thead", "tbody", "tr", "th", "td", "inline")
    }
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            rows[-1].append(words(token.children or []))
    return rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("written", [markdown, code])
def test_a_name_comes_back_exactly(name: str, written: object) -> None:
    text = written(name)  # type: ignore[operator]
    assert words(inline(text)) == f"Words {visible(name)}."
    assert cells(table(["a", text], [["b", text], [text, "c"]])) == [
        ["a", visible(name)],
        ["b", visible(name)],
        [visible(name), "c"],
    ]
    heading, *_ = PARSER.parse(f"# {text}")[1:]
    assert words(heading.children or []) == visible(name)


@given(shown)
def test_any_name_comes_back_exactly(name: str) -> None:
    for written in (markdown, code):
        assert words(inline(written(name))) == f"Words {visible(name)}."
        assert cells(table(["a", written(name)], [])) == [["a", visible(name)]]


@given(shown)
def test_a_name_at_the_start_of_a_line_begins_nothing(name: str) -> None:
    tokens = PARSER.parse(markdown(name))
    assert [t.type for t in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    assert "".join(words(t.children or []) for t in tokens if t.type == "inline") == visible(name)


def test_a_plain_name_stays_readable() -> None:
    assert code("digits_cnn") == "`digits_cnn`"
    assert markdown("resnet8x4") == "resnet8x4"
    assert code("a|b") == r"a\|b"


@pytest.mark.parametrize(("text", "said"), [("it is", "it is."), ("it is.", "it is.")])
def test_a_sentence_has_one_full_stop(text: str, said: str) -> None:
    assert sentence(text) == said
