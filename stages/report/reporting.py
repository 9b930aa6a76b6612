"""`run`: the page and the pictures of whatever a folder holds."""

import json
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.disk.files import read_json_object, replace_file
from egapipe.pipeline.disk.replacing import replacing
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.stages.compare.recorded import is_comparison
from egapipe.stages.report.figure import require_matplotlib
from egapipe.stages.report.of_comparison import comparison_sections
from egapipe.stages.report.of_run import run_sections, title
from egapipe.stages.report.of_sweep import sweep_sections
from egapipe.stages.report.page import POLICY, Section, page_html

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
    """Write the report of a run, comparison or sweep folder.

    to: folder of report.html and report/*.png, default the folder itself; an earlier report there
    is replaced, file by file, and nothing else. trust_remote_code: see `load_student`. Raises
    UsageError if it is none of these, a sweep is not finished, matplotlib is missing, or the page
    cannot be written.
    """
    # Without it nothing could be drawn: a page of reasons is no report.
    require_matplotlib()
    folder = open_run(path)
    heading, subtitle, sections = _content(folder, trust_remote_code)
    out = Path(to) if to is not None else folder.path
    if to is None:
        folder.fetch(PAGE, f"{PICTURES}/")
    page, names = out / PAGE, []
    with replacing(out, PAGE, _before(out), POLICY.encode()) as beside:
        (beside / PICTURES).mkdir()
        for figure in (figure for section in sections for figure in section.figures):
            names.append(f"{figure.name}.png")
            replace_file(beside / PICTURES / names[-1], figure.png)
        listed = json.dumps({"figures": names}) + "\n"
        replace_file(beside / PICTURES / LIST, listed.encode())
        replace_file(beside / PAGE, page_html(heading, subtitle, sections).encode())
    pictures = [out / PICTURES / name for name in names]
    if to is not None or folder.url is None:
        return Report(page, pictures, str(page))
    folder.replace_there(f"{PICTURES}/")
    folder.put(PAGE)
    return Report(page, pictures, f"{folder.url}/{PAGE}")


def _before(out: Path) -> list[str] | None:
    """What an earlier report left in a folder; None if no report of ours is there."""
    try:
        ours = POLICY in (out / PAGE).read_text("utf-8")
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


def _content(folder: RunFolder, trust_remote_code: bool) -> tuple[str, str, list[Section]]:
    if is_comparison(folder):
        name = folder.config().name
        return f"{name}: comparison", folder.path.name, comparison_sections(folder)
    if (folder.path / "trials").is_dir():
        name = folder.config().name
        return f"{name}: sweep", folder.path.name, sweep_sections(folder.path)
    if folder.has("store.json"):
        return *title(folder), run_sections(folder, trust_remote_code=trust_remote_code)
    raise UsageError(
        f"{folder.where} is no run, comparison or sweep: name a folder that `egapipe distill`, "
        "`compare` or `sweep` printed"
    )
