"""`run`: the page and the pictures of whatever a folder holds."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egapipe.pipeline.disk.files import read_json_object, replace_file
from egapipe.pipeline.disk.replacing import replacing
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.pipeline.results.experiment import is_experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder, open_run

if TYPE_CHECKING:
    from egapipe.stages.report.charts.figure import Figure
    from egapipe.stages.report.pages.document import Section

_log = logging.getLogger(__name__)
PAGE, PICTURES = "report.html", "report"
LIST = "figures.json"
"""In the folder of pictures: which of them are ours."""


@dataclass(frozen=True)
class Report:
    """page: the HTML file. pictures: the PNG files, in the order of the page. where: path or URL of
    the page."""

    page: Path
    pictures: list[Path]
    where: str


def run(
    path: str | Path, *, to: str | Path | None = None, trust_remote_code: bool = False
) -> Report:
    """Write the report of a run, comparison or sweep folder, or the index of a folder of them.

    to: folder of report.html and report/*.png, default the folder itself; an earlier report there
    is replaced, file by file, and nothing else. trust_remote_code: see `load_student`. Raises
    UsageError if it is none of these, a library of the extra is missing, or the page cannot be
    written.
    """
    # Without it nothing could be drawn: a page of reasons is no report.
    _require_libraries()
    from egapipe.stages.report.pages.document import MARK, page_html

    folder = open_run(path)
    out = Path(to) if to is not None else folder.path
    heading, subtitle, sections = _content(folder, out, trust_remote_code)
    if to is None:
        folder.fetch(PAGE, f"{PICTURES}/")
    page, names = out / PAGE, []
    with replacing(out, PAGE, _before(out, MARK), MARK.encode()) as beside:
        (beside / PICTURES).mkdir()
        for figure in (figure for section in sections for figure in section.figures):
            names += _picture(figure, beside / PICTURES)
        listed = json.dumps({"figures": names}) + "\n"
        replace_file(beside / PICTURES / LIST, listed.encode())
        replace_file(beside / PAGE, page_html(heading, subtitle, sections).encode())
    pictures = [out / PICTURES / name for name in names]
    if to is not None or folder.url is None:
        return Report(page, pictures, str(page))
    folder.replace_there(f"{PICTURES}/")
    folder.put(PAGE)
    return Report(page, pictures, f"{folder.url}/{PAGE}")


def _picture(figure: "Figure", folder: Path) -> list[str]:
    """Write a figure as a PNG file: its name, or nothing if it cannot be drawn."""
    name = f"{figure.name}.png"
    try:
        replace_file(folder / name, figure.png())
    except ValueError as error:
        _log.warning("%s could not be drawn and is left out: %s", name, one_line(error))
        return []
    return [name]


def _require_libraries() -> None:
    """Raise UsageError if one of those that pages are made with is not installed."""
    for module in ("jinja2", "altair", "vl_convert"):
        require(module, "report", "a report")


_OLDER = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The policy of the pages that had no other mark."""


def _before(out: Path, mark: str) -> list[str] | None:
    """What an earlier report left in a folder; None if no report of ours is there."""
    try:
        text = (out / PAGE).read_text("utf-8")
        ours = mark in text or _OLDER in text
    except (OSError, ValueError):
        ours = False
    if not ours:
        return None
    listed = out / PICTURES / LIST
    names = read_json_object(listed).get("figures") if listed.is_file() else []
    figures = names if isinstance(names, list) else []
    # The list may have been edited: nothing outside of the folder is ours.
    own = [name for name in figures if isinstance(name, str) and Path(name).name == name]
    return [PAGE, f"{PICTURES}/{LIST}", *(f"{PICTURES}/{name}" for name in own)]


def _content(
    folder: RunFolder, out: Path, trust_remote_code: bool
) -> "tuple[str, str, list[Section]]":
    # Imported when their libraries are known to be there.
    if is_experiment(folder):
        recorded = read_experiment(folder)
        kind, name = recorded.experiment.kind, folder.config().name
        if kind == "comparison":
            from egapipe.stages.report.pages.comparison import comparison_sections as sections_of
        else:
            from egapipe.stages.report.pages.sweep import sweep_sections as sections_of
        return f"{name}: {kind}", folder.path.name, sections_of(recorded)
    if folder.has("store.json"):
        from egapipe.stages.report.pages.run import run_sections, title

        return *title(folder), run_sections(folder, trust_remote_code=trust_remote_code)
    from egapipe.stages.report.pages.index import index_sections, is_index

    if folder.url is None and is_index(folder.path):
        return "Runs", folder.path.absolute().name, index_sections(folder.path, out, PAGE)
    raise UsageError(
        f"{folder.where} is no run, comparison or sweep, and has none in it: name a folder that "
        "`egapipe distill`, `compare` or `sweep` printed, or the one that they are in"
    )
