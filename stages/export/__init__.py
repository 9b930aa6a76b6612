"""Leave the pipeline: a trained student as files that other programs load."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.export.exporting import Checked, ExportReport, run
    from egapipe.stages.export.folder import load_exported

__all__ = ["FORMATS", "NATIVE", "Checked", "ExportReport", "load_exported", "run"]

FORMATS = ("safetensors", "torch", "onnx")
"""Of every student. safetensors: the weights beside a config.json; torch: a `torch.export` program;
onnx."""
NATIVE = "native"
"""A checkpoint that transformers, timm or torchvision load, of students that are their networks."""

__getattr__ = lazy(
    __name__,
    {
        "run": "exporting",
        "Checked": "exporting",
        "ExportReport": "exporting",
        "load_exported": "folder",
    },
)
