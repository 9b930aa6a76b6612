"""The folder of an exported student.

model.safetensors  every weight of the student
config.json        what it is made of: a `StudentSpec`, with the format's name
model.pt2          the program of `torch.export`
model.onnx         the same as ONNX; model-fp16.onnx, model-int8.onnx: of lower precision
preprocessor.json  from a picture to the input of these
transformers/      or timm/, torchvision/: a checkpoint of that library, see `native`
README.md          the model card
export.json        how each file was checked, and how fast it is
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from egapipe.pipeline.disk.files import read_json_object
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.stages.distill.model.spec import StudentSpec, shapes_in
from egapipe.stages.distill.model.student import Student

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PROGRAM, ONNX = "model.pt2", "model.onnx"
FP16, INT8 = "model-fp16.onnx", "model-int8.onnx"
PREPROCESSOR = "preprocessor.json"
CARD, RECORD = "README.md", "export.json"
LIBRARIES = ("transformers", "timm", "torchvision")
"""Folders of checkpoints in the format of a library."""
OURS = "egapipe"
"""Folder of a repository of the hub with the student as egapipe loads it, where a checkpoint of
another library lies at the top."""
NATIVE_PREPROCESSOR = "preprocessor_config.json"
OWN = (
    *(CONFIG, WEIGHTS, PROGRAM, ONNX, FP16, INT8, PREPROCESSOR, CARD, RECORD),
    *(f"{name}/{file}" for name in LIBRARIES for file in (CONFIG, WEIGHTS, NATIVE_PREPROCESSOR)),
)
"""All files that an export may write."""
FORMAT = {"format": "egapipe-student", "format_version": 1}
"""What config.json begins with."""


def load_exported(
    folder: str | Path, *, trust_remote_code: bool = False
) -> tuple[Student, StudentSpec]:
    """The student of an exported folder, on the CPU in evaluation mode, and what it is made of.

    trust_remote_code: import the `module:callable` that the folder names, which runs it; without it
    only registered students and those of timm and torchvision are built. Raises UsageError if the
    folder holds none, or its files are damaged.
    """
    folder = Path(folder)
    spec, weights = read_config(folder / CONFIG), folder / WEIGHTS
    student = spec.build_for(shapes_in(weights), str(weights), trust_remote_code=trust_remote_code)
    try:
        student.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UsageError(f"{weights} does not load: {one_line(error)}") from None
    return student.to(torch.device("cpu")).eval(), spec


def read_config(file: Path) -> StudentSpec:
    """A config.json as `save_student` writes it. Raises UsageError."""
    content = read_json_object(file)
    if content.get("format") != FORMAT["format"]:
        raise UsageError(f"{file} is not that of an exported student: run `egapipe export` again")
    if content.get("format_version") != FORMAT["format_version"]:
        raise UsageError(
            f"{file} has the format version {content.get('format_version')!r}, this egapipe reads "
            f"{FORMAT['format_version']}: export the run again"
        )
    return StudentSpec.read({k: v for k, v in content.items() if k not in FORMAT}, str(file))
