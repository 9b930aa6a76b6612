"""A teacher that listens to log-mels, and a student that does."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

FLOOR = 1e-6
"""What is added to the energies before the logarithm, about that of silence."""


class VoiceEncoder(nn.Module):
    """Resemblyzer's network: log-mels [B, T, 40] to voices [B, 256] of unit length. Its frames
    [B, T, 256] are what `lstm` gives first."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """It was trained on the energies themselves, not on their logarithms."""
        _, (last, _) = self.lstm(mels.exp() - FLOOR)
        return normalize(self.linear(last[-1]).relu(), dim=1)


def voice_encoder(weights: str | Path) -> VoiceEncoder:
    """With the weights of the package's `pretrained.pt`, which are read as data."""
    stored = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
    encoder = VoiceEncoder()
    encoder.load_state_dict({name: stored[name] for name in encoder.state_dict()})
    return encoder


class Listener(nn.Module):
    """Log-mels [B, T, 40] to features [B, width], the mean of its `frames` [B, T / 8, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(40)]
        for channels in (40, width, width):
            convolution = nn.Conv1d(channels, width, 5, stride=2, padding=2, bias=False)
            layers += [convolution, nn.BatchNorm1d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.frames = nn.Linear(width, width)

    def forward(self, mels: Tensor) -> Tensor:
        """Frames are rows of a matrix, as those of the teacher are."""
        frames: Tensor = self.frames(self.layers(mels.mT).mT)
        return frames.relu().mean(dim=1)


def listener(width: int = 32) -> Listener:
    """A student of 18,000 parameters, an eightieth of the teacher's."""
    return Listener(width)
