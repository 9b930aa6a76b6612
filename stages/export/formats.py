"""The formats, by name."""

from collections.abc import Callable

from egapipe.stages.export.native import write_native
from egapipe.stages.export.onnx_files import write_onnx
from egapipe.stages.export.programs import write_program
from egapipe.stages.export.reduced import write_fp16, write_int8
from egapipe.stages.export.weights import write_safetensors
from egapipe.stages.export.written import Order, Written

WRITERS: dict[str, Callable[[Order], Written]] = {
    "safetensors": write_safetensors,
    "torch": write_program,
    "onnx": write_onnx,
    "onnx-fp16": write_fp16,
    "onnx-int8": write_int8,
    "native": write_native,
}
"""Name -> function that writes it, checks nothing, and says what it gives when it is read back."""
