"""Several teachers in one pass over the images."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from egapipe.pipeline.config.teachers import EnsembleTeacher as Settings
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.durable import durable
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.extract.teachers.base import EMBEDDING, UNKNOWN, Loading, Outputs, Teacher
from egapipe.stages.extract.teachers.joint import JointPreprocessing

# From the most exact to the least.
_PRECISIONS = ("float32", "float16", "bfloat16")


class Ensemble:
    """Teachers that see the same views, each in its own preprocessing and precision.

    concat: one `embedding` [D1 + D2 + ...]; separate: the embedding of each under its name. Further
    outputs of a member are `<name>_<output>`.
    """

    def __init__(self, settings: Settings, members: Mapping[str, Teacher]) -> None:
        """Raises UsageError if two outputs would have one name."""
        self._members = dict(members)
        self._concat = settings.combine == "concat"
        self._normalize = settings.normalize
        self.preprocessing = JointPreprocessing({n: m.preprocessing for n, m in members.items()})
        self.spec = _spec(settings, self._members)
        self._names = self._stored_names()
        self.outputs = self._shapes()

    def to(self, device: torch.device) -> None:
        """Move every member's weights to a device."""
        for member in self._members.values():
            member.to(device)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Outputs:
        """Encode uint8 [B, P], see `JointPreprocessing`, into float32 [B, *shape] a name."""
        parts = self.preprocessing.split(pixels)
        found = {name: member.forward(parts[name]) for name, member in self._members.items()}
        outputs = {name: found[member][out] for (member, out), name in self._names.items()}
        if self._concat:
            embeddings = [given[EMBEDDING].to(pixels.device) for given in found.values()]
            outputs[EMBEDDING] = concatenate(embeddings, self._normalize)
        return outputs

    def _stored_names(self) -> dict[tuple[str, str], str]:
        """(Member, output of it) -> name in the store, of what is stored as the member gives it."""
        names = {
            (member, output): member if output == EMBEDDING else f"{member}_{output}"
            for member, teacher in self._members.items()
            for output in teacher.outputs
            if not (self._concat and output == EMBEDDING)
        }
        twice = [name for name, times in Counter(names.values()).items() if times > 1]
        if twice:
            raise UsageError(
                f"teacher.teachers: two outputs would be called {twice[0]}: rename a teacher"
            )
        return names

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        teachers = self._members
        shapes = {
            name: teachers[member].outputs[out] for (member, out), name in self._names.items()
        }
        if self._concat:
            shapes[EMBEDDING] = (sum(m.outputs[EMBEDDING][0] for m in teachers.values()),)
        return shapes


def concatenate(embeddings: list[Tensor], same_length: bool) -> Tensor:
    """Embeddings [B, D1], [B, D2], ... of n teachers side by side: [B, D], D = D1 + D2 + ...

    same_length: each is scaled to the length sqrt(D / n) before, so that all weigh the same in
    distances and products, and the numbers have a root mean square of 1.
    """
    if same_length:
        width = sum(embedding.shape[1] for embedding in embeddings)
        length = (width / len(embeddings)) ** 0.5
        embeddings = [length * normalize(embedding, dim=1) for embedding in embeddings]
    return torch.cat(embeddings, dim=1)


def load(settings: Settings, loading: Loading = UNKNOWN) -> Ensemble:
    """Load every member, see `load_teacher`. Raises what they raise.

    What is known is of all together: each member is tried, on the device.
    """
    each = Loading(device=loading.device)
    members = {name: load_teacher(member, each) for name, member in settings.teachers.items()}
    return Ensemble(settings, members)


def _spec(settings: Settings, members: Mapping[str, Teacher]) -> dict[str, Any]:
    """The configuration, what each member's came to, and what every teacher's spec has."""
    specs = {name: member.spec for name, member in members.items()}
    asked = durable(settings)
    found = {
        name: {key: value for key, value in spec.items() if key not in asked["teachers"][name]}
        for name, spec in specs.items()
    }
    precisions = [spec["precision"] for spec in specs.values()]
    digests = "".join(spec["sha256"] for spec in specs.values())
    return {
        **asked,
        "model": " + ".join(specs),
        "precision": max(precisions, key=_PRECISIONS.index),
        "members": found,
        "sha256": hashlib.sha256(digests.encode()).hexdigest(),
    }
