"""A teacher's evaluation transform where only the configuration knows it."""

from egapipe.pipeline.config.teachers import PythonTeacher, Transform
from egapipe.stages.extract.teachers.array_input import ArrayInput
from egapipe.stages.extract.teachers.preprocessing import Preprocessing


def input_of(settings: PythonTeacher) -> Preprocessing | ArrayInput:
    """Our form of what a network of the user's own sees."""
    if settings.array is not None:
        return ArrayInput(settings.array)
    assert settings.preprocessing is not None  # noqa: S101  (one of both is given)
    return preprocessing_of(settings.preprocessing)


def preprocessing_of(transform: Transform) -> Preprocessing:
    """Our form of `teacher.preprocessing`."""
    size = transform.size
    height, width = (size, size) if isinstance(size, int) else size
    whole = transform.resize is None
    return Preprocessing(
        resize=(height, width) if transform.resize is None else transform.resize,
        crop=None if whole else (height, width),
        resample=transform.resample,
        rescale=1 / 255,
        mean=transform.mean,
        std=transform.std,
    )
