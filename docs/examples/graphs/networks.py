"""Students that see one node at a time, and an objective on a teacher's own logits."""

from itertools import pairwise

from torch import Tensor, nn

from egapipe.stages.distill.objectives import Facts, Objective, Pair
from egapipe.stages.distill.objectives.kd import kd_loss


class Layers(nn.Module):
    """Bands [B, 3, W] of a node's words to features [B, width], by three layers."""

    def __init__(self, inputs: int, width: int, bare: bool) -> None:
        super().__init__()
        self.bare = bare
        widths = [inputs, width, width, width]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Dropout(0.5 if place else 0.2), nn.Linear(*pair), nn.ReLU())
                for place, pair in enumerate(pairwise(widths))
            )
        )

    def forward(self, bands: Tensor) -> Tensor:
        """Bare words are the sum of the bands."""
        features: Tensor = self.layers(bands.sum(dim=1) if self.bare else bands.flatten(1))
        return features


def of_bands(words: int = 500, bands: int = 3, width: int = 64) -> Layers:
    """A student that sees what the graph makes of a node's words, and not the graph."""
    return Layers(bands * words, width, bare=False)


def of_words(words: int = 500, width: int = 64) -> Layers:
    """A student that sees a node's words alone."""
    return Layers(words, width, bare=True)


class StoredLogits(Objective):
    """KD of the pair's logits as they are stored, where `kd` has those of a head on embeddings."""

    needs = frozenset({"student_logits"})

    def __init__(self, facts: Facts | None, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, pair: Pair) -> Tensor:
        """`kd_loss` of the global batch."""
        [name] = self.features
        return kd_loss(
            pair.need("student_logits"),
            pair.sides(name).teacher,
            temperature=self.temperature,
            group=pair.group,
        )
