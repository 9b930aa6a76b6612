"""Whether another host would extract what this one would: the same software, model and images."""

import hashlib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from egapipe.pipeline.datasets import Images
from egapipe.pipeline.errors import EgapipeError, ImageError, TeacherError, UsageError
from egapipe.pipeline.store import Manifest
from egapipe.stages.extract.planning.manifest import software
from egapipe.stages.extract.teachers import Teacher

Samples = Mapping[int, str]
"""Row -> SHA-256 of its image's bytes."""

_SAMPLES = 3


def sample(dataset: Images) -> Samples:
    """A few readable rows from the start to the end of a data set."""
    rows = np.linspace(0, len(dataset) - 1, _SAMPLES).round().astype(int)
    digests = {int(row): _digest(dataset, int(row)) for row in rows}
    return {row: digest for row, digest in digests.items() if digest is not None}


def check_images(dataset: Images, samples: Samples) -> None:
    """Raise UsageError if sampled images are not here as they were there.

    Without this, a host that lacks the folder would record every image as unreadable.
    """
    for row, expected in samples.items():
        if _digest(dataset, row) != expected:
            raise UsageError(
                f"image {dataset.keys[row]} of data set {dataset.name} is missing or another one: "
                "make the images visible to every host at the same path"
            )


def check_teacher(teacher: Teacher, manifest: Manifest, versions: Mapping[str, str]) -> None:
    """Raise TeacherError unless weights and preprocessing are the manifest's, and software that of
    the host which hands out the work."""
    here = software()
    for name, expected in versions.items():
        if here.get(name) != expected:
            raise _refusal(f"versions.{name}", repr(here.get(name)), repr(expected))
    mine = manifest.asking(teacher=teacher.spec, preprocessing=teacher.preprocessing.to_json())
    for key, (stored, found) in manifest.changes(mine, loaded=True).items():
        raise _refusal(key, found, stored)


@contextmanager
def named_host() -> Iterator[None]:
    """Put the host's name before what is refused in a block."""
    try:
        yield
    except EgapipeError as error:
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from error


def _digest(dataset: Images, row: int) -> str | None:
    try:
        return hashlib.sha256(dataset.encoded(row)).hexdigest()
    except ImageError:
        return None


def _refusal(key: str, here: str | None, expected: str | None) -> TeacherError:
    return TeacherError(
        f"{key} is {here} there, the extraction has {expected}: "
        "give every host the same software and model"
    )
