"""Several evaluation transforms as one: an image is decoded once, and each sees it its own way."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from egapipe.pipeline.views import View
from egapipe.stages.extract.teachers.preprocessing import Pixels, Preparation, random_pixels


class JointPreprocessing:
    """The pixels of every member, flat and one behind the other: uint8 [P].

    Nothing is resized twice: each member's pixels are exactly those it has alone. Members with
    equal pixels share them.
    """

    def __init__(self, members: Mapping[str, Preparation]) -> None:
        """members: name -> its own transform."""
        self._members = dict(members)
        self._distinct: list[Preparation] = []
        self._part: dict[str, int] = {}
        for name, member in self._members.items():
            known = [_pixels_of(other) for other in self._distinct]
            if _pixels_of(member) not in known:
                self._distinct.append(member)
                known.append(_pixels_of(member))
            self._part[name] = known.index(_pixels_of(member))
        self._ends = np.cumsum([math.prod(member.shape) for member in self._distinct]).tolist()

    @property
    def shape(self) -> tuple[int, ...]:
        """(P,): the numbers of all members' pixels."""
        return (self._ends[-1],)

    def clean(self, image: Image.Image) -> Pixels:
        """All evaluation transforms of an RGB image. Raises ImageError if one of them has none."""
        return np.concatenate([member.clean(image).ravel() for member in self._distinct])

    def view(self, image: Image.Image, view: View) -> Pixels:
        """One crop and flip of an RGB image, resized for every member."""
        return np.concatenate([member.view(image, view).ravel() for member in self._distinct])

    @property
    def least(self) -> tuple[int, int] | None:
        """See `Preparation`; of the member that wants most."""
        all_least = [member.least for member in self._distinct]
        known = [least for least in all_least if least is not None]
        if len(known) < len(all_least):
            return None
        return max(height for height, _ in known), max(width for _, width in known)

    def split(self, pixels: Tensor) -> dict[str, Tensor]:
        """Member -> uint8 [B, *its shape], out of uint8 [B, P]; nothing is copied."""
        starts = [0, *self._ends]
        return {
            name: pixels[:, starts[part] : starts[part + 1]].unflatten(1, self._members[name].shape)
            for name, part in self._part.items()
        }

    def noise(self, count: int) -> Pixels:
        """See `Preparation`."""
        return random_pixels(count, self.shape)

    def to_json(self) -> dict[str, Any]:
        """Each member's, and the mean and standard deviation of the first for everybody who asks
        for one of each."""
        members = {name: member.to_json() for name, member in self._members.items()}
        first = next(iter(members.values()))
        return {"mean": first["mean"], "std": first["std"], "members": members}


def _pixels_of(member: Preparation) -> tuple[type, dict[str, Any]]:
    """What decides a member's pixels: all but what is done to them on the device."""
    on_device = ("rescale", "mean", "std")
    settings = {k: v for k, v in member.to_json().items() if k not in on_device}
    return type(member), settings
