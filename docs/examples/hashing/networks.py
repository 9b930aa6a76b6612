"""The student, which maps embeddings of one modality."""

from torch import nn


def student(given: int = 768, width: int = 256) -> nn.Module:
    """Embeddings [B, given] to features [B, width]: one layer, before those that make the code."""
    return nn.Sequential(nn.BatchNorm1d(given), nn.Linear(given, width), nn.ReLU())
