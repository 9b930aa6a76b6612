"""`run`: an export as a model repository of the hub."""

from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.disk.files import read_json_object, read_regular
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.hub import Content, Repository
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.stages.export.card import loading
from egapipe.stages.export.exporting import EXPORT
from egapipe.stages.export.folder import (
    CARD,
    CONFIG,
    LIBRARIES,
    OURS,
    OWN,
    PROGRAM,
    RECORD,
    WEIGHTS,
)

# torch.export is read through pickle, which nobody should have to trust; the record says how fast
# this machine is.
_KEPT_HERE = (PROGRAM, RECORD)


_PLACES = (
    *(own.rpartition("/")[2] for own in OWN),
    *(f"{OURS}/{own}" for own in (CONFIG, WEIGHTS)),
)
"""All paths that a push may write."""


@dataclass(frozen=True)
class PushReport:
    """files: paths in the repository. sent: how many of them were not there before."""

    url: str
    files: list[str]
    sent: int


def run(place: str | Path, name: str, *, private: bool = False) -> PushReport:
    """Send an export to the model repository `user/name`, which is made if it is not there.

    place: a run folder or the folder of an export. A checkpoint of transformers, timm or
    torchvision lies at the top of the repository, where these libraries look for it, and the
    student as egapipe loads it in `egapipe/`; else that lies at the top. Only files that `export`
    writes are sent. Raises UsageError (nothing is exported, a file is a link, the hub refuses) or
    EgapipeError (the hub cannot be reached: run it again to continue).
    """
    folder = _export(place)
    record = read_json_object(folder / RECORD)
    native = record.get("native")
    if native is not None and native not in LIBRARIES:
        raise UsageError(f"{folder / RECORD} is damaged: run `egapipe export` again")
    repository = Repository(name, "model")
    files = {
        path: Content.of_file(folder / own, folder) for path, own in placed(folder, native).items()
    }
    files[CARD] = Content.of_bytes(on_hub(_card(folder), native, name).encode())
    repository.create(private=private)
    # An earlier export may have had more formats, or another library.
    gone = [path for path in _PLACES if path not in files]
    sent = repository.send(files, message="egapipe push", gone=gone)
    return PushReport(repository.url, sorted(files), sent)


def placed(folder: Path, native: str | None) -> dict[str, str]:
    """Path in the repository -> path in an export, of its files but the card."""
    present = [own for own in OWN if (folder / own).is_file() and own not in _KEPT_HERE]
    places: dict[str, str] = {}
    for own in present:
        library, slash, name = own.partition("/")
        if slash and library == native:
            places[name] = own
        elif not slash and own != CARD:
            places[f"{OURS}/{own}" if native and own in (CONFIG, WEIGHTS) else own] = own
    return places


def on_hub(card: str, native: str | None, name: str) -> str:
    """The card's text with the repository's name in the place of local folders."""
    text = card.replace("FOLDER_OF_THIS_FILE", "DOWNLOADED" + f"/{OURS}" * bool(native))
    if native:
        text = text.replace("\n".join(loading(native)), "\n".join(loading(native, name)))
    return text


def _card(folder: Path) -> str:
    """The text of an export's card. Raises UsageError if it is a link or no text."""
    file = folder / CARD
    Content.of_file(file, folder)
    try:
        return read_regular(file).decode("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {one_line(error)}") from None


def _export(place: str | Path) -> Path:
    """The folder of an export; of a run elsewhere it is brought."""
    folder: RunFolder = open_run(place)
    folder.fetch(RECORD, f"{EXPORT}/")
    found = next((f for f in (folder.path, folder.path / EXPORT) if (f / RECORD).is_file()), None)
    if found is not None and found != folder.path and found.is_symlink():
        raise UsageError(f"{found} is a link: name the folder that you mean")
    if found is None or not (found / CARD).is_file():
        raise UsageError(f"{folder.where} has no export: run `egapipe export {folder.where}` first")
    if found == folder.path and folder.url is not None:
        folder.fetch(*OWN)
    return found
