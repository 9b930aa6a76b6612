"""Places on this machine that a configuration names: a path is never an identity, content is."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.results.checkpoints import pointed

FILES = "files"
"""Member of a stored teacher whose model is local: the SHA-256 of its files."""
LOCAL_DIR = "local-dir:"
"""What a folder's name begins with for timm and open_clip."""

_PACKAGE = "package:"
_WEIGHTS = (".safetensors", ".bin", ".npz", ".pt", ".pth")
_SETTINGS = {
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "processor_config.json",
}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METHOD = "egapipe teacher files 1"


def is_place(text: str) -> bool:
    """Whether a text that may be a name or a path is a path, as far as its letters tell."""
    starts = text.startswith((".", "/", "~", "$", "file:", LOCAL_DIR))
    return starts or (not text.startswith(_PACKAGE) and text.count("/") > 1 and ":" not in text)


def same_place(a: Any, b: Any) -> bool:
    """Whether two texts name one place: one of them may be relative, and be written elsewhere.

    What may be a name of the hub is a place of the current folder only.
    """
    if not isinstance(a, str) or not isinstance(b, str):
        return False
    if a == b:
        return True
    if not (is_place(a) or is_place(b)):
        return False
    try:
        one, two = (os.path.normpath(path_of(t.removeprefix(LOCAL_DIR))) for t in (a, b))
    except UsageError:  # a text of another machine, where its variables were set
        return False
    if os.path.abspath(one) == os.path.abspath(two):
        return True
    short, long = sorted((one, two), key=os.path.isabs)
    if os.path.isabs(short) or not os.path.isabs(long) or short.startswith(os.pardir):
        return False
    ambiguous = any(_HUB_NAME.fullmatch(text) for text in (a, b))
    return not ambiguous and Path(long).parts[-len(Path(short).parts) :] == Path(short).parts


def teacher_files(teacher: Mapping[str, Any]) -> str | None:
    """SHA-256 of the files of a teacher that lies on this machine, None if it does not lie here.

    teacher: the settings of one teacher, no ensemble, as plain values. Read once a node for as long
    as the files stay. Where the folder lies, and what it is called, changes nothing.
    """
    files = sorted(local_files(teacher))
    if not files:
        return None
    # Imported here: most commands ask only what is a place.
    from egapipe.pipeline.disk.digests import cached_digest

    folder = os.path.commonpath([file.parent for file in files])
    names = [os.path.relpath(file, folder) for file in files] if len(files) > 1 else []
    return cached_digest(
        files, json.dumps([_METHOD, names]), partial(_digest, files, json.dumps(names))
    )


def with_files(teacher: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher as a manifest has it, with the checksums of files that are on this machine.

    settings: of the configuration, as plain values; those of an ensemble's members lie in its
    `teachers`, and their checksums in `members`.
    """
    if settings.get("backend") != "ensemble":
        return _with(teacher, teacher_files(settings))
    found = teacher.get("members") or {}
    members = {
        name: _with(found.get(name, {}), teacher_files(member))
        for name, member in settings["teachers"].items()
    }
    return {**teacher, "members": members}


def _with(teacher: Mapping[str, Any], files: str | None) -> dict[str, Any]:
    rest = {key: value for key, value in teacher.items() if key != FILES}
    return rest if files is None else {**rest, FILES: files}


def is_local(teacher: Mapping[str, Any]) -> bool:
    """Whether the model of one teacher's settings is a place rather than a name."""
    model = str(teacher.get("model", ""))
    match teacher.get("backend"):
        case "run":
            return True
        case "onnx":
            return not model.startswith(_PACKAGE)
        case "transformers":
            return is_place(model) or Path(model).is_dir()
        case "timm" | "open_clip":
            return model.startswith(LOCAL_DIR)
    return False


def local_files(teacher: Mapping[str, Any]) -> Sequence[Path]:
    """The files of one teacher that lies on this machine, in no order; none where it does not."""
    if teacher.get("backend") == "open_clip" and teacher.get("pretrained"):
        file = path_of(str(teacher["pretrained"]))
        return [file.absolute()] if file.is_file() else []
    if not is_local(teacher):
        return []
    place = path_of(str(teacher["model"]).removeprefix(LOCAL_DIR)).absolute()
    match teacher.get("backend"):
        case "run":
            return _checkpoint(place, str(teacher.get("checkpoint", "last")))
        case "onnx":
            # Large weights lie beside it, in files that are called after it.
            return [p for p in place.parent.glob(f"{_escaped(place.name)}*") if p.is_file()]
    # Of transformers' only these are read: others can run code.
    weights = _WEIGHTS[:1] if teacher.get("backend") == "transformers" else _WEIGHTS
    return [
        p for p in place.glob("*") if p.is_file() and (p.suffix in weights or p.name in _SETTINGS)
    ]


def _checkpoint(run: Path, which: str) -> list[Path]:
    """A run's own description of its student, and the weights of the checkpoint that counts.

    The moving average, `ema`, lies in the last one and is all of the student.
    """
    try:
        folder = pointed(run / "checkpoints", "last" if which == "ema" else which)
    except UsageError:  # whoever loads the student says so
        return []
    if folder is None:
        return []
    weights = ["ema"] if which == "ema" else ["student", "heads"]
    files = [run / "model.json", *(folder / f"{name}.safetensors" for name in weights)]
    return [file for file in files if file.is_file()]


def _digest(files: Sequence[Path], names: str) -> str:
    digest = hashlib.sha256(names.encode())
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)
