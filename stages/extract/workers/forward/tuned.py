"""A teacher whose forward pass is rearranged for speed: another memory layout, compiled code."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.disk.paths import use_cache
from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.mathematics.timing import one_thread
from egapipe.pipeline.store import Manifest
from egapipe.stages.extract.decoding.reduced import Reduced
from egapipe.stages.extract.teachers import Known, Loading, Outputs, Teacher, load_teacher
from egapipe.stages.extract.teachers.base import received
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.workers.forward.jpegs import DecodingTeacher
from egapipe.stages.extract.workers.forward.memory import is_out_of_memory


def open_teacher(config: Config, manifest: Manifest | None = None) -> Teacher:
    """The teacher of a configuration, as `extract` runs it, see `load_teacher`.

    manifest: of a store that it is for, which tells its outputs: it is not tried then. Else it is,
    on a GPU where there is one that may be used.
    """
    use_cache(config.store.cache_dir)
    settings = config.extract
    gpu = settings.device != "cpu" and torch.cuda.is_available()
    known = None if manifest is None else Known(manifest.teacher, manifest.outputs)
    loading = Loading(known, torch.device("cuda" if gpu else "cpu"))
    teacher = load_teacher(config.teacher, loading)
    if settings.canvas is not None:
        resizing = OnDevice(teacher, settings.canvas)
        teacher = DecodingTeacher(resizing) if settings.jpeg == "device" else resizing
    return tuned(
        ReducingTeacher(teacher) if settings.jpeg == "reduced" else teacher,
        settings.usual_batch,
        channels_last=settings.channels_last,
        compiled=settings.compile,
    )


def tuned(teacher: Teacher, batch_size: int, *, channels_last: bool, compiled: bool) -> Teacher:
    """A teacher with one or both, or itself.

    Either may change the last bits of an embedding, so that each is named in the teacher's spec: a
    store is never continued with another setting. batch_size: views in one forward pass.
    """
    if not (channels_last or compiled):
        return teacher
    return TunedTeacher(teacher, batch_size, channels_last=channels_last, compiled=compiled)


def uncompiled(teacher: Teacher) -> Teacher:
    """A teacher without code that is compiled for one size of batches."""
    if isinstance(teacher, TunedTeacher) and teacher.spec.get("compiled"):
        return teacher.plain
    return teacher


class ReducingTeacher:
    """A `Teacher` whose JPEG images are decoded at less than their size, see `Reduced`."""

    def __init__(self, teacher: Teacher) -> None:
        self.spec, self.outputs = teacher.spec, teacher.outputs
        self.preprocessing = Reduced(teacher.preprocessing)
        self.to, self.forward = teacher.to, teacher.forward


class TunedTeacher:
    """A `Teacher` around another one."""

    def __init__(
        self, teacher: Teacher, batch_size: int, *, channels_last: bool, compiled: bool
    ) -> None:
        asked = {"channels_last": channels_last, "compiled": compiled}
        self.spec: dict[str, Any] = {**teacher.spec, **{k: True for k, v in asked.items() if v}}
        self.preprocessing = teacher.preprocessing
        self.outputs = teacher.outputs
        self.plain = teacher
        """The one inside."""
        self.receive = partial(received, teacher)
        """See `received`."""
        self._batch_size = batch_size
        self._channels_last = channels_last
        self._compiled = compiled

    def to(self, device: torch.device) -> None:
        """Move the weights to a device, and compile there.

        Raises TeacherError if there is no compiler, or the network does not compile.
        """
        self.plain.to(device)
        shape = (self._batch_size, *self.preprocessing.shape)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        networks = self._networks(pixels[:1])
        if self._channels_last:
            for network in networks:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._compiled:
            for network in networks:
                network.compile(dynamic=False)
            # The code is for so many threads: one a pass, as on the CPU, see `OnCpu`.
            with one_thread() if device.type == "cpu" else nullcontext():
                self._first_pass(pixels)

    def resize(self, batch_size: int) -> None:
        """Take batches of another size: code that is compiled already is compiled again for it."""
        self._batch_size = batch_size

    def forward(self, pixels: Tensor) -> Outputs:
        """Encode uint8 [B, 3, H, W], see `Teacher`.

        Compiled code is for one batch size: a smaller batch is filled up with its first image.
        """
        count = len(pixels)
        if self._compiled and count < self._batch_size:
            rest = pixels[:1].expand(self._batch_size - count, *pixels.shape[1:])
            pixels = torch.cat([pixels, rest])
        if self._channels_last and pixels.ndim == 4:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return {name: output[:count] for name, output in self.plain.forward(pixels).items()}

    def _networks(self, pixels: Tensor) -> list[nn.Module]:
        with _outermost_modules() as found:
            self.plain.forward(pixels)
        if not found:
            raise TeacherError(
                f"teacher {self.spec['model']} does not run in torch: set extract.channels_last "
                "and extract.compile to false"
            )
        return found

    def _first_pass(self, pixels: Tensor) -> None:
        try:
            self.forward(pixels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                # The first batch runs into it again, and is taken in parts then.
                return
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason")
            raise TeacherError(
                f"teacher {self.spec['model']} cannot be compiled on {pixels.device}: {reason}: "
                "install a C++ compiler, or set extract.compile=false"
            ) from error


@contextmanager
def _outermost_modules() -> Iterator[list[nn.Module]]:
    """The modules that are called in a block by anything but another module."""
    found: list[nn.Module] = []
    depth = 0

    def enter(module: nn.Module, _: Any) -> None:
        nonlocal depth
        if depth == 0 and module not in found:
            found.append(module)
        depth += 1

    def leave(_module: nn.Module, _input: Any, _output: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = nn.modules.module
    entering = hooks.register_module_forward_pre_hook(enter)
    leaving = hooks.register_module_forward_hook(leave, always_call=True)
    try:
        yield found
    finally:
        entering.remove()
        leaving.remove()
