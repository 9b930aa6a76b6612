"""`run`: the page and the pictures of whatever a folder holds."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.files import replace_file
from egapipe.pipeline.runs import RunFolder
from egapipe.stages.compare.folder import RECORD
from egapipe.stages.report.of_comparison import comparison_sections
from egapipe.stages.report.of_run import run_sections, title
from egapipe.stages.report.of_sweep import sweep_sections
from egapipe.stages.report.page import Section, page_html

PAGE, PICTURES = "report.html", "report"


@dataclass(frozen=True)
class Report:
    """page: the HTML file. pictures: the PNG files, in the order of the page."""

    page: Path
    pictures: list[Path]


def run(
    path: str | Path, *, to: str | Path | None = None, trust_remote_code: bool = False
) -> Report:
    """Write the report of a run, comparison or sweep folder.

    to: folder of report.html and report/*.png, default the folder itself. Raises UsageError if it
    is none of these, a sweep is not finished, or matplotlib is missing.
    """
    folder = Path(path)
    heading, subtitle, sections = _content(folder, trust_remote_code)
    out = Path(to) if to is not None else folder
    pictures = out / PICTURES
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    written = []
    for figure in (figure for section in sections for figure in section.figures):
        file = pictures / f"{figure.name}.png"
        replace_file(file, figure.png)
        written.append(file)
    replace_file(out / PAGE, page_html(heading, subtitle, sections).encode())
    return Report(out / PAGE, written)


def _content(folder: Path, trust_remote_code: bool) -> tuple[str, str, list[Section]]:
    if (folder / RECORD).is_file():
        name = RunFolder(folder).config().name
        return f"{name}: comparison", f"{folder.name}", comparison_sections(folder)
    if (folder / "trials").is_dir():
        name = RunFolder(folder).config().name
        return f"{name}: sweep", f"{folder.name}", sweep_sections(folder)
    if (folder / "store.json").is_file():
        run = RunFolder(folder)
        return *title(run), run_sections(run, trust_remote_code=trust_remote_code)
    raise UsageError(
        f"{folder} is no run, comparison or sweep: name a folder that `egapipe distill`, `compare` "
        "or `sweep` printed"
    )
