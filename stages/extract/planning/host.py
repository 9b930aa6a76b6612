"""Whether another host would extract what this one would: the same software, model and images."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from egapipe.pipeline.datasets import Images
from egapipe.pipeline.datasets.fingerprint import digests_of
from egapipe.pipeline.errors import EgapipeError, TeacherError, UsageError
from egapipe.pipeline.store import Manifest
from egapipe.stages.extract.planning.manifest import software
from egapipe.stages.extract.teachers import Teacher

Samples = Mapping[int, str]
"""Row -> SHA-256 of its image's bytes."""

# Places from the start to the end, rows drawn around each, and how far from it: rows that follow
# each other lie in one file, which a host may have to look through first.
_PLACES, _DRAWN, _AROUND = 3, 16, 500


def sample(dataset: Images) -> Samples:
    """Readable rows around three places from the start to the end of a data set: where a host has
    other images, some of these are others, unless hardly any is."""
    rng, rows = np.random.default_rng(0), set[int]()
    for place in np.linspace(0, len(dataset) - 1, _PLACES).round().astype(int):
        near = np.arange(max(0, place - _AROUND), min(len(dataset), place + _AROUND + 1))
        drawn = rng.choice(near, min(_DRAWN, len(near)), replace=False)
        rows |= {int(place), *drawn.tolist()}
    read = sorted(rows)
    digests = zip(read, digests_of(dataset, read), strict=True)
    return {row: digest.tobytes().hex() for row, digest in digests if digest.any()}


def check_images(dataset: Images, samples: Samples) -> None:
    """Raise UsageError if sampled images are not here as they were there.

    Without this, a host that lacks the folder would record every image as unreadable.
    """
    found = digests_of(dataset, list(samples))
    for (row, expected), digest in zip(samples.items(), found, strict=True):
        if digest.tobytes().hex() != expected:
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


def _refusal(key: str, here: str | None, expected: str | None) -> TeacherError:
    return TeacherError(
        f"{key} is {here} there, the extraction has {expected}: "
        "give every host the same software and model"
    )
