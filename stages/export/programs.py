"""The student as a program of `torch.export`."""

import json
import zipfile
from pathlib import Path

import torch

from egapipe.pipeline.disk.files import json_object
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.machine.imports import TRUST
from egapipe.stages.distill.model.spec import StudentSpec
from egapipe.stages.export.folder import PROGRAM
from egapipe.stages.export.preprocessing import KEY, preprocessing
from egapipe.stages.export.written import Order, Run, Written, arrays, quiet

_SPEC = "egapipe.json"
_PREPROCESSING = f"{KEY}.json"


def write_program(order: Order) -> Written:
    """Write a program of any batch size, with what the student is made of inside."""
    said = {_SPEC: order.spec.model_dump(mode="json"), _PREPROCESSING: preprocessing(order.spec)}
    extra = {name: json.dumps(value) for name, value in said.items()}
    file = order.folder / PROGRAM
    torch.export.save(order.program, file, extra_files=extra)
    return Written(PROGRAM, open_program(file, trusted=True)[0])


def open_program(file: Path, *, trusted: bool) -> tuple[Run, StudentSpec]:
    """An exported program, run on the CPU, and what its student is made of.

    torch reads such a file through pickle, which runs whatever the file says. Raises UsageError if
    it is not trusted, is no such file, or does not say what its student is made of.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    if not trusted:
        raise UsageError(
            f"{file} is a program of torch.export, which is read through pickle and may run "
            f"anything: take the .onnx or the folder; or {TRUST}"
        )
    extra: dict[str, str] = {_SPEC: ""}
    try:
        with quiet():
            program = torch.export.load(file, extra_files=extra)
    except (RuntimeError, ValueError, LookupError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is no program of torch.export: {one_line(error)}") from None
    if not extra[_SPEC]:
        raise UsageError(f"{file} does not say what its student is made of: export the run again")
    spec = StudentSpec.read(json_object(extra[_SPEC], f"{file}, {_SPEC}"), str(file))
    return arrays(program.module()), spec
