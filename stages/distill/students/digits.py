"""A small network for the 8 x 8 images of the digits data set."""

from typing import cast

from torch import Tensor, nn

from egapipe.stages.distill.students.backbone import Backbone


class DigitsCnn(Backbone):
    """Float images [B, 3, H, W] to features [B, 2 * width]: three convolutions, then the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = 2 * width
        self.layers = nn.Sequential(
            *_convolution(3, width, 1),
            *_convolution(width, 2 * width, 2),
            *_convolution(2 * width, 2 * width, 1),
        )

    def maps(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] to [B, num_features, H / 2, W / 2]."""
        return cast(Tensor, self.layers(images))


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def digits_cnn(width: int = 32) -> DigitsCnn:
    """56,480 parameters and 64 features at the default width."""
    return DigitsCnn(width)
