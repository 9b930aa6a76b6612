"""What users have named is shown on one line, in columns that stay columns, and printed so."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import egapipe.pipeline.terminal.text
from egapipe.pipeline.terminal.text import columns, padded, say, visible

ROOT = Path(inspect.getfile(egapipe.pipeline.terminal.text)).parents[1]
# As it is, and as it has to be seen.
NAMES = {
    "$x$ and {y}": "$x$ and {y}",
    r"back\slash": r"back\slash",
    "two\nlines": "two↵lines",
    "three\r\nmore\x0blines\u2028here": "three↵more↵lines↵here",
    "\x1b[31mred\x1b[0m": "\ufffd[31mred\ufffd[0m",
    "\u202eturned": "\ufffdturned",
    "half \udcff": "half \ufffd",
    "tab\there": "tab here",
    "猫と犬": "猫と犬",
    "cat 🐈\u200d⬛": "cat 🐈\u200d⬛",
    "נקבה": "נקבה",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_on_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visible(name) == NAMES[name]
    say(name, f"run: {name}")
    say(name, err=True)
    printed = capsys.readouterr()
    assert printed.out == f"{NAMES[name]}\nrun: {NAMES[name]}\n"
    assert printed.err == f"{NAMES[name]}\n"


@given(st.text())
def test_what_is_visible_stays_so(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert len(visible(text).splitlines()) <= 1
    assert visible(text).encode().decode().isprintable() or " " in text or not text.isprintable()


def test_columns_are_as_wide_as_they_look() -> None:
    rows = [["variant", "n", "top-1 %"], *([name, "3", "12.50"] for name in NAMES)]
    lines = columns(rows)
    assert len({cell_len(line) for line in lines}) == 1
    for line, (name, *_) in zip(lines, rows, strict=True):
        assert line.startswith(visible(name))
    assert columns([["a", "1"], ["", ""]], left=(0, 1)) == ["a  1", ""]
    assert padded("猫", 4) == "猫  "
    assert padded("猫", 4, right=True) == "  猫"


def code() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("pipeline", "stages"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            # What is measured there has the names of this project.
            if "bench" not in file.parts and file.name != "text.py":
                yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text("utf-8"))


def test_no_table_counts_characters_for_cells() -> None:
    """Texts are padded by `columns` and `padded` alone: `<20` and `ljust` know no wide ones."""
    found = []
    for file, tree in code():
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
                form = ast.unparse(node.format_spec).strip("f'\"")
                # Of a number the sort of it is said: f, g, e, d, %, or a comma.
                if re.fullmatch(r".?[<>^]\{?\w*\}?", form):
                    found.append(f"{file}: {ast.unparse(node)}")
            if isinstance(node, ast.Attribute) and node.attr in ("ljust", "rjust", "center"):
                found.append(f"{file}: {ast.unparse(node)}")
    assert found == []


# Words of ours, JSON and YAML, which have escapes of their own, and what other programs printed.
PRINTED = (
    r"typer\.echo\('[^']*'(, err=True)?\)",
    r"typer\.echo\('\w+' if [\w.]+ else '[\w ]+'\)",
    r"typer\.echo\(json\.dumps\(\w+\)\)",
    r"typer\.echo\(to_yaml\(.*\), nl=False\)",
    r"typer\.echo\((text|jobs\.logs\(job\)), nl=False\)",
    r"typer\.echo\(f'egapipe \{version\('egapipe'\)\}'\)",
    r"typer\.echo\(f'\{typer\.style\(padded\(name, width\), bold=True\)\}  \{visible\(value\)\}'\)",
    r"print\(json\.dumps\(content\), file=self\._stream, flush=True\)",
)


def test_whatever_a_command_prints_goes_through_one_place() -> None:
    found = []
    for file, tree in code():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in (
                "typer.echo",
                "click.echo",
                "print",
                "typer.secho",
            ):
                continue
            text = ast.unparse(node).replace('"', "'")
            if not any(re.fullmatch(allowed, text) for allowed in PRINTED):
                found.append(f"{file}: {text}")
    assert found == []
