"""The evaluation transform of libraries that crop with torchvision."""

from dataclasses import dataclass

from egapipe.stages.extract.teachers.preprocessing import Preprocessing


@dataclass(frozen=True)
class TorchvisionPreprocessing(Preprocessing):
    """As `Preprocessing`, but a centre between two pixels is rounded as `CenterCrop` does it.

    For a margin of 15 pixels, transformers leaves out 7 at the top and torchvision 8.
    """

    def corner(self, image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the centre crop (height, width) of an image (height, width)."""
        return _margin(image[0], size[0]), _margin(image[1], size[1])


def _margin(length: int, crop: int) -> int:
    """What is left out before the crop; negative: what is added."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
