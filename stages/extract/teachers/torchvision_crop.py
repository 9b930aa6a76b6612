"""The evaluation transform of libraries that crop with torchvision."""

from dataclasses import dataclass

from PIL import Image

from egapipe.stages.extract.teachers.preprocessing import Preprocessing


@dataclass(frozen=True)
class TorchvisionPreprocessing(Preprocessing):
    """As `Preprocessing`, but a centre between two pixels is rounded as `CenterCrop` does it.

    For a margin of 15 pixels, transformers leaves out 7 at the top and torchvision 8.
    """

    def centre(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The centre crop (height, width) of an image; zeros outside it."""
        top, left = _margin(image.height, size[0]), _margin(image.width, size[1])
        return image.crop((left, top, left + size[1], top + size[0]))


def _margin(length: int, crop: int) -> int:
    """What is left out before the crop; negative: what is added."""
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)
