"""Forward passes of as many views at once as there is memory for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import Outputs, Teacher
from egapipe.stages.extract.teachers.base import Damaged, ignored, received
from egapipe.stages.extract.workers.forward.memory import is_out_of_memory

Note = Callable[[str], None]


def unheard(text: str) -> None:
    """Nobody is told."""


def out_of_memory(teacher: Teacher, device: torch.device) -> TeacherError:
    """What to say of a teacher that even a single image is too much for."""
    where, share = "machine", ""
    if device.type == "cuda":
        where, share = "GPU", "set extract.gpus_per_worker=1 where workers share one, "
    return TeacherError(
        f"teacher {teacher.spec['model']} runs out of {device} memory with a single image: end "
        f"what else uses the {where}, {share}set teacher.precision=bfloat16, or use a {where} with "
        "more"
    )


class Passes:
    """A teacher that takes a batch in parts once it was too large.

    A part divides the batch, so that views meet in the same passes as in a run with batches of that
    size from the start: the outputs are the same bits.
    """

    def __init__(
        self, teacher: Teacher, device: torch.device, batch_size: int, note: Note = unheard
    ) -> None:
        """batch_size: views at once, to begin with. note: told in a line that memory ran out."""
        self.size = batch_size
        """Views in one pass at most."""
        self.used = {batch_size: None}
        """All sizes since they were last looked at, in their order."""
        self._teacher = teacher
        self._device = device
        self._batch_size = batch_size
        self._note = note
        self._floor = _Floor()

    def forward(self, pixels: Tensor, damaged: Damaged = ignored) -> Outputs:
        """Encode uint8 [B, *shape] of host memory, pinned beside a GPU, see `Teacher`.

        damaged: told of images that turn out to be, of one perhaps more than once. Raises
        TeacherError if even a single view is too much.
        """
        size = min(self.size, len(pixels))
        with self._floor.shared():
            outputs = self._try(pixels, size, damaged)
        while outputs is None:
            # Passes beside this one hold memory, too: the next try waits for their end.
            with self._floor.alone():
                size = self._smaller(size)
                outputs = self._try(pixels, size, damaged)
        return outputs

    def sizes(self) -> list[int]:
        """All sizes since the last call, in their order."""
        used, self.used = list(self.used), {self.size: None}
        return used

    def _try(self, pixels: Tensor, size: int, damaged: Damaged) -> Outputs | None:
        """None if there is too little memory; the failed pass has let go of its own by then."""
        try:
            parts = [
                self._part(pixels[start : start + size], partial(_told, damaged, start))
                for start in range(0, len(pixels), size)
            ]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise out_of_memory(self._teacher, self._device) from error
            return None
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _part(self, pixels: Tensor, damaged: Damaged) -> Outputs:
        return self._teacher.forward(received(self._teacher, pixels, self._device, damaged))

    def _smaller(self, size: int) -> int:
        """The size of the next try: another thread may have found one meanwhile."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.size >= size:
            self.size = smaller(self._batch_size, size)
            self.used[self.size] = None
            self._resize()
            self._note(
                f"{size} images at once are too much for the memory of {self._device}: going on "
                f"with {self.size} (extract.batch_size)"
            )
        return self.size

    def _resize(self) -> None:
        """Compiled code is for one size."""
        resize = getattr(self._teacher, "resize", None)
        if resize is not None:
            resize(self.size)


def _told(damaged: Damaged, start: int, position: int, reason: str) -> None:
    damaged(start + position, reason)


def smaller(batch_size: int, size: int) -> int:
    """The largest part of a batch that is at most half as large and divides it."""
    return next(part for part in range(max(1, size // 2), 0, -1) if batch_size % part == 0)


class _Floor:
    """Where several may be at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._there = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be there beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._there += 1
        try:
            yield
        finally:
            with self._changed:
                self._there -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else is there, and keep the others away."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._there == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
