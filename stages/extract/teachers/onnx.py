"""Teachers in ONNX files, run by onnxruntime: a graph of known operators, no code of its own."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.config.teachers import OnnxTeacher as Settings
from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.errors import TeacherError, UsageError, one_line
from egapipe.pipeline.machine.extras import require
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.weights import files_sha256
from egapipe.stages.extract.teachers.base import UNKNOWN, Loading
from egapipe.stages.extract.teachers.given import preprocessing_of
from egapipe.stages.extract.teachers.location import located_file
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.onnx_graph import (
    expose,
    external_files,
    free_size,
    image_input,
    read_graph,
    resolve,
)
from egapipe.stages.extract.teachers.outputs import asked_outputs, places
from egapipe.stages.extract.teachers.pooled import Pooled, Raw

# ONNX's numbers of the element types that images may have.
_TYPES = {1: torch.float32, 10: torch.float16}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3
_NO_MEMORY = "Failed to allocate memory"


class OnnxNetwork:
    """One tensor of an ONNX graph, or several, as a function of images."""

    def __init__(
        self,
        path: Path,
        output: str | None,
        others: Mapping[str, str] | None = None,
        *,
        any_size: bool = False,
    ) -> None:
        """Read a graph and open it on the CPU. Raises ValueError if the file does not fit.

        output: a tensor; None for the only output. others: tensors, and the settings that name
        them. any_size: the declared height and width of the input do not bind.
        """
        self._runtime = require("onnxruntime", "onnx", "teacher.backend=onnx")
        model = read_graph(path)
        if any_size:
            free_size(model)
        image = image_input(model).type.tensor_type
        if image.elem_type not in _TYPES:
            raise ValueError("its input is neither of float32 nor of float16")
        self.input = image_input(model).name
        self.shape = [dim.dim_value or None for dim in image.shape.dim]
        self.type = _TYPES[image.elem_type]
        self.files = [path, *external_files(model, path.parent)]
        self.output = resolve(model.graph, output)
        self._names = [self.output]
        for name, setting in (others or {}).items():
            self._names.append(resolve(model.graph, name, setting))
        expose(model, self._names)
        self._graph: bytes = model.SerializeToString()
        self._session = self._open(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        """Open the graph on a device.

        Raises UsageError if onnxruntime has no provider for it, TeacherError if it refuses.
        """
        try:
            self._session = self._open(device)
        except ValueError as error:
            name = self.files[0].name
            raise TeacherError(f"teacher {name} cannot be opened on {device}: {error}") from error

    def __call__(self, x: Tensor, /) -> Raw:
        """The output and the others, float32, of normalised images [B, 3, H, W].

        A graph with a fixed batch size is run as often as it takes.
        """
        x = x.to(self.type)
        fixed = self.shape[0]
        if fixed is None:
            return self._raw(self._run(x))
        padded = torch.cat([x, x[:1].expand(-len(x) % fixed, -1, -1, -1)])
        parts = [self._run(part) for part in padded.split(fixed)]
        return self._raw([torch.cat(same)[: len(x)] for same in zip(*parts, strict=True)])

    def _run(self, x: Tensor) -> list[Tensor]:
        """The tensors that are asked for, in their order."""
        x = x.contiguous()
        binding = self._session.io_binding()
        kind, number = x.device.type, x.device.index or 0
        element = np.float16 if x.dtype == torch.float16 else np.float32
        if kind == "cuda":
            # onnxruntime reads on a stream of its own.
            torch.cuda.current_stream(x.device).synchronize()
        binding.bind_input(self.input, kind, number, element, tuple(x.shape), x.data_ptr())
        distinct = list(dict.fromkeys(self._names))
        for name in distinct:
            binding.bind_output(name)
        with _explained():
            self._session.run_with_iobinding(binding)
        found = dict(zip(distinct, binding.copy_outputs_to_cpu(), strict=True))
        return [torch.from_numpy(found[name]).float() for name in self._names]

    def _raw(self, tensors: Sequence[Tensor]) -> Raw:
        """The output, and the others by their names."""
        return Raw(tensors[0], dict(zip(self._names[1:], tensors[1:], strict=True)))

    def _open(self, device: torch.device) -> Any:
        provider = _PROVIDERS[device.type]
        if provider not in self._runtime.get_available_providers():
            raise UsageError(
                f"onnxruntime has no {provider} here: install onnxruntime-gpu in its place, or set "
                "extract.device=cpu"
            )
        options = self._runtime.SessionOptions()
        # As elsewhere on the CPU: a pass has one thread, so that its sums have one order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        folder = str(self.files[0].resolve().parent)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
        # On by default: products of float32 would keep 10 of 23 bits.
        gpu = {"device_id": str(device.index or 0), "use_tf32": "0"}
        chosen = (provider, gpu if device.type == "cuda" else {})
        with _explained():
            return self._runtime.InferenceSession(self._graph, options, providers=[chosen])


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what onnxruntime raises, of no class but Exception, into a ValueError of one line, or a
    MemoryError."""
    try:
        yield
    except Exception as error:
        kind = MemoryError if _NO_MEMORY in str(error) else ValueError
        raise kind(one_line(error)) from error


def load(settings: Settings, loading: Loading = UNKNOWN) -> NetworkTeacher:
    """Load an ONNX file, see `load_teacher`. Raises UsageError if onnxruntime is not installed.

    It is tried on the CPU: onnxruntime may have no other provider here.
    """
    runtime = require("onnxruntime", "onnx", "teacher.backend=onnx")
    preprocessing = preprocessing_of(settings.preprocessing)
    path = located_file(settings.model)
    try:
        others = asked_outputs(settings)
        named = places(others)
        network = OnnxNetwork(path, settings.output, named, any_size=settings.any_size)
        _check_input(network.shape, preprocessing.input_size)
        spec = {
            **durable(settings),
            "resolved_output": network.output,
            "precision": str(network.type).removeprefix("torch."),
            "runtime": f"onnxruntime {runtime.__version__}",
            "sha256": cached_digest(network.files, "files", partial(files_sha256, network.files)),
        }
        pooled = Pooled(network, settings.pooling, settings.prefix_tokens, others)
        return NetworkTeacher(spec, pooled, preprocessing, Loading(loading.known))
    except ValueError as error:
        raise TeacherError(f"teacher {settings.model} cannot be used: {error}") from error


def _check_input(shape: Sequence[int | None], size: tuple[int, int]) -> None:
    """Raise ValueError if images [B, 3, *size] do not fit. shape: None is any length."""
    given = (None, 3, *size)
    fits = len(shape) == len(given) and all(
        None in (a, b) or a == b for a, b in zip(shape, given, strict=True)
    )
    if not fits:
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(
            f"its input is {wanted} (batch x channels x height x width), not any x 3 x {size[0]} x "
            f"{size[1]}: set teacher.preprocessing.size to what it takes, or teacher.any_size=true "
            "if its export alone fixed that"
        )
