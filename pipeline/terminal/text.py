"""Names that users have given, where people read them: on one line, in a terminal's columns."""

import re
from collections.abc import Collection, Sequence

_LINES = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Of a column that gives way to others.
_NARROWEST = 6
# What has no picture of its own, or turns the text around it: directions, half of a pair.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """On one line: a line break is ↵, what cannot be seen is �; everything else as it is."""
    return _UNSEEN.sub("\ufffd", _LINES.sub("↵", text).replace("\t", " "))


def say(*lines: str, err: bool = False) -> None:
    """Print lines, each as one line of visible characters. err: on stderr.

    Whatever a command prints of names, paths and errors goes through here: an escape sequence in a
    file's name would be obeyed by the terminal.
    """
    import typer

    for line in lines:
        typer.echo(visible(line), err=err)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """A text, visible, in a column of so many cells of a terminal: an ideogram takes two of them.

    right: at the column's right end.
    """
    from rich.cells import cell_len

    shown = visible(text)
    room = " " * (width - cell_len(shown))
    return f"{room}{shown}" if right else f"{shown}{room}"


def widths(
    rows: Sequence[Sequence[str]], room: int, *, flexible: Collection[int] = (0,), gap: int = 2
) -> list[int]:
    """How wide the columns of a table are, in cells of a terminal: as their widest cell, but where
    all of them do not fit into `room`, those that are `flexible` give way, the widest first.

    A column of numbers that is cut says nothing; a name that is cut still says what it is.
    """
    from rich.cells import cell_len

    found = [max(cell_len(visible(cell)) for cell in of) for of in zip(*rows, strict=True)]
    over = sum(found) + gap * (len(found) - 1) - room
    while over > 0 and flexible:
        widest = max(flexible, key=lambda place: found[place])
        if found[widest] <= _NARROWEST:
            break
        found[widest] -= 1
        over -= 1
    return found


def columns(
    rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), gap: int = 2
) -> list[str]:
    """A table as lines: every column as wide as its widest cell, `gap` cells between two.

    left: columns that begin at their left end; numbers end at their right one.
    """
    from rich.cells import cell_len

    widths = [max(cell_len(visible(cell)) for cell in of) for of in zip(*rows, strict=True)]
    return [
        (" " * gap)
        .join(
            padded(cell, width, right=place not in left)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]
