"""A teacher's evaluation transform where only the configuration knows it."""

from egapipe.pipeline.config.teachers import Transform
from egapipe.stages.extract.teachers.preprocessing import Preprocessing


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
