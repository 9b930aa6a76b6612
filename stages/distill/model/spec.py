"""What a student is made of: enough to build it again without data set, teacher or store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import (
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from egapipe.pipeline.config.base import Positive, Section
from egapipe.pipeline.config.data import ArrayType, Normalize
from egapipe.pipeline.config.distill import StudentConfig
from egapipe.pipeline.config.explain import explain
from egapipe.pipeline.datasets.decoding.images import MAX_PIXELS
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.stages.distill.data.inputs.images import Frame
from egapipe.stages.distill.model.student import Head, Student
from egapipe.stages.distill.students import build_student

MODEL = "model.json"


class StudentSpec(Section):
    """The content of a run's model.json."""

    student: StudentConfig
    """The backbone."""
    features: Positive
    """Width F of the backbone's features."""
    dim: Positive | None
    """Width of the node layer."""
    classes: Positive
    """Outputs of the classifier."""
    class_names: list[str] | None
    """Their names, where known."""
    size: tuple[Positive, Positive] | None = None
    """(height, width) of the images that are its input."""
    normalize: Normalize | None = None
    """Their normalisation, part of the module."""
    array: ArrayType | None = None
    """In place of both: its input is an array of this shape."""
    aspect: Literal["keep"] | None = None
    """Of clean images that are not square the middle square is seen; None: they are stretched, as
    by all students of before."""

    @property
    def seen(self) -> Frame | ArrayType:
        """What the student sees of a row."""
        return self.frame if self.array is None else self.array

    @property
    def frame(self) -> Frame:
        """What the student sees of an image. Raises UsageError where it sees none."""
        if self.size is None:
            raise self._sees_none()
        return Frame(self.size, self.aspect)

    @property
    def levels(self) -> Normalize:
        """How its images are normalised. Raises UsageError where it sees none."""
        if self.normalize is None:
            raise self._sees_none()
        return self.normalize

    def _sees_none(self) -> UsageError:
        return UsageError(f"student {self.student.name} was trained on arrays, this is for images")

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = write(self)
        absent = ("array",) if self.array is None else ("size", "normalize", "aspect")
        return {key: value for key, value in tree.items() if key not in absent}

    @model_validator(mode="after")
    def _an_image(self) -> Self:
        if (self.size is None, self.normalize is None) != (self.array is not None,) * 2:
            raise ValueError("give size and normalize, or array")
        if self.size is None:
            return self
        height, width = self.size
        if height * width > MAX_PIXELS:
            raise ValueError(f"size {height} x {width} is more than {MAX_PIXELS:,} pixels")
        return self

    @classmethod
    def read(cls, content: object, where: str) -> Self:
        """The parts in a JSON object. Raises UsageError that names `where`, in one line."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UsageError(f"{where}: {explain(error, cls)}") from None

    def build(
        self, backbone: torch.nn.Module | None = None, *, trust_remote_code: bool = False
    ) -> Student:
        """The student with fresh weights, around a backbone if there is one already.

        trust_remote_code: whether a `module:callable` is imported, which runs it. Raises UsageError
        as `build_student` does.
        """
        if backbone is None:
            name, args = self.student.name, self.student.args
            backbone = build_student(name, args, trusted=trust_remote_code)
        return Student(backbone, Head(self.features, self.dim, self.classes), self.normalize)

    def build_for(
        self, shapes: Mapping[str, tuple[int, ...]], where: str, *, trust_remote_code: bool
    ) -> Student:
        """The student that weights of these names and shapes belong to.

        It takes no more memory than the weights: their shapes are compared first, and a file may
        ask for a network of any size. Raises UsageError if it is another's, and as `build` does.
        """
        # Networks of transformers take any sizes; those of timm and torchvision have theirs.
        name = self.student.name
        known = ":" not in name or name.startswith("transformers:")
        if known:
            try:
                with torch.device("meta"), _NothingDrawn():
                    planned = self.build()
            except (RuntimeError, OverflowError, MemoryError) as error:
                raise UsageError(f"{where} does not load: {one_line(error)}") from None
            own = {name: tuple(value.shape) for name, value in planned.state_dict().items()}
            if own != dict(shapes):
                odd = next(name for name in {**own, **shapes} if own.get(name) != shapes.get(name))
                raise UsageError(
                    f"{where} does not load: {odd} is {shape_text(shapes.get(odd))}, the student's "
                    f"is {shape_text(own.get(odd))}"
                )
        return self.build(trust_remote_code=trust_remote_code)


class _NothingDrawn(TorchFunctionMode):
    """Weights keep their place without a first value: torch imports its compiler to draw none."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Everything but drawing in place happens."""
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def shapes_in(file: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Name, behind `prefix`, -> shape of every tensor of a safetensors file, from its header.

    Raises UsageError if it is none.
    """
    try:
        with safe_open(file, "pt") as opened:
            names = opened.keys()
            return {prefix + name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{file} does not load: {one_line(error)}") from None


def shape_text(shape: tuple[int, ...] | None) -> str:
    """As errors say it; None is a weight that is not there."""
    return "missing" if shape is None else str(list(shape))
